"""The status shown: in full in a pipe or where the screen has room, else what is wrong in full and the rest briefly."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from .members import JsonObject, text
from .render import echo, styled
from .status import COLUMNS, config_problems, in_trouble_first, is_fine, remarks, row, summary
from .table import drawing, echo_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ELSEWHERE = "`mcp-multi-server status | less` has all"


def show_status(status: JsonObject, now: float) -> None:
    """Print the status. `now` is seconds since 1970, as the times in it are."""
    if sys.stdout.isatty():
        from shutil import get_terminal_size

        size = get_terminal_size()
        # One line is left for the prompt of the shell.
        sys.stdout.write("\n".join(drawing_of(status, now, size.columns, size.lines - 1)) + "\n")
        return
    for line in summary(status, now):
        echo(line)
    echo("")
    echo_table(COLUMNS, [row(server, now) for server in in_trouble_first(status)])
    if said := [*config_problems(status), *remarks(status)]:
        echo("")
        for line, _ in said:
            echo(line)


def drawing_of(
    status: JsonObject, now: float, width: int, height: int, *, without: Collection[str] = (), notice: str = ""
) -> list[str]:
    """The lines to draw, at most `height` if that leaves room for what matters, each at most `width` characters.

    `without` are titles of columns that are left out; `notice` is a line of our own.
    """
    head = [styled(line, "bold") for line in summary(status, now)]
    if notice:
        head.append(styled(notice, "black on yellow"))
    wrong = [styled(*problem) for problem in config_problems(status)]
    said = [styled(*remark) for remark in remarks(status)]
    servers = in_trouble_first(status)
    in_full = [_table(servers, now, width, without), *_apart(wrong), *_apart(said)]
    lines = _drawn(head, in_full, width)
    if len(lines) <= height:
        return lines
    trouble = [server for server in servers if not is_fine(server)]
    briefly = [_table(trouble, now, width, without)] if trouble else []
    rest = [styled(line, "") for line in _briefly(server for server in servers if is_fine(server))]
    lines = _drawn(head, [*briefly, *_apart(wrong), *_apart(rest), *_apart(said)], width)
    if len(lines) > height:
        left_out = len(lines) - height + 1
        lines[height - 1 :] = [f"… {left_out} more lines: {ELSEWHERE}"[:width]]
    return lines


def _table(servers: Sequence[JsonObject], now: float, width: int, without: Collection[str]) -> Table:
    kept = [index for index, column in enumerate(COLUMNS) if column.title not in without]
    rows = [row(server, now) for server in servers]
    return drawing([COLUMNS[index] for index in kept], [[cells[index] for index in kept] for cells in rows], width)


def _briefly(servers: Iterable[JsonObject]) -> list[str]:
    """The names of servers by their state, a line each."""
    by_state: dict[str, list[str]] = {}
    for server in servers:
        by_state.setdefault(text(server, "state"), []).append(text(server, "name"))
    return [f"{state}: {', '.join(names)}" for state, names in by_state.items()]


def _apart(block: Sequence[RenderableType]) -> list[RenderableType]:
    """The block after a blank line, nothing if it is empty."""
    return ["", *block] if block else []


def _drawn(head: Sequence[RenderableType], rest: Sequence[RenderableType], width: int) -> list[str]:
    from rich.console import Console

    console = Console(width=width, highlight=False)
    with console.capture() as drawn:
        for line in head:
            console.print(line, no_wrap=True, overflow="ellipsis")
        console.print("")
        for block in rest:
            console.print(block)
    return drawn.get().rstrip("\n").split("\n")
