"""Names, selections and expressions that the dashboards share."""

from __future__ import annotations

from .model import BLUE, GREEN, ORANGE, PLAIN, PURPLE, RATE, RED, YELLOW, Json, Query, source_variable, values, variable

OVERVIEW, SERVER = "mcp-multi-server-overview", "mcp-multi-server-server"
P = "mcp_multi_server"
CALLS = "mcp_client_operation_duration_seconds"
TOOLS = f"{P}_tool_calls_total"
D = 'job=~"$job", instance=~"$instance"'
S = f'{D}, server=~"$server"'
BAD = 'error_type!~"|tool_error|cancelled"'
"""An answer that a tool failed is an answer, and a client that gave up is no fault of the server's."""

STATES = {
    "disabled": PLAIN,
    "stopping": PURPLE,
    "parked": RED,
    "backoff": ORANGE,
    "connecting": BLUE,
    "degraded": YELLOW,
    "ready": GREEN,
}
STATE_MAPPING = values({number: (state, colour) for number, (state, colour) in enumerate(STATES.items())})
UP = values({0: ("down", RED), 1: ("up", GREEN)})
YES = values({0: ("refused", RED), 1: ("in force", GREEN)})
ANY_IS_BAD = ((None, GREEN), (1, RED))
NONE_IS_BAD = ((None, RED), (1, GREEN))


def rate(metric: str, select: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{select}}}[{RATE}]))"


def increase(metric: str, select: str, by: str) -> str:
    return f"sum by ({by}) (increase({metric}{{{select}}}[{RATE}]))"


def ratio(bad: str, every: str) -> str:
    """A share that is 0, not nothing, where nothing is bad; nothing where nothing happened at all."""
    return f"({bad} or 0 * {every}) / ({every} > 0)"


def failed(by: str, wrong: str = BAD) -> str:
    return ratio(rate(f"{CALLS}_count", f"{S}, {wrong}", by), rate(f"{CALLS}_count", S, by))


def quantile(share: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{CALLS}_bucket', S, labels)})"


def quantiles() -> list[Query]:
    return [Query(quantile(share), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def state_number() -> str:
    """The state as a number, as STATE_MAPPING has them."""
    terms = [f'{number} * ({P}_state{{{S}, state="{state}"}} == 1)' for number, state in enumerate(STATES)]
    return f"max by (server) ({' or '.join(terms)})"


def common_variables() -> list[Json]:
    return [
        source_variable(),
        variable("job", f"label_values({P}_build_info, job)"),
        variable("instance", f'label_values({P}_build_info{{job=~"$job"}}, instance)'),
    ]
