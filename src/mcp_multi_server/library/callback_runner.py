"""Answers what servers ask of a program, and takes what they log, by the callbacks that the program gave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

import mcp_types as types
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..core import input_requests, jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from ..core.index import SERVER_KEY
from ..core.jsonrpc import Message
from .callbacks import Callbacks, ServerRequestContext
from .time_limits import TimeLimits

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


class CallbackRunner:
    """Runs a program's callbacks: for each input request of a server, and for each log message in turn.

    A client makes one for each attachment, which calls `answer` and `log`, and runs `run` until it ends.
    """

    def __init__(self, callbacks: Callbacks, limits: TimeLimits) -> None:
        self.capabilities: Mapping[str, Any] = input_requests.declared(callbacks.abilities)
        self._callbacks = callbacks
        self._limits = limits
        self._logs: asyncio.Queue[Message] = asyncio.Queue(LOGS_KEPT)
        self._is_losing = False

    async def answer(self, message: Message) -> bytes:
        """The result of a server's input request. Raises RpcError where a callback refuses, fails or is not there."""
        server = ""
        try:
            context = _context(message)
            server = context.server_name
            answering = self._answering(message, context)  # before limits are paused: params may be refused
            with self._limits.paused(server):
                return _encoded(message.method, await answering)
        except RpcError:
            raise
        except Exception:
            # What the exception says may quote secrets: it goes into the program's own log, and not to the server.
            _log.exception("the callback for %s of server %r failed", message.method, server)
            raise RpcError(INTERNAL_ERROR, f"the callback for {message.method} failed") from None

    def log(self, message: Message) -> None:
        """Keep a log message for the callback; where too many wait, it is left out, and the first such is warned of."""
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
        """Await the logging callback for one message after another, until cancelled."""
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
        """The callback, called and not yet awaited. Raises RpcError where there is none or the params are wrong."""
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
    """Which server asks: the daemon says so in the request's `_meta`."""
    found = jsonrpc.value(input_requests.params_of(message.params).get("_meta", _NOTHING))
    meta = found if isinstance(found, dict) else {}
    server = str(meta.pop(SERVER_KEY, ""))
    return ServerRequestContext(server_name=server, request_id=jsonrpc.value(message.id), meta=meta or None)


def _encoded(method: str, answer: object) -> bytes:
    """What a callback returned, as JSON. Raises RpcError for an `ErrorData`, TypeError for what is no result either."""
    if isinstance(answer, types.ErrorData):
        raise RpcError(answer.code, answer.message, answer.data)
    if not isinstance(answer, _RESULTS[method]):
        raise TypeError(f"it returned {type(answer).__name__}, not {' or '.join(t.__name__ for t in _RESULTS[method])}")
    return answer.model_dump_json(by_alias=True, exclude_none=True).encode()
