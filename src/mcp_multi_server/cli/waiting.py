"""What a person at a terminal sees while a call runs: whom it waits for, how long, and how far the server is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from .members import JsonObject, number, text
from .render import duration, first_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET = 1.0
"""Seconds of waiting that need no word."""


class Watcher(Protocol):
    """What a request tells, while it waits, of time and of progress; `watching` makes it."""

    def tick(self) -> None:
        """Some time went by."""

    def progress(self, params: JsonObject) -> None:
        """The server said how far it is."""


@contextmanager
def watching(whom: str) -> Iterator[Watcher]:
    """A watcher that draws on stderr, or one that keeps silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    watcher = _OnTerminal(whom)
    try:
        yield watcher
    finally:
        watcher.clear()


class _Silent:
    """Asks for progress, which keeps a long call alive, and shows none."""

    def tick(self) -> None:
        pass

    def progress(self, params: JsonObject) -> None:
        pass


class _OnTerminal:
    """A line on stderr that is drawn over in place, and gone when the wait is over."""

    def __init__(self, whom: str) -> None:
        self._whom = whom
        self._began = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None
        self._said = ""

    def tick(self) -> None:
        waited = time.monotonic() - self._began
        if waited >= QUIET:
            self._draw(self._said or f"waiting for {self._whom}", waited)

    def progress(self, params: JsonObject) -> None:
        self._said = first_line(text(params, "message")) or f"{self._whom} works"
        self._draw(self._said, time.monotonic() - self._began)
        progress, task = self._open()
        progress.update(task, total=number(params, "total"), completed=number(params, "progress") or 0)
        progress.refresh()

    def clear(self) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()

    def _draw(self, what: str, waited: float) -> None:
        progress, task = self._open()
        progress.update(task, description=f"{what} … {duration(waited)}")
        progress.refresh()

    def _open(self) -> tuple[Progress, TaskID]:
        if self._drawn is None:
            # Imported only now: most calls are over before there is anything to draw.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                console=Console(stderr=True, highlight=False),
                auto_refresh=False,
                transient=True,
            )
            progress.start()
            self._drawn = progress, progress.add_task("", total=None)
        return self._drawn
