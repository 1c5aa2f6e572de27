"""The result of `daemon/status` for a person: what runs, what does not, why, and when that changes."""

from __future__ import annotations

from collections.abc import Iterator

from .members import JsonObject, member, moment, number, objects, optional_objects, strings, text
from .render import clean, duration, echo, echo_styled, until
from .table import Cell, Column, echo_table

STATE_STYLES = {
    "ready": "green",
    "degraded": "yellow",
    "connecting": "cyan",
    "stopping": "cyan",
    "backoff": "red",
    "parked": "red",
    "disabled": "dim",
}
FIRST_MODERN_VERSION = "2026-07-28"
_AWAY = ("backoff", "parked", "stopping")
_SAYS_WHY = ("exit", "signal", "closed", "hang", "protocol", "start_timeout", "flapping")
"""Reasons for which a server's own words may hold the explanation."""
COLUMNS = (
    Column("SERVER"),
    Column("STATE"),
    Column("FOR", right=True, give_up=2),
    Column("REASON", wraps=True),
    Column("NEXT ATTEMPT", give_up=1),
    Column("TRANSPORT", give_up=8),
    Column("PROTOCOL", give_up=10),
    Column("PID", right=True, give_up=9),
    Column("TOOLS", right=True, give_up=3),
    Column("RESOURCES", right=True, give_up=4),
    Column("PROMPTS", right=True, give_up=5),
    Column("IN FLIGHT", right=True, give_up=7),
    Column("RESTARTS", right=True, give_up=6),
)


def show_status(status: JsonObject, now: float) -> None:
    """Print the whole of it. `now` is seconds since 1970, as the times in `status` are."""
    echo(headline(status, now))
    echo("")
    echo_table(COLUMNS, [row(server, now) for server in objects(status, "servers")])
    if said := remarks(status):
        echo("")
        for line, style in said:
            echo_styled(line, style)


def remarks(status: JsonObject) -> list[tuple[str, str]]:
    """The lines below the table, each with its style."""
    servers = objects(status, "servers")
    names = [*_collisions(status), *_lists(servers), *_refused(status)]
    return [*_problems(status), *_stale(servers), *names, *_advice(servers)]


def describe_server(server: JsonObject, now: float) -> str:
    """One server on one line."""
    state, reason, due = text(server, "state"), text(server, "reason"), moment(server, "nextAttemptAt")
    line = f"{clean(text(server, 'name'))}: {state}"
    line += f" ({clean(reason)})" if reason else ""
    return line + (f", next attempt {until(due - now)}" if due is not None else "")


def headline(status: JsonObject, now: float) -> str:
    """The daemon itself on one line."""
    config, started = member(status, "config"), moment(status, "startedAt")
    reload, clients = member(config, "lastReload"), optional_objects(status, "clients")
    parts = [f"mcp-multi-server {clean(text(status, 'version'))}", f"pid {text(status, 'pid') or '?'}"]
    if started is not None:
        parts.append(f"up {duration(now - started)}")
    parts.append(f"config {clean(text(config, 'path')) or '?'}")
    if outcome := text(reload, "outcome"):
        at = moment(reload, "at")
        parts.append(f"last reload {clean(outcome)}" + (f" {duration(now - at)} ago" if at is not None else ""))
    parts.append(f"{len(clients)} client" + ("" if len(clients) == 1 else "s"))
    return " · ".join(parts)


def row(server: JsonObject, now: float) -> list[Cell]:
    """One server's line of the table."""
    state, since, due = text(server, "state"), moment(server, "since"), moment(server, "nextAttemptAt")
    return [
        Cell(clean(text(server, "name"))),
        Cell(clean(state), STATE_STYLES.get(state, "")),
        Cell(duration(now - since) if since is not None else ""),
        Cell(clean(text(server, "reason"))),
        Cell(until(due - now) if due is not None else ""),
        Cell(clean(text(server, "transport"))),
        Cell(_protocol(clean(text(server, "protocolVersion")))),
        Cell(text(server, "pid")),
        Cell(text(server, "tools")),
        Cell(_resources(server)),
        Cell(text(server, "prompts")),
        Cell(text(server, "inFlight")),
        Cell(text(server, "restarts")),
    ]


def _protocol(version: str) -> str:
    """The revision and its era; revisions are dates, so they order as text."""
    return version and f"{version} {'modern' if version >= FIRST_MODERN_VERSION else 'legacy'}"


def _resources(server: JsonObject) -> str:
    resources, templates = text(server, "resources"), number(server, "resourceTemplates")
    return f"{resources}+{templates:g} templates" if templates else resources


def _stale(servers: list[JsonObject]) -> Iterator[tuple[str, str]]:
    for server in servers:
        # While a server is away its lists are always old ones, and its state says so already.
        if server.get("stale") is True and text(server, "state") not in _AWAY:
            yield f"stale: what {clean(text(server, 'name'))} offers is from an earlier reading", "yellow"


def _collisions(status: JsonObject) -> Iterator[tuple[str, str]]:
    for collision in optional_objects(status, "collisions"):
        yield describe_collision(collision), "yellow"


def _lists(servers: list[JsonObject]) -> Iterator[tuple[str, str]]:
    for server in servers:
        for problem in strings(server, "problems"):
            yield f"lists: {clean(text(server, 'name'))}: {clean(problem)}", "yellow"


def _refused(status: JsonObject) -> Iterator[tuple[str, str]]:
    for refused in optional_objects(status, "refusedNames"):
        kind, name, problem = (clean(text(refused, key)) for key in ("kind", "name", "problem"))
        yield f"name: {kind} {name} {problem}", "yellow"


def _problems(status: JsonObject) -> Iterator[tuple[str, str]]:
    for problem in optional_objects(member(member(status, "config"), "lastReload"), "problems"):
        yield f"problem: {describe_problem(problem)}", "red"


def _advice(servers: list[JsonObject]) -> Iterator[tuple[str, str]]:
    for server in servers:
        if text(server, "reason").startswith(_SAYS_WHY):
            name = clean(text(server, "name"))
            yield f"{name}: its own words are in `mcp-multi-server logs {name}`", "dim"


def describe_collision(collision: JsonObject) -> str:
    """That several servers claim one name, or do no longer."""
    kind, name, owner = (clean(text(collision, key)) for key in ("kind", "name", "owner"))
    if others := ", ".join(map(clean, strings(collision, "shadowed"))):
        return f"collision: {kind} {name} is {owner}'s; shadowed: {others}"
    return f"collision: over for {kind} {name}, which is {owner}'s"


def describe_problem(problem: JsonObject) -> str:
    """One thing that is wrong with a config."""
    field, message = clean(text(problem, "field")), clean(text(problem, "message"))
    return f"{field}: {message}" if field else message
