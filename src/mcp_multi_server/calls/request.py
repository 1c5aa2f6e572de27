"""One request of a client's, decoded as far as routing it needs."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..core import jsonrpc, protocol
from ..core.errors import INVALID_PARAMS, RpcError
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.protocol import Era
from .client_requests import ClientRequests


class ClientRequest:
    """A client's request. `id` is the bytes it came as, which is also what names it in a cancellation."""

    __slots__ = ("era", "id", "meta", "method", "params", "raw_params")

    def __init__(self, message: Message) -> None:
        self.id = bytes(message.id)
        self.method = message.method
        self.raw_params: Buffer = message.params if message.params is not ABSENT else b"{}"
        self.params = jsonrpc.members(message.params) if message.params is not ABSENT else {}
        self.meta = _meta(self.params)
        self.era = Era.MODERN if protocol.is_modern(self.meta) else Era.LEGACY

    def string(self, member: str) -> str:
        """The string under `member` of the params. Raises RpcError -32602 where there is none."""
        found = jsonrpc.text(self.params.get(member))
        if found is None:
            raise RpcError(INVALID_PARAMS, f"params.{member} must be a string")
        return found


def too_deep() -> RpcError:
    """For a RecursionError: who looks inside params may stand deeper in the stack than who read the message."""
    return RpcError(INVALID_PARAMS, "params are nested too deeply")


class Caller(Protocol):
    """The client side of a forwarded call."""

    calls: dict[bytes, Cancellable]
    """What this client waits for, by request id."""
    client_info: Buffer | None
    """The `clientInfo` of its handshake, where it made one."""
    capabilities: Members
    """What a legacy client can be asked, as its handshake declares."""
    log_level: str | None
    """From where on a legacy client wants log messages."""
    questions: ClientRequests
    """What a legacy client is asked."""

    @property
    def uid(self) -> int:
        """Whose process it is."""

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Send a result."""

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Send an error object, already encoded."""

    def notify(self, method: str, params: Buffer) -> None:
        """Send a notification."""


class Cancellable(Protocol):
    """Something that a client waits for."""

    def cancel(self, reason: str) -> None:
        """The client gave it up or is gone; it is not answered any more."""


def _meta(params: Members) -> Members | None:
    if "_meta" not in params:
        return None
    try:
        return jsonrpc.members(params["_meta"])
    except msgspec.ValidationError:
        raise RpcError(INVALID_PARAMS, "params._meta must be an object") from None
