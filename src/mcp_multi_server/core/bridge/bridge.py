"""The bridge between an MCP host and the daemon, which outlives the daemon: what goes where, and what is answered here.

Lines of both sides, the loss of the connection and the time come in; lines for both sides, words for people and what to
do with the connection come out. Lines are passed on as the bytes they came as. `cli/bridge.py` is the shell around it.

A connection is *live* once the daemon has answered a ping, which is the first thing that is said on it: a daemon that
is stopped, or turns us away, takes a connection too. Until then everything is held, so it was certainly not carried
out. When the connection is lost, what the daemon may have got is answered with an error, except for what it answers
by itself, like a list: that is asked again. The next daemon hears the client's handshake and subscriptions anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import INVALID_REQUEST, METHOD_NOT_FOUND
from .dialing import Dialing
from .envelope import Envelope, Id, as_id, decode, encode, member, read, read_ends
from .errors import AWAY, LOST, failure, may_be_done
from .held import HeldLine, HeldLines
from .memory import LISTS, REMEMBERED, Listen, Memory
from .requests import DaemonRequests, SentRequests

BARRIER = b""
"""Stands among the lines for the host: what follows is not to be read together with what came before.

SDKs in TypeScript handle a result at once, and forget whom to tell of progress, but a notification a moment later: the
last progress of a call is lost where it is read together with the result.
"""
OWN = "mcp-multi-server/bridge/"
"""Begins the ids of requests of the bridge's own."""
LISTEN = "subscriptions/listen"
STREAMS = frozenset({LISTEN, "daemon/events", "daemon/logs"})
"""Requests that may be open for as long as the client wants: nobody waits for their answer."""
LOOK_EVERY = 1.0
"""Seconds between looks at the time while a request is open."""
GREETING_PATIENCE = 60.0
"""Seconds until a new connection is tried: a stopped daemon keeps each one waiting."""
LISTEN_END_PATIENCE = 1.0
"""Seconds that a daemon which ends a subscription has to close the connection, too."""


class Bridge:
    """The shell makes one. Times are seconds on a monotonic clock.

    `to_host`, `to_daemon` and `says` are for the shell to empty after each event. It calls `opened` with a new
    connection, and `lost` when that ends or `hang_up` says that it is of no use.
    """

    def __init__(self, now: float, *, hold: float, wait: float, linger: float) -> None:
        self.to_host: list[bytes] = []
        self.to_daemon: list[bytes] = []
        self.says: list[str] = []
        self.hang_up = ""
        """Why the connection is to be closed, where it is."""
        self.is_live = False
        self.last_heard = now
        """When the last byte came from the daemon. The shell sets it."""
        self.dialing = Dialing(now)
        self._hold = hold
        self._wait = wait
        self._linger = linger
        self._memory = Memory()
        self._held = HeldLines()
        self._open = SentRequests()
        self._streams: set[Id] = set()
        self._own: dict[Id, str] = {}
        """Requests of our own, and what their answers are for."""
        self._last_own = 0
        self._daemon_requests = DaemonRequests()
        self._told: set[str] = set()
        self._is_connected = False
        self._since = now
        """When the connection was opened."""
        self._left: float | None = None
        """When the client ended its side."""
        self._given_up = 0
        self._was_in_vain = False
        self.look_at = now
        """When `time` has something to do. That may be nothing, while nobody waits for anything (see `wait`)."""

    # -- from the host -------------------------------------------------------------------------------------------

    def from_host(self, line: bytes, now: float) -> None:
        """A line of the client's, without its newline."""
        envelope = read(line)
        if self.is_live:
            self._forward(line, envelope, now)
        else:
            self._keep(line, envelope, now)

    def too_long(self, head: bytes, tail: bytes, most: int) -> None:
        """A line of the client's had more than `most` bytes, and is not kept."""
        envelope = read_ends(head, tail)
        self._answer(
            envelope.id if envelope else None, failure(f"a message may have at most {most} bytes", INVALID_REQUEST)
        )

    def left(self, now: float) -> None:
        """The client has ended its side: what is open gets its time, and subscriptions are over."""
        if self._left is None:
            self._left = self.look_at = now
            for id in self._daemon_requests.take_all():
                self.to_daemon.append(encode({"id": id, "error": failure("the client is gone")}))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do: the client has left and waits for no answer."""
        return self._left is not None and not self._open and not self._held.requests

    @property
    def lingers_until(self) -> float:
        """When a client that has left is not waited for any more."""
        return math.inf if self._left is None else self._left + self._linger

    @property
    def unanswered(self) -> int:
        """Requests that get no answer if it all ends now, or that had none when the client's time was over."""
        return self._given_up + len(self._open) + self._held.requests

    @property
    def is_unserved(self) -> bool:
        """Whether no daemon took the client, or none was there for what it still wanted when it had left."""
        return not self.dialing.was_there or self.dialing.refusal is not None or self._was_in_vain

    def _forward(self, line: bytes, envelope: Envelope | None, now: float) -> None:
        if envelope is not None:
            method, id = envelope
            if not method:
                if id is not None and not self._daemon_requests.answered(id):
                    return
            elif id is None:
                self._notified(method, line)
            elif method in STREAMS:
                self._listened(method, id, line, now)
            elif (due := self._open.add(method, id, line, now).due) is not None:
                self._look_by(due)
        self.to_daemon.append(line + b"\n")

    def _listened(self, method: str, id: Id, line: bytes, now: float) -> None:
        if method == LISTEN:
            self._memory.listens[id] = Listen(line)
        elif method == "daemon/events" or b'"follow"' in line:
            self._streams.add(id)
        else:
            self._open.add(method, id, line, now)

    def _notified(self, method: str, line: bytes) -> None:
        if method == "notifications/initialized":
            self._memory.is_initialized = True
        elif method == "notifications/cancelled" and (id := _request_id(line)) is not None:
            self._open.close(id)
            self._streams.discard(id)
            self._memory.listens.pop(id, None)

    def _keep(self, line: bytes, envelope: Envelope | None, now: float) -> None:
        """A line that comes while there is no daemon."""
        method, id = envelope or ("", None)
        if envelope is not None and not method:
            if id is not None:
                self._daemon_requests.answered(id)  # the daemon that asked for it is gone
        elif method and id is not None and self.dialing.is_unwelcome:
            self._answer(id, self._away())
        elif method == "notifications/initialized":
            self._memory.is_initialized = True
        elif method == "notifications/cancelled":
            if (given_up := _request_id(line)) is not None and not self._held.cancel(given_up):
                self._memory.listens.pop(given_up, None)
        elif self._held.add(held := HeldLine(line, envelope, now)):
            self._look_by(now + self._patience)
        elif held.is_request:
            self._answer(id, failure("the daemon is away, and too many requests wait for it", reason=AWAY))

    # -- from the daemon -----------------------------------------------------------------------------------------

    def from_daemon(self, line: bytes, now: float) -> None:
        """A line of the daemon's, without its newline."""
        envelope = read(line)
        if not self.is_live:
            self._on_greeting(line, envelope, now)
            return
        if envelope is not None:
            method, id = envelope
            if method:
                if not self._passes(method, id, line):
                    return
            elif id is None:
                pass  # it could not read what some line was, and says so
            elif (opened := self._open.close(id)) is not None:
                if opened.is_told:
                    self.to_host.append(BARRIER)
                if opened.line and opened.method in REMEMBERED:
                    self._memory.answered(opened.method, opened.line, line)
            elif not self._is_for_host(id, line, now):
                return
        self.to_host.append(line + b"\n")

    def answer_too_long(self, head: bytes, tail: bytes, most: int) -> None:
        """A line of the daemon's had more than `most` bytes, and is not kept."""
        envelope = read_ends(head, tail)
        if envelope is not None and envelope.id is not None and self._open.close(envelope.id) is not None:
            self._answer(envelope.id, failure(f"the answer has more than {most} bytes"))

    def _passes(self, method: str, id: Id | None, line: bytes) -> bool:
        """Whether the client is to get a request or notification of the daemon's."""
        if id is not None:
            if self._left is not None:
                self.to_daemon.append(encode({"id": id, "error": failure("the client is gone")}))
                return False
            self._daemon_requests.asked(id)
        elif method == "notifications/progress":
            self._open.progressed(line)
        elif method == "notifications/cancelled":
            if (withdrawn := _request_id(line)) is not None:
                self._daemon_requests.withdrawn(withdrawn)
        elif method == "notifications/subscriptions/acknowledged":
            return self._memory.acknowledged(line)
        return True

    def _is_for_host(self, id: Id, line: bytes, now: float) -> bool:
        """Whether the client is to get an answer that is for no ordinary request of its."""
        if (purpose := self._own.pop(id, None)) is not None:
            self._answered_us(purpose, line)
            return False
        if (listen := self._memory.listens.get(id)) is not None:
            if "error" not in decode(line):
                listen.end, listen.ended = line, now
                self._look_by(now + LISTEN_END_PATIENCE)
                return False
            del self._memory.listens[id]
        self._streams.discard(id)
        return not self._open.is_late(id)

    def _answered_us(self, purpose: str, line: bytes) -> None:
        if purpose == "initialize":
            self._handshaken(decode(line))
        elif purpose in LISTS and self._memory.is_changed(purpose, line):
            subject = LISTS[purpose][1]
            if subject not in self._told:  # resources and their templates share a notification
                self._told.add(subject)
                self.to_host += self._memory.told(subject)

    def _handshaken(self, answer: dict[str, Any]) -> None:
        version = member(answer, "result", "protocolVersion")
        if version is None:
            self.says.append(f"the daemon refuses the client's handshake: {member(answer, 'error', 'message')}")
        elif version != self._memory.version:
            agreed = f"MCP {self._memory.version}, which this client agreed on"
            self.says.append(f"the daemon is another one now and speaks MCP {version} instead of {agreed}")

    # -- the connection ------------------------------------------------------------------------------------------

    def wants_to_dial(self, now: float) -> bool:
        """Whether to try to connect now. A client that has left, and waits for nothing, needs no daemon."""
        return not self._is_connected and now >= self.dialing.due and not self.is_over

    def not_there(self, now: float, why: str) -> None:
        """Nobody took the connection."""
        self.dialing.failed(now, why)
        self.look_at = now

    def opened(self, now: float) -> None:
        """There is a connection. Whether the daemon serves it is to be seen."""
        self._is_connected, self.hang_up = True, ""
        self.dialing.opened(now)
        self._since = self.last_heard = self.look_at = now
        self.to_daemon.append(self._ping())

    def lost(self, now: float, why: str, unsent: Sequence[bytes] = ()) -> None:
        """The connection has ended. `unsent`: the lines of which the daemon has no more than a part."""
        was_live, self._is_connected, self.is_live, self.hang_up = self.is_live, False, False, ""
        self.look_at = now
        self._own.clear()
        unsent = [*unsent, *self.to_daemon]
        self.to_daemon.clear()
        self.dialing.lost(now, why, was_live=was_live)
        if was_live:
            self._part(now, why, unsent)

    def _part(self, now: float, why: str, unsent: Sequence[bytes]) -> None:
        """Settle what a daemon that is gone has left: nothing of it is carried out twice, or waits for ever."""
        back, failed = [], 0
        not_sent = {envelope.id: line for line in unsent if (envelope := read(line)) and envelope.method}
        for id, opened in self._open.take_all():
            if line := not_sent.get(id, b"").removesuffix(b"\n") or opened.line:
                back.append(HeldLine(line, Envelope(opened.method, id), now))
            else:
                failed += 1
                self._answer(id, may_be_done(why, opened.method))
        for id in self._streams:
            self._answer(id, failure(why, reason=LOST))
        for id in self._daemon_requests.take_all():
            told = {"requestId": id, "reason": why}
            self.to_host.append(encode({"method": "notifications/cancelled", "params": told}))
        self._streams.clear()
        self._held.put_back(back)
        if failed:
            requests = "1 request was" if failed == 1 else f"{failed} requests were"
            self.says.append(f"{why}; {requests} under way and answered with an error")

    def _on_greeting(self, line: bytes, envelope: Envelope | None, now: float) -> None:
        """A line that comes before the daemon has let us in. What is no answer to our ping is no word of a daemon's."""
        if envelope is None or envelope.method:
            return
        error = decode(line).get("error")
        # So a daemon of an earlier version turns clients away: before it has heard anything.
        if envelope.id is None:
            self._refused(error, now)
        elif self._own.pop(envelope.id, None) is None:
            return
        # Another kind of daemon may not know `ping`; it has answered all the same.
        elif isinstance(error, dict) and error.get("code") != METHOD_NOT_FOUND:
            self._refused(error, now)
        else:
            self._begin(now)

    def _begin(self, now: float) -> None:
        """Say everything that a daemon must hear which has let us in."""
        self.is_live = True
        self._told.clear()
        self.says += self.dialing.live(now)
        self.to_daemon += self._memory.again(self._ask)
        for held in self._held.take_all():
            self._forward(held.line, held.envelope, now)
        # Last: a new daemon may take seconds to know its lists.
        self.to_daemon += self._memory.lists_again(self._ask)

    def _refused(self, error: object, now: float) -> None:
        if not isinstance(error, dict):
            return
        self.dialing.refused(now, error)
        self.hang_up, self.look_at = self.dialing.why, now
        if self.dialing.is_unwelcome:
            self._answer_held(self._held.take_all())

    def _ping(self) -> bytes:
        return self._ask(b'{"method":"ping"}', None)

    def _ask(self, request: bytes, purpose: str | None) -> bytes:
        """A request of our own, made of one of the client's."""
        self._last_own += 1
        id = f"{OWN}{self._last_own}"
        self._own[id] = purpose or ""
        return encode(decode(request) | {"id": id})

    # -- time ----------------------------------------------------------------------------------------------------

    def wait(self, now: float) -> float | None:
        """Seconds until `time` must be called; None where nothing will be due by itself."""
        if self.is_live and not self._open and self._left is None and self.look_at > now and not self._ended_listens():
            return None
        return max(0.0, self.look_at - now)

    def time(self, now: float) -> None:
        """Do what is due, if it is."""
        if now < self.look_at:
            return
        if self.is_live:
            self._look_for_life(now)
            self._end_listens(now)
        else:
            self._look_for_daemon(now)
        if now >= self.lingers_until:
            self._give_up()
        self.look_at = min((now + LOOK_EVERY, *(time for time in self._times() if time > now)))

    def _times(self) -> Iterator[float]:
        """When something is due, apart from the look that is taken every second."""
        yield self.lingers_until
        if self.is_live:
            yield from self._open.times()
            yield from (listen.ended + LISTEN_END_PATIENCE for _, listen in self._ended_listens())
            return
        if (oldest := self._held.oldest) is not None:
            yield oldest + self._patience
        yield from self.dialing.times()

    def _look_by(self, time: float) -> None:
        self.look_at = min(self.look_at, time)

    @property
    def _patience(self) -> float:
        """Seconds that a request is held: longer for a daemon that nobody has seen yet, which may be starting."""
        return self._hold if self.dialing.was_there else self._wait

    def _look_for_life(self, now: float) -> None:
        """See whether the daemon still answers, if somebody waits for it."""
        heard = self.last_heard
        if self._open.wants_ping(now, heard):
            self.to_daemon.append(self._ping())
        for id, opened in self._open.take_overdue(now, heard):
            self._answer(id, may_be_done("the daemon does not answer", opened.method))
        if self._open.is_silent(now, heard):
            self.hang_up = "the daemon does not answer"

    def _end_listens(self, now: float) -> None:
        """Pass on the end of subscriptions of a daemon that has stayed."""
        for id, listen in self._ended_listens():
            if now >= listen.ended + LISTEN_END_PATIENCE:
                self.to_host.append(listen.end + b"\n")
                del self._memory.listens[id]

    def _ended_listens(self) -> list[tuple[Id, Listen]]:
        return [(id, listen) for id, listen in self._memory.listens.items() if listen.end]

    def _look_for_daemon(self, now: float) -> None:
        if self._is_connected and now >= self._since + GREETING_PATIENCE:
            self.hang_up = self.dialing.why
        self._answer_held(self._held.take_older(now - self._patience))
        if not self.is_over:
            self.says += self.dialing.notice(now)

    def _give_up(self) -> None:
        """Part with a client that has left: what it asked for is cancelled where it is carried out."""
        self._given_up += len(self._open)
        self._was_in_vain |= bool(self._held.requests)
        for id, _ in self._open.take_all():
            told = {"requestId": id, "reason": "the client is gone"}
            self.to_daemon.append(encode({"method": "notifications/cancelled", "params": told}))
        self._answer_held(self._held.take_all())

    # -- answers that are made here ------------------------------------------------------------------------------

    def _answer_held(self, lines: Iterator[HeldLine]) -> None:
        for held in lines:
            if held.is_request and held.envelope is not None:
                self._answer(held.envelope.id, self._away())

    def _away(self) -> dict[str, Any]:
        """Why a request was not carried out: the daemon's own words, if it said any."""
        if self.dialing.refusal is not None:
            return self.dialing.refusal
        return failure(f"{self.dialing.why}; the request was not carried out", reason=AWAY)

    def _answer(self, id: Id | None, error: dict[str, Any]) -> None:
        self.to_host.append(encode({"id": id, "error": error}))


def _request_id(line: bytes) -> Id | None:
    """The request that a `notifications/cancelled` is about."""
    return as_id(member(decode(line), "params", "requestId"))
