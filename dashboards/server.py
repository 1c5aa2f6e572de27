"""Server detail: one server, its life, its requests and its process."""

from __future__ import annotations

from .model import GREEN, PLAIN, RED, YELLOW, Json, Query, Row, dashboard, graph, link, stat, timeline, variable
from .promql import (
    CALLS,
    OVERVIEW,
    SERVER,
    STATE_MAPPING,
    TOOLS,
    D,
    P,
    S,
    common_variables,
    increase,
    quantiles,
    rate,
    ratio,
    state_number,
)


def now() -> Row:
    since = f"time() - max({P}_state_entered_timestamp_seconds{{{S}}})"
    wait = f"clamp_min(min({P}_next_attempt_timestamp_seconds{{{S}}}) - time(), 0)"
    age = f"time() - max({P}_catalog_last_refresh_success_timestamp_seconds{{{S}}})"
    return Row(
        "Now",
        [
            stat(
                "State",
                "The state of the server. Calls are routed in ready and degraded.",
                "short",
                Query(state_number()),
                width=4,
                mappings=[STATE_MAPPING],
                below=((None, PLAIN),),
            ),
            stat("For", "Time since its state changed.", "s", Query(since), width=4),
            stat(
                "Failures in a row",
                "Failures without a stable minute between them.",
                "short",
                Query(f"max({P}_consecutive_failures{{{S}}})"),
                width=4,
                below=((None, GREEN), (1, YELLOW), (5, RED)),
            ),
            stat(
                "Next attempt in",
                "Time to the next planned attempt to connect.",
                "s",
                Query(wait),
                width=4,
                defaults={"noValue": "none planned"},
            ),
            stat(
                "Speaks",
                "Transport and protocol version.",
                "short",
                Query(f"max by (transport, protocol_version) ({P}_info{{{S}}})", "{{transport}} {{protocol_version}}"),
                width=4,
                name=True,
            ),
            stat(
                "Lists read",
                "Time since all its lists were read last.",
                "s",
                Query(age),
                width=4,
                defaults={"noValue": "never"},
            ),
        ],
    )


def life() -> Row:
    return Row(
        "Life",
        [
            timeline(
                "States",
                "Which state the server was in.",
                Query(state_number(), "{{server}}"),
                mapping=STATE_MAPPING,
                height=4,
            ),
            graph(
                "Restarts",
                "Connections that ended without our asking, by reason.",
                "short",
                Query(f"{increase(f'{P}_restarts_total', S, 'reason')} > 0", "{{reason}}"),
                width=6,
            ),
            graph(
                "Attempts to connect",
                "Attempts that ended, by outcome.",
                "short",
                Query(increase(f"{P}_connect_attempts_total", S, "outcome"), "{{outcome}}"),
                width=6,
            ),
            graph(
                "Health checks",
                "Probes, sent while nothing else is asked, by outcome.",
                "short",
                Query(increase(f"{P}_health_checks_total", S, "outcome"), "{{outcome}}"),
                width=6,
            ),
            graph(
                "Offers",
                "Entries of its catalog, by kind.",
                "short",
                Query(f"sum by (kind) ({P}_catalog_entries{{{S}}})", "{{kind}}"),
                width=6,
            ),
        ],
    )


def traffic() -> Row:
    failing = ratio(rate(TOOLS, f'{S}, outcome="error"', "tool"), rate(TOOLS, S, "tool"))
    return Row(
        "Requests",
        [
            graph(
                "Rate",
                "Requests that ended, by method.",
                "reqps",
                Query(rate(f"{CALLS}_count", S, "mcp_method_name"), "{{mcp_method_name}}"),
                stacked=True,
            ),
            graph(
                "Errors",
                "Requests that did not go well, by error: a JSON-RPC code, tool_error where a tool says that it "
                "failed, timeout, unavailable, cancelled.",
                "reqps",
                Query(rate(f"{CALLS}_count", f'{S}, error_type!=""', "error_type"), "{{error_type}}"),
                stacked=True,
            ),
            graph("Duration", "How long requests took, all methods.", "s", *quantiles()),
            graph(
                "In flight",
                "Requests that wait for an answer.",
                "short",
                Query(f"sum by (server) ({P}_requests_in_flight{{{S}}})", "{{server}}"),
            ),
            graph(
                "Tools",
                "Calls by tool, the ten most called. Tools beyond the first 50 are counted together.",
                "reqps",
                Query(f"topk(10, {rate(TOOLS, S, 'tool')})", "{{tool}}"),
            ),
            graph(
                "Failing tools",
                "Share of the calls that failed, by tool, the ten worst.",
                "percentunit",
                Query(f"topk(10, {failing})", "{{tool}}"),
            ),
        ],
    )


def process() -> Row:
    return Row(
        "Process",
        [
            graph(
                "CPU",
                "CPU of its process and what that started. Nothing for a server elsewhere.",
                "percentunit",
                Query(rate(f"{P}_process_cpu_seconds_total", S, "server"), "{{server}}"),
            ),
            graph(
                "Memory",
                "Resident memory of its process and what that started. Nothing for a server elsewhere.",
                "bytes",
                Query(f"sum by (server) ({P}_process_resident_memory_bytes{{{S}}})", "{{server}}"),
            ),
            graph(
                "Noise",
                "Lines on stderr, and lines on stdout that are no message.",
                "short",
                Query(rate(f"{P}_stderr_lines_total", S, "server"), "stderr of {{server}}"),
                Query(rate(f"{P}_invalid_lines_total", S, "server"), "invalid of {{server}}"),
            ),
        ],
    )


def server() -> Json:
    return dashboard(
        SERVER,
        "MCP multi-server / Server detail",
        "One MCP server closely: its state and restarts, its requests and errors, its process.",
        variables=[*common_variables(), variable("server", f"label_values({P}_up{{{D}}}, server)", many=False)],
        links=[link("Overview", OVERVIEW, "All servers")],
        rows=[now(), life(), traffic(), process()],
    )
