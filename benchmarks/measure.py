"""Medians, quantiles and ratios within a round; tables and JSON to show them in."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TypeVar

Name = TypeVar("Name")


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank; `share` from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), quantile(values, 0.25), quantile(values, 0.75))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


@dataclass(frozen=True)
class Aim:
    """A figure, and the most that it should be."""

    what: str
    measured: float
    at_most: float

    def cells(self) -> tuple[str, str, str, str]:
        """One row of the table."""
        met = "yes" if self.measured <= self.at_most else "no"
        return (self.what, f"{self.measured:.3g}", f"≤ {self.at_most:g}", met)


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """`values` over `base`, round by round: what slows a whole round down cancels out."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


def rotated(names: Sequence[Name], turn: int) -> list[Name]:
    """`names` in the order of round `turn`, so that nobody always comes after the same neighbour."""
    shift = turn % len(names)
    return [*names[shift:], *names[:shift]]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def surroundings() -> dict[str, object]:
    """What a reader must know to place the figures."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def save(path: str | None, **results: object) -> None:
    """Append the results to a file, one JSON object a line; no path, no file."""
    if path:
        line = json.dumps({**surroundings(), **results}, default=_plain)
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")
