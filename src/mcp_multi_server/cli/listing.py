"""Lists of what the servers offer: shown, and searched for what a name on the command line means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .members import JsonObject, member, objects, text
from .render import echo_json, first_line
from .session import DaemonSession
from .table import Cell, Column, echo_table

SEPARATOR = "__"
SERVER_KEY = "serverName"
STATE_KEY = "mcp-multi-server/state"
"""In the `_meta` of a listed item: whose it is, and that server's state while it is away."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


def show_list(session: DaemonSession, *, method: str, member_name: str, key: str, as_json: bool) -> None:
    """Print a list, as the daemon gives it or as a table. `key` is the member by which an item is called."""
    listed = session.ask_all(method, member_name)
    if as_json:
        echo_json(listed)
        return
    columns = [Column(key.upper()), Column("SERVER"), Column("DESCRIPTION", wraps=True)]
    if key != "name":
        columns.insert(1, Column("NAME", give_up=1))  # resources are called by their URI, and have a name as well
    echo_table(columns, [_row(item, key) for item in objects(listed, member_name)])


def qualified(name: str, server: str, items: Sequence[JsonObject]) -> str:
    """The name under which `server`'s own `name` can be called, going by how its `items` are listed."""
    own = [text(item, "name") for item in items if server_of(item) == server]
    usual = _usual(server, name)
    if name in own or usual in own:
        return name if name in own else usual
    # A server whose prefix or separator is set in the config: its items show it.
    ending = [listed for listed in own if listed.endswith(name)]
    return ending[0] if len(ending) == 1 else usual


def find(name: str, items: Sequence[JsonObject]) -> JsonObject:
    """The item that `name` means; empty if the list does not tell, though the daemon may know it.

    Every item can be called by its qualified name, but one that owns its bare name is listed under that alone.
    """
    by_name = next((item for item in items if item.get("name") == name), None)
    if by_name is not None:
        return by_name
    return next((item for item in items if _usual(server_of(item), text(item, "name")) == name), {})


def server_of(item: JsonObject) -> str:
    """The name of the item's server; "" if the list does not say."""
    return text(member(item, "_meta"), SERVER_KEY)


def _usual(server: str, name: str) -> str:
    """The qualified name, unless the config sets a prefix or separator of its own."""
    return f"{_NOT_IN_NAMES.sub('_', server)}{SEPARATOR}{name}"


def _row(item: JsonObject, key: str) -> list[Cell]:
    description = first_line(text(item, "description")) or first_line(text(item, "title"))
    away = text(member(item, "_meta"), STATE_KEY)
    server = server_of(item) + (f" ({away})" if away else "")
    cells = [Cell(text(item, key)), Cell(server, "yellow" if away else ""), Cell(description)]
    if key != "name":
        cells.insert(1, Cell(text(item, "name")))
    return cells
