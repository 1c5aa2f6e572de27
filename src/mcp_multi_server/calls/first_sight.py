"""A first sight is a whole sight: lists, and calls of names that nobody offers, wait for servers that just start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .context import CallContext
from .request import Caller, ClientRequest


class WaitingRequest:
    """A client's request that waits until more servers were heard. `FirstSight` makes it, and ends it once."""

    __slots__ = ("_sight", "caller", "go", "is_ready", "request", "started", "timer")

    def __init__(
        self,
        sight: FirstSight,
        caller: Caller,
        request: ClientRequest,
        started: float,
        *,
        is_ready: Callable[[], bool],
        go: Callable[[], None],
    ) -> None:
        self.caller = caller
        self.request = request
        self.started = started
        self.is_ready = is_ready
        """Whether it need not wait any more, though servers are missing: asked whenever one has been heard."""
        self.go = go
        """Answers the request, or sends it on."""
        self.timer: asyncio.TimerHandle | None = None
        """Ends the waiting."""
        self._sight = sight

    def cancel(self, reason: str) -> None:
        """The client gave it up or is gone."""
        self._sight.drop(self)


class FirstSight:
    """Keeps requests until each server was ready or has failed once, if it is on its first attempt and unknown.

    Many clients list once and ignore that lists change. The router makes it; `changed` is called after each snapshot.
    """

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._waiting: dict[WaitingRequest, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def until(self) -> float | None:
        """Loop time until which what comes now has to wait at most; None where it need not wait."""
        snapshot = self._context.snapshot()
        if not snapshot.unheard:  # as it is nearly always
            return None
        until = max(server.made_at for server in snapshot.unheard) + snapshot.config.daemon.first_list
        return until if until > self._context.time() else None

    def wait(
        self,
        caller: Caller,
        request: ClientRequest,
        started: float,
        *,
        until: float,
        go: Callable[[], None],
        is_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have `go` called when all were heard, when `is_ready`, or at `until`; never if the request is cancelled."""
        waiting = WaitingRequest(self, caller, request, started, is_ready=is_ready, go=go)
        waiting.timer = self._context.call_at(until, self._release, waiting)
        self._waiting[waiting] = None
        caller.open_requests.add(request.id, waiting)

    def changed(self) -> None:
        """There is a new snapshot: one more server may have been heard."""
        if not self._waiting:
            return
        is_whole = self.until() is None
        # A list of its own: what is released leaves the table.
        for waiting in list(self._waiting):
            if is_whole or waiting.is_ready():
                self._release(waiting)

    def drop(self, waiting: WaitingRequest) -> None:
        """Forget a request that nobody waits for any more."""
        self._leave(waiting)
        self._context.done(waiting.request.method, "", "", "", waiting.started, "cancelled")

    def _release(self, waiting: WaitingRequest) -> None:
        self._leave(waiting)  # first: to be sent it has to enter the client's table anew
        waiting.go()

    def _leave(self, waiting: WaitingRequest) -> None:
        del self._waiting[waiting]
        assert waiting.timer is not None
        waiting.timer.cancel()
        waiting.caller.open_requests.remove(waiting.request.id, waiting)
