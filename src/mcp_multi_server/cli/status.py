"""The result of `daemon/status` for a person: what runs, what does not, why, and when that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from shlex import quote

from .members import JsonObject, member, moment, number, objects, optional_objects, strings, text
from .render import duration, until
from .table import Cell, Column

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
_IN_TROUBLE = ("degraded", "connecting", "backoff", "parked", "stopping")
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


def summary(status: JsonObject, now: float) -> list[str]:
    """The fleet in a line, and the daemon in another."""
    return [_fleet(objects(status, "servers")), headline(status, now)]


def _fleet(servers: list[JsonObject]) -> str:
    """How many are ready, and what the others are; in the words that systemd shows too."""
    counts = Counter(text(server, "state") for server in servers)
    total = counts.total() - counts["disabled"]
    words = [f"{counts['ready']}/{total} ready" if total else "no servers"]
    return ", ".join([*words, *(f"{counts[state]} {state}" for state in _IN_TROUBLE if counts[state])])


def in_trouble_first(status: JsonObject) -> list[JsonObject]:
    """The servers: those that need a look, those that are fine, those that are switched off."""
    return sorted(objects(status, "servers"), key=lambda server: (is_fine(server), text(server, "state") == "disabled"))


def is_fine(server: JsonObject) -> bool:
    """Whether there is nothing to be said of a server but that it is ready, or switched off."""
    said = text(server, "reason") or server.get("stale") is True or _list_problems(server)
    return text(server, "state") in ("ready", "disabled") and not said


def remarks(status: JsonObject) -> list[tuple[str, str]]:
    """The lines below the table, each with its style: what is wrong with servers, then what is odd about names."""
    servers = objects(status, "servers")
    return [*_stale(servers), *_lists(servers), *_advice(servers), *_collisions(status), *_refused(status)]


def describe_server(server: JsonObject, now: float) -> str:
    """One server on one line."""
    state, reason, due = text(server, "state"), text(server, "reason"), moment(server, "nextAttemptAt")
    line = f"{text(server, 'name')}: {state}"
    line += f" ({reason})" if reason else ""
    return line + (f", next attempt {until(due - now)}" if due is not None else "")


def headline(status: JsonObject, now: float) -> str:
    """The daemon itself on one line."""
    config, started = member(status, "config"), moment(status, "startedAt")
    reload, clients = member(config, "lastReload"), optional_objects(status, "clients")
    parts = [f"mcp-multi-server {text(status, 'version')}", f"pid {text(status, 'pid') or '?'}"]
    if started is not None:
        parts.append(f"up {duration(now - started)}")
    parts.append(f"config {text(config, 'path') or '?'}")
    if outcome := text(reload, "outcome"):
        at = moment(reload, "at")
        parts.append(f"last reload {outcome}" + (f" {duration(now - at)} ago" if at is not None else ""))
    parts.append(f"{len(clients)} client" + ("" if len(clients) == 1 else "s"))
    return " · ".join(parts)


def row(server: JsonObject, now: float) -> list[Cell]:
    """One server's line of the table."""
    state, since, due = text(server, "state"), moment(server, "since"), moment(server, "nextAttemptAt")
    return [
        Cell(text(server, "name")),
        Cell(state, STATE_STYLES.get(state, "")),
        Cell(duration(now - since) if since is not None else ""),
        Cell(text(server, "reason")),
        Cell(until(due - now) if due is not None else ""),
        Cell(text(server, "transport")),
        Cell(_protocol(text(server, "protocolVersion"))),
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
            yield f"stale: what {text(server, 'name')} offers is from an earlier reading", "yellow"


def _collisions(status: JsonObject) -> Iterator[tuple[str, str]]:
    for collision in optional_objects(status, "collisions"):
        yield describe_collision(collision), "yellow"


def _lists(servers: list[JsonObject]) -> Iterator[tuple[str, str]]:
    for server in servers:
        for problem in _list_problems(server):
            yield f"lists: {text(server, 'name')}: {problem}", "yellow"


def _list_problems(server: JsonObject) -> list[str]:
    return [describe_list_problem(problem) for problem in optional_objects(server, "problems")]


def describe_list_problem(problem: JsonObject) -> str:
    """What is wrong with a list: which one, with which of its items, and what was done."""
    return ": ".join(part for part in (text(problem, key) for key in ("list", "name", "message")) if part)


def _refused(status: JsonObject) -> Iterator[tuple[str, str]]:
    for refused in optional_objects(status, "refusedNames"):
        kind, name, problem = (text(refused, key) for key in ("kind", "name", "problem"))
        yield f"name: {kind} {name} {problem}", "yellow"


def config_problems(status: JsonObject) -> Iterator[tuple[str, str]]:
    """What was wrong with the config when it was last read, each with its style."""
    for problem in optional_objects(member(member(status, "config"), "lastReload"), "problems"):
        yield f"problem: {describe_problem(problem)}", "red"


def _advice(servers: list[JsonObject]) -> Iterator[tuple[str, str]]:
    for server in servers:
        if text(server, "reason").startswith(_SAYS_WHY):
            name = text(server, "name")
            yield f"{name}: its own words are in `mcp-multi-server logs {quote(name)}`", "dim"


def describe_collision(collision: JsonObject) -> str:
    """That several servers claim one name, or do no longer."""
    kind, name, owner = (text(collision, key) for key in ("kind", "name", "owner"))
    if others := ", ".join(strings(collision, "shadowed")):
        return f"collision: {kind} {name} is {owner}'s; shadowed: {others}"
    return f"collision: over for {kind} {name}, which is {owner}'s"


def describe_problem(problem: JsonObject) -> str:
    """One thing that is wrong with a config."""
    field, message = text(problem, "field"), text(problem, "message")
    return f"{field}: {message}" if field else message
