"""Requests to the daemon that are answered later, or as long as their client wants: outcomes and streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ..core import jsonrpc
from ..core.errors import RpcError
from ..core.jsonrpc import Buffer
from .session import ClientSession

EVENT_METHOD = "notifications/daemon/event"
LOG_METHOD = "notifications/daemon/log"
BATCH_EVERY = 0.1
BATCH_LINES = 100
"""A follower of a server's stderr gets that many lines a batch at most, the newest, and hears how many it does not."""


class DeferredAnswer:
    """A control request that is answered later, or never.

    It is made when the request comes, and is among its client's calls until it is answered, or the client cancels it
    or is gone.
    """

    def __init__(self, client: ClientSession, id: bytes) -> None:
        self._client = client
        self._id = id
        client.open_requests.add(id, self)

    def cancel(self, reason: str) -> None:
        """Answer nothing any more: the client gave it up or is gone. What was begun for it goes on."""
        self._client.open_requests.remove(self._id, self)

    def answer(self, result: Mapping[str, Any]) -> None:
        """Answer, unless the client gave up."""
        if self._client.open_requests.remove(self._id, self):
            self._client.answer(self._id, jsonrpc.encode(result))

    def answer_error(self, failure: RpcError) -> None:
        """Answer with an error, unless the client gave up."""
        if self._client.open_requests.remove(self._id, self):
            self._client.answer_error(self._id, jsonrpc.error_object(failure))


class EventStream(DeferredAnswer):
    """A `daemon/events` request. It is among the `others` until its client cancels it or is gone."""

    def __init__(self, client: ClientSession, id: bytes, others: dict[EventStream, None]) -> None:
        super().__init__(client, id)
        self._others = others
        others[self] = None

    def cancel(self, reason: str) -> None:
        """Follow no longer: the client has had enough or is gone."""
        super().cancel(reason)
        self._others.pop(self, None)

    def tell(self, params: Buffer) -> None:
        """Send one event, already encoded."""
        self._client.notify(EVENT_METHOD, params)


class LogStream(DeferredAnswer):
    """A `daemon/logs` request that follows one server's stderr, whichever process of it writes.

    It is among the `others` until its client cancels it or is gone, or the server is removed. Lines go out in batches,
    so that a server that floods costs a bounded rate, and the loop next to nothing.
    """

    def __init__(self, client: ClientSession, id: bytes, server: str, others: dict[LogStream, None]) -> None:
        super().__init__(client, id)
        self.server = server
        self._others = others
        self._loop = asyncio.get_running_loop()
        # The newest lines stay: of a flood they tell most about what is wrong now.
        self._lines: deque[str] = deque(maxlen=BATCH_LINES)
        self._came = 0
        """Lines since the last batch, those included that `_lines` has no room for."""
        self._batch: asyncio.TimerHandle | None = None
        others[self] = None

    def begin(self, lines: Iterable[str]) -> None:
        """Send what was written before, even if that is nothing: the client then knows that it follows."""
        self._notify(lines=list(lines))

    def tell(self, line: str) -> None:
        """Send one more line, soon."""
        self._lines.append(line)
        self._came += 1
        if self._batch is None:
            self._batch = self._loop.call_later(BATCH_EVERY, self._flush)

    def tell_state(self, state: str, reason: str | None) -> None:
        """Send the server's state, which may explain its words or its silence."""
        self._flush()  # what it wrote before comes before
        self._notify(state=state, reason=reason)

    def end(self, why: str) -> None:
        """Answer the request: there is nothing to follow any more."""
        self._flush()
        self._others.pop(self, None)
        self.answer({"server": self.server, "ended": why})

    def cancel(self, reason: str) -> None:
        """Follow no longer: the client has had enough or is gone."""
        super().cancel(reason)
        self._others.pop(self, None)
        self._stop_batch()

    def _flush(self) -> None:
        self._stop_batch()
        if not self._came:
            return
        left_out = self._came - len(self._lines)
        self._notify(lines=list(self._lines), **({"leftOut": left_out} if left_out else {}))
        self._lines.clear()
        self._came = 0

    def _stop_batch(self) -> None:
        if self._batch is not None:
            self._batch.cancel()
            self._batch = None

    def _notify(self, **params: Any) -> None:
        self._client.notify(LOG_METHOD, jsonrpc.encode({"server": self.server, **params}))
