"""The overview: all servers, their traffic, and the daemon itself."""

from __future__ import annotations

from .model import (
    GREEN,
    KEPT,
    RATE,
    RED,
    YELLOW,
    Json,
    Panel,
    Query,
    Row,
    dashboard,
    graph,
    link,
    stat,
    timeline,
    variable,
)
from .promql import (
    ANY_IS_BAD,
    BAD,
    CALLS,
    NONE_IS_BAD,
    OVERVIEW,
    SERVER,
    STATE_MAPPING,
    TOOLS,
    UP,
    YES,
    D,
    P,
    S,
    common_variables,
    failed,
    increase,
    quantile,
    quantiles,
    rate,
    ratio,
    state_number,
)


def servers_at_a_glance() -> list[Panel]:
    disabled = f'{P}_state{{{S}, state="disabled"}} == 1'
    down = f"count({P}_up{{{S}}} == 0 unless on (job, instance, server) {disabled}) or vector(0)"
    return [
        stat(
            "Daemon",
            "Whether Prometheus can read the daemon's metrics. The worst of the chosen ones.",
            "short",
            Query(f"min(up{{{D}}})"),
            width=3,
            mappings=[UP],
            below=NONE_IS_BAD,
        ),
        stat(
            "Servers up",
            "Servers to which calls are routed: ready or degraded.",
            "short",
            Query(f"sum({P}_up{{{S}}})"),
            width=3,
        ),
        stat(
            "Servers down",
            "Servers that should be up and are not. Disabled ones do not count.",
            "short",
            Query(down),
            width=3,
            below=ANY_IS_BAD,
        ),
        stat(
            "Parked",
            "Servers that cannot work as they are configured, or failed too often; tried every 5 minutes.",
            "short",
            Query(f'sum({P}_state{{{S}, state="parked"}})'),
            width=3,
            below=ANY_IS_BAD,
        ),
    ]


def rest_at_a_glance() -> list[Panel]:
    return [
        stat(
            "Config",
            "Whether the config was good, all of it, when it was read last.",
            "short",
            Query(f"min({P}_config_last_reload_successful{{{D}}})"),
            width=3,
            mappings=[YES],
            below=NONE_IS_BAD,
        ),
        stat(
            "Failing requests",
            "Share of the requests to servers that got an error. That a tool says it failed is "
            "none, nor that a client gave up.",
            "percentunit",
            Query(ratio(f"sum(rate({CALLS}_count{{{S}, {BAD}}}[{RATE}]))", f"sum(rate({CALLS}_count{{{S}}}[{RATE}]))")),
            width=3,
            below=((None, GREEN), (0.01, YELLOW), (0.1, RED)),
            defaults={"noValue": "no requests"},
        ),
        stat(
            "Collisions",
            "Names that several servers claim; the first in the config has them.",
            "short",
            Query(f"sum({P}_collisions{{{D}}})"),
            width=3,
            below=((None, GREEN), (1, YELLOW)),
        ),
        stat(
            "Version",
            "Versions that run.",
            "short",
            Query(f"max by (version) ({P}_build_info{{{D}}})", "{{version}}"),
            width=3,
            name=True,
        ),
    ]


def servers_table() -> Panel:
    """A row a server; its name leads to the other dashboard."""
    columns = {
        "State": state_number(),
        "In it for": f"time() - max by (server) ({P}_state_entered_timestamp_seconds{{{S}}})",
        "Failures in a row": f"max by (server) ({P}_consecutive_failures{{{S}}})",
        "Restarts in 1 h": f"sum by (server) (increase({P}_restarts_total{{{S}}}[1h]))",
        "In flight": f"sum by (server) ({P}_requests_in_flight{{{S}}})",
        "Tools": f'sum by (server) ({P}_catalog_entries{{{S}, kind="tool"}})',
        "Memory": f"sum by (server) ({P}_process_resident_memory_bytes{{{S}}})",
    }
    renamed = {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(columns)} | {"server": "Server"}
    hidden = {f"Time {number + 1}": True for number in range(len(columns))} | {"Time": True}
    url = f"/d/{SERVER}?{KEPT}&var-server=${{__value.raw}}&${{__url_time_range}}"
    to_detail = {"title": "Server detail", "url": url}
    return Panel(
        "table",
        "Servers",
        "Every server now. A name leads to its detail.",
        "short",
        [Query(expr) for expr in columns.values()],
        24,
        9,
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "frameIndex": 0,
            "sortBy": [{"displayName": "State", "desc": False}],
        },
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        defaults={"decimals": 0},
        overrides=[
            _override("Server", links=[to_detail]),
            _override("State", mappings=[STATE_MAPPING], custom_cellOptions={"type": "color-text"}),
            _override("In it for", unit="s"),
            _override("Memory", unit="bytes"),
        ],
        transformations=[
            {"id": "joinByField", "options": {"byField": "server", "mode": "outer"}},
            {"id": "organize", "options": {"excludeByName": hidden, "renameByName": renamed, "indexByName": {}}},
        ],
    )


def _override(column: str, **properties: object) -> Json:
    listed = [{"id": name.replace("_", "."), "value": value} for name, value in properties.items()]
    return {"matcher": {"id": "byName", "options": column}, "properties": listed}


def fleet() -> Row:
    return Row(
        "Servers",
        [
            timeline(
                "States", "Which state each server was in.", Query(state_number(), "{{server}}"), mapping=STATE_MAPPING
            ),
            servers_table(),
            graph(
                "Restarts",
                "Connections that ended without our asking, by server.",
                "short",
                Query(increase(f"{P}_restarts_total", S, "server"), "{{server}}"),
                width=12,
            ),
            graph(
                "Failed attempts to connect",
                "Starts and connections that did not become ready, by server.",
                "short",
                Query(increase(f"{P}_connect_attempts_total", f'{S}, outcome="failed"', "server"), "{{server}}"),
                width=12,
            ),
        ],
    )


def traffic() -> Row:
    return Row(
        "Requests to servers",
        [
            graph(
                "Rate",
                "Requests that ended, by server.",
                "reqps",
                Query(rate(f"{CALLS}_count", S, "server"), "{{server}}"),
                stacked=True,
            ),
            graph(
                "Failing",
                "Share of the requests that got an error, by server. That a tool says it failed is none, nor "
                "that a client gave up.",
                "percentunit",
                Query(failed("server"), "{{server}}"),
            ),
            graph("Duration", "How long requests took, over all servers.", "s", *quantiles()),
            graph(
                "Slowest servers",
                "95th percentile of the duration, the ten highest.",
                "s",
                Query(f"topk(10, {quantile(0.95, 'server')})", "{{server}}"),
            ),
            graph(
                "In flight",
                "Requests that wait for an answer, by server.",
                "short",
                Query(f"sum by (server) ({P}_requests_in_flight{{{S}}})", "{{server}}"),
                stacked=True,
            ),
            graph(
                "Busiest tools",
                "Calls by tool, the ten most called.",
                "reqps",
                Query(f"topk(10, {rate(TOOLS, S, 'server, tool')})", "{{server}} {{tool}}"),
            ),
        ],
    )


def clients() -> Row:
    return Row(
        "Clients and config",
        [
            graph(
                "Clients",
                "Clients that are connected.",
                "short",
                Query(f"sum by (instance) ({P}_clients{{{D}}})", "{{instance}}"),
                width=6,
            ),
            graph(
                "Requests of clients",
                "By method, those that the daemon answers itself included.",
                "reqps",
                Query(f"{rate(f'{P}_client_requests_total', D, 'method')} > 0", "{{method}}"),
                width=6,
            ),
            graph(
                "Refused",
                "Clients that were turned away or cut off, and messages that were refused, by reason.",
                "short",
                Query(increase(f"{P}_rejected_total", D, "reason"), "{{reason}}"),
                width=6,
            ),
            graph(
                "Reloads",
                "Readings of the config, by outcome.",
                "short",
                Query(increase(f"{P}_config_reloads_total", D, "outcome"), "{{outcome}}"),
                width=6,
            ),
        ],
    )


def daemon() -> Row:
    return Row(
        "Daemon",
        [
            graph(
                "CPU",
                "CPU of the daemon alone, and of all servers that are its children.",
                "percentunit",
                Query(rate("process_cpu_seconds_total", D, "instance"), "{{instance}}"),
                Query(f"sum(rate({P}_process_cpu_seconds_total{{{S}}}[{RATE}]))", "servers"),
            ),
            graph(
                "Memory",
                "Resident memory of the daemon alone, and of all servers that are its children.",
                "bytes",
                Query(f"sum by (instance) (process_resident_memory_bytes{{{D}}})", "{{instance}}"),
                Query(f"sum({P}_process_resident_memory_bytes{{{S}}})", "servers"),
            ),
            graph(
                "Event loop lag",
                "How late the daemon ran what was due, at worst between two scrapes. Every call waits for it.",
                "s",
                Query(f"max by (instance) ({P}_event_loop_lag_seconds{{{D}}})", "{{instance}}"),
            ),
            graph(
                "File descriptors",
                "Share of the allowed descriptors that are open.",
                "percentunit",
                Query(f"max by (instance) (process_open_fds{{{D}}} / process_max_fds{{{D}}})", "{{instance}}"),
            ),
            graph(
                "Noise of servers",
                "Lines on stderr, and lines on stdout that are no message, of all servers.",
                "short",
                Query(f"sum(rate({P}_stderr_lines_total{{{S}}}[{RATE}]))", "stderr"),
                Query(f"sum(rate({P}_invalid_lines_total{{{S}}}[{RATE}]))", "invalid"),
            ),
            graph(
                "Bugs",
                "Internal errors of the daemon, contained. Should be 0 for ever.",
                "short",
                Query(increase(f"{P}_internal_errors_total", D, "instance"), "{{instance}}"),
            ),
        ],
    )


def overview() -> Json:
    return dashboard(
        OVERVIEW,
        "MCP multi-server / Overview",
        "Health and traffic of mcp-multi-server: which servers are up, what is asked of them, what it costs.",
        variables=[*common_variables(), variable("server", f"label_values({P}_up{{{D}}}, server)")],
        links=[link("Server detail", SERVER, "One server closely")],
        rows=[
            Row("At a glance", [*servers_at_a_glance(), *rest_at_a_glance()]),
            fleet(),
            traffic(),
            clients(),
            daemon(),
        ],
    )
