"""A program as the host of its servers: its callbacks answer them, and the time of calls stands still meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import mcp_types as types
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..core import input_requests, jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from ..core.index import SERVER_KEY
from ..core.jsonrpc import Message
from .callbacks import Callbacks, ServerRequestContext

LOGS_KEPT = 1000
"""Log messages that wait for the callback; further ones are left out."""

_NOTHING = jsonrpc.Raw(b"{}")
_log = logging.getLogger("mcp_multi_server")
_SAMPLING: TypeAdapter[types.CreateMessageRequestParams] = TypeAdapter(types.CreateMessageRequestParams)
_ELICITATION: TypeAdapter[types.ElicitRequestParams] = TypeAdapter(types.ElicitRequestParams)
_RESULTS: dict[str, tuple[type[BaseModel], ...]] = {
    "sampling/createMessage": (types.CreateMessageResult, types.CreateMessageResultWithTools),
    "elicitation/create": (types.ElicitResult,),
    "roots/list": (types.ListRootsResult,),
}


class TimeLimits:
    """Time limits of calls; one stands still while a server that may have the call asks something."""

    def __init__(self) -> None:
        self._running: list[_Limit] = []

    @contextmanager
    def within(self, seconds: float | None, may_be_at: Callable[[str], bool]) -> Iterator[None]:
        """Raises TimeoutError where it takes longer. `may_be_at`: whether this call may be with that server."""
        with anyio.fail_after(seconds) as scope:
            limit = _Limit(scope, may_be_at)
            self._running.append(limit)
            try:
                yield
            finally:
                self._running.remove(limit)

    @contextmanager
    def stopped(self, server: str) -> Iterator[None]:
        """Stop those that concern this server."""
        concerned = [limit for limit in self._running if limit.may_be_at(server)]
        for limit in concerned:
            limit.stop()
        try:
            yield
        finally:
            for limit in concerned:
                limit.go_on()


class _Limit:
    def __init__(self, scope: anyio.CancelScope, may_be_at: Callable[[str], bool]) -> None:
        self.may_be_at = may_be_at
        self._scope = scope
        self._stops = 0
        self._left = 0.0

    def stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            self._left = self._scope.deadline - anyio.current_time()
            self._scope.deadline = math.inf

    def go_on(self) -> None:
        self._stops -= 1
        if self._stops == 0:
            self._scope.deadline = anyio.current_time() + self._left


class Hosting:
    """Answers what servers ask and takes what they log. See `attachment.Host`."""

    def __init__(self, callbacks: Callbacks, limits: TimeLimits) -> None:
        self.capabilities: Mapping[str, Any] = input_requests.declared(callbacks.abilities)
        self._callbacks = callbacks
        self._limits = limits
        self._logs: asyncio.Queue[Message] = asyncio.Queue(LOGS_KEPT)
        self._is_losing = False

    async def answer(self, message: Message) -> bytes:
        """See Host."""
        server = ""
        try:
            context = _context(message)
            server = context.server_name
            answering = self._answering(message, context)
            with self._limits.stopped(server):
                return _encoded(message.method, await answering)
        except RpcError:
            raise
        except Exception:
            _log.exception("the callback for %s of server %r failed", message.method, server)
            raise RpcError(INTERNAL_ERROR, f"the callback for {message.method} failed") from None

    def log(self, message: Message) -> None:
        """See Host."""
        if self._callbacks.logging is None:
            return
        try:
            self._logs.put_nowait(message)
            self._is_losing = False
        except asyncio.QueueFull:
            if not self._is_losing:
                self._is_losing = True
                _log.warning("the logging callback is slow: log messages of servers are left out")

    async def run(self) -> None:
        """See Host: tell the logging callback, one message after another."""
        while True:
            message = await self._logs.get()
            if self._callbacks.logging is None:
                continue
            try:
                params = types.LoggingMessageNotificationParams.model_validate_json(bytes(message.params))
            except ValidationError:
                _log.warning("a log message of a server is left out, as it is malformed")
                continue
            try:
                await self._callbacks.logging(params)
            except Exception:
                _log.exception("the logging callback failed")

    def _answering(self, message: Message, context: ServerRequestContext) -> Coroutine[Any, Any, object]:
        """The callback at work. Raises RpcError where there is none, or the params are not what it takes."""
        given, callbacks = bytes(message.params), self._callbacks
        try:
            if message.method == "sampling/createMessage" and callbacks.sampling is not None:
                return callbacks.sampling(context, _SAMPLING.validate_json(given))
            if message.method == "elicitation/create" and callbacks.elicitation is not None:
                return callbacks.elicitation(context, _ELICITATION.validate_json(given))
        except ValidationError:
            raise RpcError(INVALID_PARAMS, f"params of {message.method} are not as the protocol has them") from None
        if message.method == "roots/list" and callbacks.list_roots is not None:
            return callbacks.list_roots(context)
        raise input_requests.unsupported(message.method)


def _context(message: Message) -> ServerRequestContext:
    """Who asks, as the daemon says in the request's `_meta`."""
    found = jsonrpc.value(input_requests.params_of(message.params).get("_meta", _NOTHING))
    meta = found if isinstance(found, dict) else {}
    server = str(meta.pop(SERVER_KEY, ""))
    return ServerRequestContext(server_name=server, request_id=jsonrpc.value(message.id), meta=meta or None)


def _encoded(method: str, answer: object) -> bytes:
    """What a callback returned, for the server. Raises RpcError where it is an error, TypeError where it is neither."""
    if isinstance(answer, types.ErrorData):
        raise RpcError(answer.code, answer.message, answer.data)
    if not isinstance(answer, _RESULTS[method]):
        raise TypeError(f"it returned {type(answer).__name__}, not {' or '.join(t.__name__ for t in _RESULTS[method])}")
    return answer.model_dump_json(by_alias=True, exclude_none=True).encode()
