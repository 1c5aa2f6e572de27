"""Where a file keeps its servers: `mcpServers`, `servers`, `context_servers` or `mcp`, each the way of some hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import Problem
from ..reading import UNKNOWN_KEY
from ..text import JsonObject, Place, is_comment, repeated

CONTAINERS = ("mcpServers", "servers", "context_servers", "mcp")
"""The keys that may hold the servers; the first one that holds any is used."""
_WAYS = ("command", "url", "type")
_OURS = ("$schema", "daemon")
_FEW = 3
"""So many unknown keys get a note each. A file with more is the settings of another program: one note names them."""
_NAMES_SHOWN = 5
_GEMINI = frozenset({"selectedAuthType", "contextFileName", "coreTools", "mcpServerCommand"})
"""Keys that only the settings of Gemini CLI have beside `mcpServers`."""


@dataclass(slots=True)
class Layout:
    """What stands where in a file; `locate` makes it."""

    place: Place
    """Of the object with the servers."""
    entries: JsonObject
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The values that VS Code would suggest for its inputs, by their ids."""
    off: frozenset[str] = frozenset()
    """Servers that the file turns off elsewhere than in their entries."""
    braces: bool = False
    """Whether `{env:NAME}` is a variable, as in the files of opencode."""
    bare: bool = False
    """Whether `$NAME` is one, as in the settings of Gemini CLI."""
    problems: list[Problem] = field(default_factory=list)
    """Of the file as a whole."""
    warnings: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def locate(top: JsonObject) -> Layout:
    """Find the servers and what else matters in a file. Its `daemon` object is not looked at."""
    root = Place("")
    present = [key for key in CONTAINERS if key in top]
    filled = [key for key in present if top[key] != {} and not _is_gemini_filter(top[key])]
    key = (filled or present or ["mcpServers"])[0]
    place, entries = _container(top, key)
    found = Layout(place, JsonObject())
    found.problems += (each for each in repeated(top, root) if each.field in (*CONTAINERS, *_OURS, "inputs"))
    outer = top.get(key)
    if isinstance(outer, JsonObject) and outer is not entries:
        found.problems += repeated(outer, Place(key))
    if isinstance(entries, JsonObject):
        found.entries = entries
    elif key in top:
        found.problems.append(place.problem("must be an object"))
    else:
        others = ", ".join(CONTAINERS[1:])
        found.problems.append(place.problem(f"missing: the object with the servers (other hosts: {others})"))
    found.braces = key == "mcp"
    found.inputs = _inputs(top)
    _filter(found, top)
    _tell_the_rest(found, top, key, [other for other in filled if other != key])
    return found


def _container(top: JsonObject, key: str) -> tuple[Place, object]:
    """The object with the servers: VS Code's settings and opencode from version 2 on have one more inside `mcp`."""
    held = top.get(key)
    if key == "mcp" and isinstance(held, JsonObject):
        inner = held.get("servers")
        # A server of opencode's may have the name `servers`.
        if isinstance(inner, JsonObject) and not any(isinstance(inner.get(way), str | list) for way in _WAYS):
            return Place("mcp.servers"), inner
    return Place(key), held


def _inputs(top: JsonObject) -> dict[str, str]:
    """The defaults of VS Code's inputs, in its mcp.json or its settings."""
    settings = top.get("mcp")
    given = top.get("inputs", settings.get("inputs") if isinstance(settings, JsonObject) else None)
    found = {}
    for each in given if isinstance(given, list) else ():
        if isinstance(each, JsonObject) and isinstance(each.get("id"), str) and isinstance(each.get("default"), str):
            found[str(each["id"])] = str(each["default"])
    return found


def _is_gemini_filter(held: object) -> bool:
    """Whether this is the `mcp` object of Gemini CLI, which says of servers elsewhere which are on."""
    return isinstance(held, JsonObject) and bool(held) and set(held) <= {"allowed", "excluded", "serverCommand"}


def _filter(found: Layout, top: JsonObject) -> None:
    """Gemini CLI keeps lists of the servers that are on and off beside the servers."""
    held = top.get("mcp")
    filters = held if isinstance(held, JsonObject) and _is_gemini_filter(held) else JsonObject()
    allowed = filters.get("allowed", top.get("allowMCPServers"))
    excluded = filters.get("excluded", top.get("excludeMCPServers"))
    off = {name for name in found.entries if isinstance(allowed, list) and name not in allowed}
    off |= {name for name in found.entries if isinstance(excluded, list) and name in excluded}
    found.off = frozenset(off)
    found.bare = bool(filters) or not _GEMINI.isdisjoint(top)


def _tell_the_rest(found: Layout, top: JsonObject, used: str, others: list[str]) -> None:
    root = Place("")
    for key in others:
        held = top[key]
        count = len(held) if isinstance(held, JsonObject) else 0
        found.warnings.append(root.at(key).problem(f"ignored with its {count} servers, since there is {used}"))
    if any(_servers_of_projects(top)):
        said = "the servers of single projects are not read: move those that all may use to mcpServers"
        found.warnings.append(root.at("projects").problem(said))
    understood = {*CONTAINERS, *_OURS, "inputs", "projects", "allowMCPServers", "excludeMCPServers"}
    found.notes += _unknown(
        [key for key, member in top.items() if key not in understood and not is_comment(key, member)]
    )


def _unknown(keys: list[str]) -> Iterator[Problem]:
    root = Place("")
    if len(keys) <= _FEW:
        yield from (root.at(key).problem(UNKNOWN_KEY) for key in keys)
        return
    shown = ", ".join(root.at(key).path for key in keys[:_NAMES_SHOWN])
    more = f" and {len(keys) - _NAMES_SHOWN} more" if len(keys) > _NAMES_SHOWN else ""
    yield root.problem(f"settings of another program, ignored: {shown}{more}")


def _servers_of_projects(top: JsonObject) -> Iterator[bool]:
    """Whether the projects in Claude Code's own file have servers."""
    projects = top.get("projects")
    for project in projects.values() if isinstance(projects, JsonObject) else ():
        yield isinstance(project, JsonObject) and bool(project.get("mcpServers"))
