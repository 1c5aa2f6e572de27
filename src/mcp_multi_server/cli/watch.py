"""`status --watch`: the status whenever it changes. On a terminal a live table, into a pipe a line for each change."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from .failures import CommandFailed
from .members import JsonObject, member, number, objects, text
from .render import echo_json, echo_styled, remark
from .screen import drawing_of, show_status
from .session import StreamEnded
from .status import STATE_STYLES, describe_server
from .streams import EVENTS, DaemonStream

SETTLE = 0.2
"""Seconds from an event until the status is asked for: most events come several at once."""
TICK = 1.0
"""Seconds after which a table in which nothing changed is drawn anew, for the times in it."""
_OUT_OF_DATE = ("IN FLIGHT",)
"""The column that is left out: requests come and go without an event, so their number would be out of date."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_SHOWN = ("state", "reason", "tools", "resources", "resourceTemplates", "prompts", "stale")


class View(Protocol):
    """Shows a status and its changes. `_view` makes it, and ends it if it must be ended."""

    tick: float
    """Seconds without a change after which `pass_time` is called."""

    def show(self, status: JsonObject) -> None:
        """Show this status."""

    def pass_time(self) -> None:
        """Show that time went by."""

    def notice(self, said: str, *, is_away: bool) -> None:
        """Show that the daemon is away, or back."""


def watch(socket: str | None, *, wait: float, as_json: bool) -> None:
    """Show the status whenever it changes. Ctrl-C is how it is meant to end."""
    try:
        with _view(as_json) as view, DaemonStream(socket, EVENTS, {}, wait=wait, notice=view.notice) as stream:
            for status in _statuses(stream, view):
                view.show(status)
    except StreamEnded:
        raise CommandFailed("the daemon ended the stream of events") from None
    except KeyboardInterrupt:
        return


def _statuses(stream: DaemonStream, view: View) -> Iterator[JsonObject]:
    """The present status, and the new one after events; without an event it is not asked for."""
    while True:
        event = stream.next(view.tick)
        if event is None:
            view.pass_time()
        elif event.get("event") == "status":
            yield member(event, "status")
        else:
            time.sleep(SETTLE)
            # An event says what changed; the status, which is what is shown, has it all.
            if (status := stream.ask("daemon/status")) is not None:
                yield status


@contextmanager
def _view(as_json: bool) -> Iterator[View]:
    if as_json:
        yield _JsonLines()
    elif sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
        with _on_screen() as screen:
            yield screen
    else:
        yield _Lines()


class _JsonLines:
    """Writes each status as one line of JSON."""

    tick = math.inf

    def show(self, status: JsonObject) -> None:
        echo_json(status, indent=None)

    def pass_time(self) -> None:
        pass

    def notice(self, said: str, *, is_away: bool) -> None:
        remark(said)


class _Lines:
    """Writes a line for each server at first, then for each that changed."""

    tick = math.inf

    def __init__(self) -> None:
        self._known: dict[str, list[object]] = {}

    def show(self, status: JsonObject) -> None:
        found: dict[str, list[object]] = {}
        for server in objects(status, "servers"):
            name = text(server, "name")
            found[name] = [server.get(key) for key in _SHOWN]
            if self._known.get(name) != found[name]:
                self._say(f"{describe_server(server, time.time())}{_offers(server)}", text(server, "state"))
        for name in self._known.keys() - found.keys():
            self._say(f"{name}: removed", "disabled")
        self._known = found
        sys.stdout.flush()

    def pass_time(self) -> None:
        pass

    def notice(self, said: str, *, is_away: bool) -> None:
        remark(said)

    def _say(self, line: str, state: str) -> None:
        echo_styled(f"{time.strftime('%H:%M:%S')} {line}", STATE_STYLES.get(state, ""))


def _offers(server: JsonObject) -> str:
    """How much the server offers, "" for nothing."""
    kinds = {"tools": "tools", "resources": "resources", "resourceTemplates": "templates", "prompts": "prompts"}
    counts = [f"{count:g} {word}" for key, word in kinds.items() if (count := number(server, key))]
    stale = " (stale)" if server.get("stale") is True and counts else ""
    return "".join(f", {count}" for count in counts) + stale


class _Screen:
    """Draws on the alternate screen of a terminal, over what it drew before.

    `_on_screen` makes it, and gives the terminal its own screen back.
    """

    tick = TICK

    def __init__(self) -> None:
        self.status: JsonObject | None = None
        self._notice = ""

    def show(self, status: JsonObject) -> None:
        self.status = status
        self._draw()

    def pass_time(self) -> None:
        self._draw()

    def notice(self, said: str, *, is_away: bool) -> None:
        self._notice = said if is_away else ""
        self._draw()

    def _draw(self) -> None:
        if self.status is None:
            return
        lines = drawing_of(self.status, time.time(), *_size(), without=_OUT_OF_DATE, notice=self._notice)
        # Over the last drawing, in one write, and never cleared before: clearing would make it flicker.
        sys.stdout.write(_HOME + "\r\n".join(line + _REST_OF_LINE for line in lines) + _REST_OF_SCREEN)
        sys.stdout.flush()


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal as it is now: it may have been resized, and COLUMNS would not say so."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24


@contextmanager
def _on_screen() -> Iterator[_Screen]:
    """A screen to draw on. The terminal is left as it was, whatever ends or stops us, and the last status printed."""
    screen = _Screen()
    handlers = {signal.SIGTERM: _end, signal.SIGTSTP: _pause}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    sys.stdout.write(_ENTER)
    try:
        yield screen
    finally:
        sys.stdout.write(_LEAVE)
        for number, handler in before.items():
            signal.signal(number, handler)
        if screen.status is not None:
            show_status(screen.status, time.time())
        sys.stdout.flush()


def _end(number: int, frame: object) -> NoReturn:
    """SIGTERM: end by an exception, so that the screen is left; the code is the one that shells show for it."""
    sys.exit(128 + number)


def _pause(number: int, frame: object) -> None:
    """Ctrl-Z: give the shell its screen and stop; with `fg` take ours back, which the next drawing fills.

    Written past `sys.stdout`: the signal may have come while it was being written to, and it is not reentrant.
    """
    os.write(sys.stdout.fileno(), _LEAVE.encode())
    os.kill(os.getpid(), signal.SIGSTOP)
    os.write(sys.stdout.fileno(), _ENTER.encode())
