"""One request of a client, decoded as far as routing needs, and what the client's session must offer to a call."""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from ..core import jsonrpc, protocol
from ..core.errors import INVALID_PARAMS, RpcError
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.protocol import TIMEOUT_KEY, Era
from .client_requests import ClientRequests
from .open_requests import OpenRequests

_decode_number = jsonrpc.decoder(float)


class ClientRequest:
    """A client's request. `id` is the bytes that it came as, which also name it in a cancellation."""

    __slots__ = ("_timeout", "era", "id", "meta", "method", "params", "raw_params")

    def __init__(self, message: Message) -> None:
        self.id = bytes(message.id)
        self.method = message.method
        self.raw_params: Buffer = message.params if message.params is not ABSENT else b"{}"
        self.params = jsonrpc.members(message.params) if message.params is not ABSENT else {}
        if bytes(self.params.get("_meta", b"")) == b"null":  # left out, as some languages write it; servers refuse it
            del self.params["_meta"]
            self.raw_params = jsonrpc.encode(self.params)
        self.meta = _meta(self.params)
        self._timeout: float | None = None
        if self.meta is not None and TIMEOUT_KEY in self.meta:
            self._take_timeout(self.meta)
        self.era = Era.MODERN if protocol.is_modern(self.meta) else Era.LEGACY

    def _take_timeout(self, meta: Members) -> None:
        """Take out what is for us alone: the server gets the request as if it had never been there."""
        self._timeout = _seconds(meta.pop(TIMEOUT_KEY))
        if meta:
            self.params["_meta"] = msgspec.Raw(jsonrpc.encode(meta))
        else:
            del self.params["_meta"]
            self.meta = None
        self.raw_params = jsonrpc.encode(self.params)

    def seconds(self, usual: float) -> float:
        """The seconds that the client gives it, or the usual ones."""
        return usual if self._timeout is None else self._timeout

    def string(self, member: str) -> str:
        """The string under `member` of the params. Raises RpcError -32602 where there is none."""
        found = jsonrpc.text(self.params.get(member))
        if found is None:
            raise RpcError(INVALID_PARAMS, f"params.{member} must be a string")
        return found

    def reference(self) -> tuple[str, str]:
        """The type and the name or URI of a completion's `ref`. Raises RpcError -32602 where it is malformed."""
        try:
            ref = jsonrpc.members(self.params["ref"])
        except (KeyError, msgspec.ValidationError):
            raise RpcError(INVALID_PARAMS, "params.ref must be an object") from None
        kind = jsonrpc.text(ref.get("type"))
        member = {"ref/prompt": "name", "ref/resource": "uri"}.get(kind or "")
        if kind is None or member is None:
            raise RpcError(INVALID_PARAMS, "params.ref.type must be ref/prompt or ref/resource")
        target = jsonrpc.text(ref.get(member))
        if target is None:
            raise RpcError(INVALID_PARAMS, f"params.ref.{member} must be a string")
        return kind, target

    def renamed(self, name: str) -> Members:
        """The params that change where the server's own `name` or URI takes the place of the client's; often none."""
        if self.method == "completion/complete":
            kind, target = self.reference()
            if target == name:
                return {}
            ref = jsonrpc.members(self.params["ref"])
            ref["name" if kind == "ref/prompt" else "uri"] = msgspec.Raw(jsonrpc.encode(name))
            return {"ref": msgspec.Raw(jsonrpc.encode(ref))}
        member = "uri" if self.method == "resources/read" else "name"
        return {} if self.string(member) == name else {member: msgspec.Raw(jsonrpc.encode(name))}


class Caller(Protocol):
    """A client as its calls see it; its session in the room `clients` is one."""

    open_requests: OpenRequests
    """What this client waits for."""
    client_info: Buffer | None
    """The `clientInfo` of its handshake, where it made one."""
    capabilities: Members
    """What a legacy client can be asked, as its handshake declares."""
    log_level: str | None
    """The lowest level of log messages that a legacy client wants."""
    client_requests: ClientRequests
    """What a legacy client is asked."""

    @property
    def uid(self) -> int:
        """The user id of its process."""

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Send a result."""

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Send an error object, already encoded."""

    def notify(self, method: str, params: Buffer) -> None:
        """Send a notification."""


def _seconds(raw: msgspec.Raw) -> float:
    try:
        seconds: float = _decode_number(raw)
    except ValueError:  # no number, or one too big
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise RpcError(INVALID_PARAMS, f"params._meta[{TIMEOUT_KEY!r}] must be a number of seconds, greater than 0")
    return seconds


def _meta(params: Members) -> Members | None:
    if "_meta" not in params:
        return None
    try:
        return jsonrpc.members(params["_meta"])
    except msgspec.ValidationError:
        raise RpcError(INVALID_PARAMS, "params._meta must be an object") from None
