"""What the client of a bridge has said that every new connection to the daemon must hear again.

A legacy client's handshake, log level and resource subscriptions are said again under ids of the bridge's own, a modern
client's `subscriptions/listen` under the client's id, as what is told carries it. Of each list that the client has read
a digest is kept, by which a new connection's list is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .envelope import Id, as_id, decode, encode, member

LISTS = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("resourceTemplates", "resources"),
}
"""For each list, the member of its result that holds the items and what its `list_changed` is named after."""
SAID_AGAIN = frozenset({"initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
REMEMBERED = SAID_AGAIN | LISTS.keys()
"""Requests whose answers change what is remembered."""
AWAY_MARK = "mcp-multi-server/state"
"""The `_meta` member of a listed item whose server is away. It makes no difference, as it goes without a notice."""
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
MOST_SUBSCRIPTIONS = 1000
"""Resources, and lists, that are subscribed to again."""

Ask: TypeAlias = Callable[[bytes, "str | None"], bytes]
"""Gives a request an id of the bridge's own: the line, and the list whose result it asks for, if that is wanted."""


@dataclass(slots=True)
class Listen:
    """A `subscriptions/listen` request of the client's. It has no answer as long as it lasts."""

    line: bytes
    is_acknowledged: bool = False
    end: bytes = b""
    """The answer with which the daemon ended it, kept back: a daemon that ends closes the connection next."""
    ended: float = 0.0


@dataclass(slots=True)
class _ListRead:
    request: bytes
    digest: int


@dataclass(slots=True)
class Memory:
    """The bridge makes one; it lasts as long as the client."""

    listens: dict[Id, Listen] = field(default_factory=dict)
    is_initialized: bool = False
    """Whether the client has sent `notifications/initialized`."""
    version: str | None = None
    """The protocol version that was agreed with a legacy client, whose handshake was answered."""
    _handshake: bytes = b""
    _level: bytes = b""
    _subscribed: dict[str, bytes] = field(default_factory=dict)
    _lists: dict[str, _ListRead] = field(default_factory=dict)

    def answered(self, method: str, request: bytes, answer: bytes) -> None:
        """Remember what the daemon's answer makes of a request; nothing if it is an error."""
        if method in LISTS:
            self._list_read(method, request, answer)
            return
        result = decode(answer).get("result")
        if not isinstance(result, dict):
            return
        if method == "initialize":
            self._handshake, self.version = request, str(result.get("protocolVersion"))
        elif method == "logging/setLevel":
            self._level = request
        elif isinstance(uri := member(decode(request), "params", "uri"), str):
            self._subscribed.pop(uri, None)
            if method == "resources/subscribe" and len(self._subscribed) < MOST_SUBSCRIPTIONS:
                self._subscribed[uri] = request

    def again(self, ask: Ask) -> Iterator[bytes]:
        """The lines that a new connection begins with."""
        if self._handshake:
            yield ask(self._handshake, "initialize")
            if self.is_initialized:
                yield encode({"method": "notifications/initialized"})
        for request in (self._level, *self._subscribed.values()):
            if request:
                yield ask(request, None)
        for listen in self.listens.values():
            listen.end = b""
            yield listen.line + b"\n"

    def lists_again(self, ask: Ask) -> Iterator[bytes]:
        """The requests whose answers show which lists are not those that the client knows."""
        for method, read in self._lists.items():
            yield ask(read.request, method)

    def is_changed(self, method: str, answer: bytes) -> bool:
        """Whether a list, read again, is another one than the client knows. It is known from now on."""
        read, digest = self._lists.get(method), _digest(method, answer)
        if read is None or digest is None or digest == read.digest:
            return False
        read.digest = digest
        return True

    def told(self, subject: str) -> Iterator[bytes]:
        """The notifications that say to the client that the list of a subject changed, in the way of its era."""
        method = f"notifications/{subject}/list_changed"
        if self.is_initialized and self._handshake:
            yield encode({"method": method})
        for id, listen in self.listens.items():
            if member(decode(listen.line), "params", "notifications", f"{subject}ListChanged") is True:
                yield encode({"method": method, "params": {"_meta": {SUBSCRIPTION_KEY: id}}})

    def acknowledged(self, line: bytes) -> bool:
        """Whether the client is to hear that the daemon took its subscription: once, not for each connection."""
        id = as_id(member(decode(line), "params", "_meta", SUBSCRIPTION_KEY))
        listen = self.listens.get(id) if id is not None else None
        if listen is None:
            return True
        is_first, listen.is_acknowledged = not listen.is_acknowledged, True
        return is_first

    def _list_read(self, method: str, request: bytes, answer: bytes) -> None:
        # A page of a list is not compared: its cursor means nothing to another daemon.
        digest = None if b'"cursor"' in request else _digest(method, answer)
        if digest is None:
            self._lists.pop(method, None)
        else:
            self._lists[method] = _ListRead(request, digest)


def _digest(method: str, answer: bytes) -> int | None:
    """A number that differs if the items do; None where the answer is not a whole list."""
    result = decode(answer).get("result")
    items = member(result, LISTS[method][0])
    if not isinstance(items, list) or member(result, "nextCursor"):
        return None
    return hash(json.dumps([_unmarked(item) for item in items], sort_keys=True))


def _unmarked(item: Any) -> Any:
    """The item as it is listed while its server is there."""
    meta = member(item, "_meta")
    if not isinstance(meta, dict) or AWAY_MARK not in meta:
        return item
    return item | {"_meta": {name: value for name, value in meta.items() if name != AWAY_MARK}}
