"""The daemon's streams of events and log lines, read on after it was restarted.

`events`, `logs --follow` and `status --watch` read them.
"""

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
"""Seconds after which a read is begun anew: between reads we notice that the reader of stdout left, and a Ctrl-C that
came in the moment before a read."""
EVENTS = ("daemon/events", "notifications/daemon/event")
LOG = ("daemon/logs", "notifications/daemon/log")
"""The method that begins a stream, and the method of its notifications."""


class Notice(Protocol):
    """A function that says to a person that the daemon is away, or back."""

    def __call__(self, said: str, *, is_away: bool) -> None:
        """`said` is a sentence for people."""


class DaemonStream:
    """One stream of notifications, and the session that it comes over.

    A command makes it and leaves it (`with`). When the daemon closes the connection, as it does when it is restarted,
    the stream is begun again over a new one, with the `params` of that moment, until `wait` seconds have passed.
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
        """When the daemon must have said something; infinite once it has, until the connection is lost."""
        self._is_new = True
        """Whether nothing has come yet. Until then a daemon that is away is an error, as it is for other commands."""

    def __enter__(self) -> Self:
        self._open()
        self._due = time.monotonic() + DAEMON_TIMEOUT
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    def next(self, within: float = math.inf) -> JsonObject | None:
        """The params of the next notification, or None after `within` seconds.

        Raises:
            Unreachable: the daemon stayed away.
            StreamEnded: it ended the stream, and not the connection.
            BrokenPipeError: the reader of stdout has left.

        """
        until = time.monotonic() + within
        while True:
            check_reader()
            try:
                message = self._receive(until)
            except (HungUp, Unreachable) as loss:
                self._lost(loss)
                if time.monotonic() + RETRY_EVERY >= until:
                    return None  # the caller's time is over first; the next call goes on with the attempts
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
        """The result of another request on the same connection, or None if the daemon went away.

        Notifications that come before it are lost, so this is for results that say more than they would.
        """
        if self._session is None:
            return None
        try:
            return self._session.control(method)
        except (HungUp, Unreachable) as loss:
            self._lost(loss)
            return None

    def _receive(self, until: float) -> JsonObject | None:
        session = self._session or self._open()
        deadline = min(until, self._due, time.monotonic() + LOOK_UP_EVERY)
        return session.next_notification(self._id, self._notification, deadline)

    def _open(self) -> DaemonSession:
        self._session = DaemonSession(connect(self._socket))
        self._id = self._session.begin_stream(self._method, self.params)
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _heard(self) -> None:
        """Say that the daemon is back, if it was away: only what it sends shows that it serves the stream again."""
        if not self._is_new and self._due != math.inf:
            self._notice("the daemon is back", is_away=False)
        self._is_new, self._due = False, math.inf

    def _lost(self, loss: HungUp | Unreachable) -> None:
        """Begin the wait for the daemon, or go on with it. Raises `loss` or Unreachable where there is none left."""
        self._close()
        if self._is_new:
            raise loss  # at first a daemon that is away is an error at once, as for every other command
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
