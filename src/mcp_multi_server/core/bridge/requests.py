"""What is open between a bridge's client and the daemon: requests of either side.

The open requests also tell whether the daemon still answers at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from .envelope import Id, own_timeout, progress_token
from .memory import REMEMBERED

ASKED_AGAIN = REMEMBERED | {"ping", "server/discover", "daemon/status"}
"""What the daemon answers by itself and may be asked twice."""
PING_AFTER = 5.0
"""Seconds without a byte from the daemon, while a request is open, after which it is asked for a sign of life."""
PING_PATIENCE = 10.0
"""Seconds that it has for that, however much it has to do."""
OWN_TIMEOUT_PATIENCE = 2.0
"""The same, for a request whose own time limit is over."""
END = 4096
"""Bytes at either end of a request in which its `_meta` is looked for."""
MOST_LATE = 1000
"""Requests of earlier daemons whose answers are waited for, to drop them."""


class OpenRequest:
    """One of them. The table makes it."""

    # Of the class as long as they are the same for nearly every request: one is made for each call.
    line = b""
    """The request, where it may be asked again."""
    token: Id | None = None
    is_told = False
    """Whether there was progress."""
    due: float | None = None
    """When its own time limit is over, and then when the daemon has been silent for too long."""
    asked: float | None = None
    """When the daemon was asked for a sign of life because of that."""

    def __init__(self, method: str, since: float) -> None:
        self.method = method
        self.since = since


class SentRequests:
    """The table of one bridge, which makes it. Times are on the bridge's clock; `heard` is when the last byte came."""

    def __init__(self) -> None:
        self._rows: dict[Id, OpenRequest] = {}
        self._tokens: dict[Id, OpenRequest] = {}
        self._overdue: set[Id] = set()
        """Requests that were answered for the daemon, whose own answer may come yet."""
        self._pinged: float | None = None
        """When the daemon was asked for a sign of life that has not come."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, method: str, id: Id, line: bytes, now: float) -> OpenRequest:
        """Note a request that the daemon is sent."""
        opened = self._rows[id] = OpenRequest(method, now)
        if method in ASKED_AGAIN:
            opened.line = line
        # All SDKs write `_meta` before or after the arguments, which may be megabytes.
        ends = line if len(line) <= 2 * END else line[:END] + line[-END:]
        # Searched for first, as hardly any request has one.
        if b'"progressToken"' in ends and (token := progress_token(ends)) is not None:
            opened.token = token
            self._tokens[token] = opened
        if b'"mcp-multi-server/timeout"' in ends and (seconds := own_timeout(ends)) is not None:
            opened.due = now + seconds
        return opened

    def close(self, id: Id) -> OpenRequest | None:
        """Forget a request that is answered or given up; None where it is not in the table."""
        opened = self._rows.pop(id, None)
        if opened is not None and opened.token is not None and self._tokens.get(opened.token) is opened:
            del self._tokens[opened.token]
        return opened

    def progressed(self, line: bytes) -> None:
        """Note that the client is told of progress, by a notification."""
        if self._tokens and (token := progress_token(line)) is not None and (opened := self._tokens.get(token)):
            opened.is_told = True

    def take_all(self) -> list[tuple[Id, OpenRequest]]:
        """Take out every request: the daemon is gone, or the client."""
        rows, self._rows = self._rows, {}
        self._tokens.clear()
        self._overdue.clear()
        self._pinged = None
        return list(rows.items())

    def times(self) -> Iterator[float]:
        """When something is due, apart from the look that is taken every second while a request is open."""
        return (opened.due for opened in self._rows.values() if opened.due is not None)

    def wants_ping(self, now: float, heard: float) -> bool:
        """Whether to ask the daemon for a sign of life now. It is then taken to be asked."""
        if self._pinged is not None and heard <= self._pinged:
            return False
        self._pinged = None
        if not self._rows:
            return False
        silent_since = max(next(iter(self._rows.values())).since, heard)
        if now < silent_since + PING_AFTER and not any(time <= now for time in self.times()):
            return False
        self._pinged = now
        return True

    def take_overdue(self, now: float, heard: float) -> Iterator[tuple[Id, OpenRequest]]:
        """Take out requests whose own time limit is over, where the daemon, which would say so, is silent."""
        for id, opened in list(self._rows.items()):
            if opened.due is None or now < opened.due:
                continue
            if opened.asked is None:
                opened.asked, opened.due = now, now + OWN_TIMEOUT_PATIENCE
            elif heard > opened.asked:
                opened.due = None  # it lives, and has its reasons: progress renews the time
            else:
                self.close(id)
                self._overdue.add(id)
                yield id, opened

    def is_late(self, id: Id) -> bool:
        """Whether an answer comes after another one was given for it."""
        if id not in self._overdue:
            return False
        self._overdue.discard(id)
        return True

    def is_silent(self, now: float, heard: float) -> bool:
        """Whether the daemon has given no sign of life for too long."""
        return self._pinged is not None and heard <= self._pinged and now >= self._pinged + PING_PATIENCE


class DaemonRequests:
    """Requests of daemons to the client, which asks a person or a model, and so may answer when nobody waits."""

    def __init__(self) -> None:
        self._open: dict[Id, None] = {}
        self._late: dict[Id, None] = {}
        """Those of daemons that are gone, the newest last."""

    def asked(self, id: Id) -> None:
        """Note a request that the client is sent."""
        self._open[id] = None
        self._late.pop(id, None)

    def withdrawn(self, id: Id) -> None:
        """The daemon does not want the answer any more; it ignores one that comes all the same."""
        self._open.pop(id, None)

    def answered(self, id: Id) -> bool:
        """Whether the daemon is to get the client's answer: not where another daemon has asked."""
        self._open.pop(id, None)
        if id not in self._late:
            return True
        del self._late[id]
        return False

    def take_all(self) -> list[Id]:
        """Take out every open one: who asked is gone, or who was asked."""
        taken = list(self._open)
        self._open.clear()
        self._late.update(dict.fromkeys(taken))
        while len(self._late) > MOST_LATE:
            del self._late[next(iter(self._late))]
        return taken
