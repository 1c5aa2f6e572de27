"""Tables: aligned plain text into a pipe or file; on a terminal drawn by rich, which is imported only for that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.printable import one_line
from .render import echo, styled

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2
_NARROWEST = 24
"""Characters that a column which may wrap gets at least."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The text in one place of a table, and rich's name for its style."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """The heading of a column, and how its cells are drawn."""

    title: str
    right: bool = False
    """Whether it is aligned to the right."""
    wraps: bool = False
    """Whether a cell may take several lines."""
    give_up: int = 0
    """The higher, the earlier a terminal that is too narrow goes without it; 0 stays always."""


def echo_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table. Into a pipe every column is there, and `-` for an empty cell, so that scripts can cut columns."""
    if sys.stdout.isatty():
        from shutil import get_terminal_size

        from rich.console import Console

        Console(highlight=False).print(drawing(columns, rows, get_terminal_size().columns))
        return
    texts = [[column.title for column in columns], *([one_line(cell.text) or "-" for cell in row] for row in rows)]
    widths = [max(map(_breadth, strip)) for strip in zip(*texts, strict=True)]
    for line in texts:
        cells = zip(columns, line, widths, strict=True)
        echo((" " * _GAP).join(_pad(text, width, column.right) for column, text, width in cells).rstrip())


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _breadth(text))
    return gap + text if right else text + gap


def _breadth(text: str) -> int:
    """How many columns the text takes: East Asian letters take two, and accents of their own none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "FW") for letter in text)


def drawing(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Table:
    """A table for rich to draw, `width` characters wide at most if that can be."""
    from rich.table import Table

    kept = _fitting(columns, rows, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
    for column in (columns[index] for index in kept):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(styled(row[index].text, row[index].style) for index in kept))
    return table


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], terminal_width: int) -> list[int]:
    """Which columns to draw: none that is empty throughout, and no more than there is room for."""
    kept = [index for index in range(len(columns)) if not rows or any(row[index].text for row in rows)]
    while sum(_width(columns[index], [row[index] for row in rows]) + _GAP for index in kept) > terminal_width:
        least = max(kept, key=lambda index: columns[index].give_up)
        if not columns[least].give_up:
            break  # only those are left that stay always: rich folds what is too wide
        kept.remove(least)
    return kept


def _width(column: Column, cells: Sequence[Cell]) -> int:
    widest = max((_breadth(one_line(cell.text)) for cell in cells), default=0)
    return max(len(column.title), min(widest, _NARROWEST) if column.wraps else widest)
