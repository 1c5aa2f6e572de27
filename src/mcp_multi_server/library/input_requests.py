"""Input requests: what servers ask of the program while they work on its calls, answered by its callbacks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any

import mcp_types as types
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..core import input_requests, jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from ..core.index import SERVER_KEY
from ..core.jsonrpc import Message
from .callbacks import Callbacks, ServerRequestContext
from .time_limits import TimeLimits

_NOTHING = jsonrpc.Raw(b"{}")
_log = logging.getLogger("mcp_multi_server.client")
_SAMPLING: TypeAdapter[types.CreateMessageRequestParams] = TypeAdapter(types.CreateMessageRequestParams)
_ELICITATION: TypeAdapter[types.ElicitRequestParams] = TypeAdapter(types.ElicitRequestParams)
_RESULTS: dict[str, tuple[type[BaseModel], ...]] = {
    "sampling/createMessage": (types.CreateMessageResult, types.CreateMessageResultWithTools),
    "elicitation/create": (types.ElicitResult,),
    "roots/list": (types.ListRootsResult,),
}
"""What the callback for a method may return, `ErrorData` apart."""


class InputRequestHandler:
    """Answers input requests with the program's callbacks; time limits of the calls concerned are paused meanwhile.

    A client makes one for each session with its fleet. It has no end: the session cancels what it still answers.
    """

    def __init__(self, callbacks: Callbacks, limits: TimeLimits) -> None:
        self.capabilities: Mapping[str, Any] = input_requests.declared(callbacks.abilities)
        """What the session declares: servers ask nothing else."""
        self._callbacks = callbacks
        self._limits = limits

    async def answer(self, message: Message) -> bytes:
        """The result of an input request, as JSON. Raises RpcError, also where the callback raised something else."""
        server = ""
        try:
            context = _context(message)
            server = context.server_name
            answering = self._call(message, context)
            with self._limits.paused(server):
                return _encoded(message.method, await answering)
        except RpcError:
            raise
        except Exception:
            # The server gets no details: they are the program's, and may name what is none of its business.
            _log.exception("the callback for %s of server %r failed", message.method, server)
            raise RpcError(INTERNAL_ERROR, f"the callback for {message.method} failed") from None

    def _call(self, message: Message, context: ServerRequestContext) -> Awaitable[object]:
        """Call the callback. Raises RpcError if there is none, or the params are not what it takes."""
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
    """The first argument of the callback. The fleet has put the server's name into the request's `_meta`."""
    found = jsonrpc.value(input_requests.params_of(message.params).get("_meta", _NOTHING))
    meta = found if isinstance(found, dict) else {}
    server = str(meta.pop(SERVER_KEY, ""))
    return ServerRequestContext(server_name=server, request_id=jsonrpc.value(message.id), meta=meta or None)


def _encoded(method: str, answer: object) -> bytes:
    """What a callback returned, as JSON. Raises RpcError for `ErrorData`, TypeError for what it must not return."""
    if isinstance(answer, types.ErrorData):
        raise RpcError(answer.code, answer.message, answer.data)
    if not isinstance(answer, _RESULTS[method]):
        raise TypeError(f"it returned {type(answer).__name__}, not {' or '.join(t.__name__ for t in _RESULTS[method])}")
    return answer.model_dump_json(by_alias=True, exclude_none=True).encode()
