"""The daemon's streams as `events`, `logs --follow` and `status --watch` read them: a restart does not end them."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Protocol, Self

from .connect import RETRY_EVERY, connect
from .failures import HungUp, Unreachable
from .members import JsonObject
from .render import check_reader
from .session import DAEMON_TIMEOUT, DaemonSession

LOOK_UP_EVERY = 0.5
"""Seconds after which a read is begun anew.

A Ctrl-C in the moment before a read is only noticed after it, and so is that the reader of stdout left.
"""
EVENTS = ("daemon/events", "notifications/daemon/event")
LOG = ("daemon/logs", "notifications/daemon/log")
"""A method, and the notification that the daemon sends for it, again and again."""


class Notice(Protocol):
    """A function that is told when the daemon goes away and when it is back."""

    def __call__(self, said: str, *, is_away: bool) -> None:
        """`said` is a sentence for people."""


class DaemonStream:
    """A stream of notifications from the daemon, made by a command and closed at the end of its `with`.

    When the daemon closes the connection, the stream is asked for again, with the `params` of that moment, until it is
    back or `wait` seconds have passed.
    """

    def __init__(
        self,
        socket: str | None,
        stream: tuple[str, str],
        params: JsonObject,
        *,
        wait: float,
        notice: Notice,
    ) -> None:
        self.params = params
        self._socket = socket
        self._method, self._notification = stream
        self._wait = wait
        self._notice = notice
        self._session: DaemonSession | None = None
        self._id = 0
        self._due = 0.0
        """The time by which the daemon must have said something; infinite while it is there."""
        self._is_new = True
        """Nothing has come yet: a daemon that hangs up now is none to wait for."""

    def __enter__(self) -> Self:
        self._open()
        self._due = time.monotonic() + DAEMON_TIMEOUT
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    def next(self, within: float = math.inf) -> JsonObject | None:
        """The params of the next notification, None where none came in time.

        Raises:
            Unreachable: the daemon stayed away.
            StreamEnded: it ended the stream, and not the connection.
            BrokenPipeError: nobody reads what would be said of it.

        """
        until = time.monotonic() + within
        while True:
            check_reader()
            try:
                message = self._receive(until)
            except (HungUp, Unreachable) as loss:
                self._lost(loss)
                if time.monotonic() + RETRY_EVERY >= until:
                    return None
                time.sleep(RETRY_EVERY)
                continue
            if message is not None:
                self._heard()
                return message
            if time.monotonic() >= self._due:
                self._give_up()
            if time.monotonic() >= until:
                return None

    def ask(self, method: str) -> JsonObject | None:
        """The result of another request on the same connection; None where the daemon went away.

        Notifications that come before it are left out: whoever asks learns more from the answer.
        """
        if self._session is None:
            return None
        try:
            return self._session.control(method)
        except (HungUp, Unreachable) as loss:
            self._lost(loss)
            return None

    def _receive(self, until: float) -> JsonObject | None:
        opened = self._session or self._open()
        deadline = min(until, self._due, time.monotonic() + LOOK_UP_EVERY)
        return opened.next(self._id, self._notification, deadline)

    def _open(self) -> DaemonSession:
        self._session = DaemonSession(connect(self._socket))
        self._id = self._session.begin(self._method, self.params)
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _heard(self) -> None:
        if not self._is_new and self._due != math.inf:
            self._notice("the daemon is back", is_away=False)
        self._is_new, self._due = False, math.inf

    def _lost(self, loss: HungUp | Unreachable) -> None:
        self._close()
        if self._is_new:
            raise loss
        if self._due == math.inf:
            self._due = time.monotonic() + self._wait
            if self._wait:
                self._notice(f"{loss}; waiting up to {self._wait:g} s for it to come back", is_away=True)
        if time.monotonic() >= self._due:
            self._give_up()

    def _give_up(self) -> None:
        if self._is_new:
            raise Unreachable(f"the daemon does not respond: no answer to {self._method} within {DAEMON_TIMEOUT:g} s")
        raise Unreachable(f"the daemon is gone: it was not back within {self._wait:g} s")
