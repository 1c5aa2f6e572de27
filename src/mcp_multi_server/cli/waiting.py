"""What a person at a terminal sees while a call runs: what it waits for, how long, and how far the server is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ..core.printable import one_line
from .members import JsonObject, number, text
from .render import duration, first_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET = 1.0
"""Seconds of a wait in which nothing is drawn: most calls are over by then."""


class WaitDisplay(Protocol):
    """Shows that a request waits for its answer. `displayed_wait` makes it, and takes it away at the end."""

    def show_time(self) -> None:
        """Show how long it has waited."""

    def show_progress(self, params: JsonObject) -> None:
        """Show how far the server says that it is."""


@contextmanager
def displayed_wait(whom: str) -> Iterator[WaitDisplay]:
    """A display on stderr, or one that shows nothing if stderr is no terminal. `whom` the request waits for."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    display = _OnTerminal(whom)
    try:
        yield display
    finally:
        display.clear()


class _Silent:
    """Shows nothing. It exists since with a display progress is asked for, and that keeps a long call alive."""

    def show_time(self) -> None:
        pass

    def show_progress(self, params: JsonObject) -> None:
        pass


class _OnTerminal:
    """Draws one line over in place, and removes it when the wait is over."""

    def __init__(self, whom: str) -> None:
        self._whom = whom
        self._began = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None
        self._said = ""

    def show_time(self) -> None:
        waited = time.monotonic() - self._began
        if waited >= QUIET:
            self._draw(self._said or f"waiting for {self._whom}", waited)

    def show_progress(self, params: JsonObject) -> None:
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
        progress.update(task, description=f"{one_line(what)} … {duration(waited)}")
        progress.refresh()

    def _open(self) -> tuple[Progress, TaskID]:
        if self._drawn is None:
            # Imported only now: most calls end before anything is drawn, and rich takes longer than they do.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            progress = Progress(
                TextColumn("{task.description}", markup=False),  # a server's text must not be read as rich's markup
                BarColumn(),
                TaskProgressColumn(),
                console=Console(stderr=True, highlight=False),
                auto_refresh=False,
                transient=True,
            )
            progress.start()
            self._drawn = progress, progress.add_task("", total=None)
        return self._drawn
