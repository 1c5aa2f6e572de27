"""One live transport to a server: requests and answers, negotiation, lists. Ends with the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio
import msgspec

from ..core import jsonrpc, protocol
from ..core.catalog import Catalog, CatalogError, Kind, ListPage, read_page
from ..core.errors import METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION, RpcError
from ..core.flood import FloodLimit
from ..core.input_requests import unsupported
from ..core.jsonrpc import ABSENT, Buffer, InvalidMessage, Members, Message, Oversize, TooDeep
from ..core.lifecycle import Failure, Lost, Reason
from ..core.protocol import Era, Negotiated
from ..transport import Receiver, Transport
from .pending import Ask, PendingRequests

PROBE_PATIENCE = 3.0
"""Seconds that a server may ignore `server/discover` before it is sent `initialize` as well."""
MAX_PAGES = 1000
FLOOD_LINES = 100
"""Invalid lines within one second that end the connection."""
NEVER_CANCELLED = frozenset({"initialize", "server/discover"})
"""Requests that must not be cancelled (basic/patterns/cancellation)."""
LONGEST_NUMBER = 18
"""Digits of an id, token or error code; Python refuses to read thousands, and none of ours has as many."""


class Withdrawable(Protocol):
    """Something that the other side asked and waits for."""

    def withdraw(self, reason: str) -> None:
        """Nobody waits for it any more."""


class ServerSession:
    """What is said on one transport.

    `invalid` is told of each line that is no message, `changed` of each list that the server says has changed,
    `failed` of each request that was lost while the connection lives, `unanswered` of each that nothing came after
    until its deadline, `lost` of the connection's end, before the waiters are, `asked` of what the other side asks,
    which is answered later, and `told` of every other notification. `capabilities` are those that we declare; they hold
    for as long as it lives.
    """

    def __init__(
        self,
        *,
        invalid: Callable[[str], None],
        changed: Callable[[Kind], None],
        failed: Callable[[Failure], None],
        lost: Callable[[Failure], None],
        unanswered: Callable[[], None] = lambda: None,
        told: Callable[[Message], None] = lambda message: None,
        asked: Callable[[Message], None] | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        self._invalid = invalid
        self._changed = changed
        self._failed_on_the_way = failed
        self._lost = lost
        self._told = told
        self._unanswered = unanswered
        self._asked = asked or self._refuse
        self.capabilities = capabilities or {}
        self._loop = asyncio.get_running_loop()
        self.transport: Transport | None = None
        self.pending = PendingRequests(self._tell_cancelled, late=self._is_late)
        self.input_requests: dict[bytes, Withdrawable] = {}
        """What the server asks and waits for, by its ids."""
        self.log_level: str | None = None
        """The level that it was told last."""
        self.negotiated: Negotiated | None = None
        self.loss: Failure | None = None
        self.ended = asyncio.Event()
        self.last_answer = self._loop.time()
        self._last_answered = 0
        """The id of the newest request when the server was last heard."""
        self.probing = False
        """Whether the server has been asked what it speaks and has not said."""
        self._invalid_lines = FloodLimit(FLOOD_LINES)

    def receiver(self, stderr: Callable[[str], None]) -> Receiver:
        """What the transport is opened with."""
        return Receiver(line=self._line, stderr=stderr, failed=self._failed, lost=self.lose)

    def send(self, id: int, method: str, params: Buffer) -> None:
        """Send the request that `pending.add` gave this id."""
        if self.transport is not None:
            self.transport.send(jsonrpc.request(id, method, params))

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Answer what the other side asked."""
        if self.loss is None and self.transport is not None:
            self.transport.send(jsonrpc.result(id, payload))

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Answer it with an error object, already encoded."""
        if self.loss is None and self.transport is not None:
            self.transport.send(jsonrpc.error(id, payload))

    def cancel(self, id: int, reason: str) -> None:
        """Give up a request: its waiter is told nothing more, the server is told why."""
        if self.pending.take(id) is not None:
            self._tell_cancelled(id, reason)

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification; dropped when the connection has ended."""
        if self.loss is None and self.transport is not None:
            self.transport.send(jsonrpc.notification(method, None if params is None else jsonrpc.encode(params)))

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        progress: Callable[[Members], None] | None = None,
    ) -> msgspec.Raw:
        """Send a request of our own and wait; `progress` is told of what the server reports meanwhile.

        Raises RpcError as the server answered, Lost with the connection, TimeoutError after `timeout` seconds.
        """
        if self.loss is not None:
            raise Lost(self.loss)
        ask = Ask(progress)
        id = self.pending.add(ask)
        try:
            self.send(id, method, jsonrpc.encode(self._with_meta(params, id if ask.wants_progress else None)))
            with anyio.fail_after(timeout):
                return await ask.answer
        finally:
            if self.pending.take(id) is not None and method not in NEVER_CANCELLED:
                self._tell_cancelled(id, "given up")

    def lose(self, failure: Failure) -> None:
        """The transport ended or must end; every waiter is told."""
        if self.loss is None:
            self.loss = failure
            self.ended.set()
            self._lost(failure)
            self.pending.fail_all(failure)
            for request in list(self.input_requests.values()):
                request.withdraw("the server is gone")

    # -- negotiation ---------------------------------------------------------------------------------------------

    async def negotiate(self, era: Era | None) -> Negotiated:
        """Agree on an era: the one given, else found out by asking.

        Raises Lost where the server speaks no revision of ours or the connection ended.
        """
        if era is Era.LEGACY:
            found = await self._initialize()
        elif era is Era.MODERN:
            found = await self._modern()
        else:
            found = await self._probe()
        self.negotiated, self.probing = found, False
        return found

    async def _probe(self) -> Negotiated:
        """Ask a modern question; whatever is not a modern answer means legacy (stdio, "Backward Compatibility")."""
        discover = asyncio.create_task(self._discover())
        self.probing = True
        try:
            await asyncio.wait([discover], timeout=PROBE_PATIENCE)
            self.probing = not discover.done() or self.loss is not None
            if discover.done():
                return self._modern_answer(discover) or await self._initialize()
            return await self._race(discover)
        finally:
            await _discard(discover)

    async def _race(self, discover: asyncio.Task[msgspec.Raw]) -> Negotiated:
        """A server that has not answered the probe is asked to initialize as well: the first usable answer counts."""
        initialize = asyncio.create_task(self._initialize())
        try:
            await asyncio.wait([discover, initialize], return_when=asyncio.FIRST_COMPLETED)
            if discover.done() and (found := self._modern_answer(discover)) is not None:
                return found
            if initialize.done() and initialize.exception() is not None and not discover.done():
                await asyncio.wait([discover])
                if (found := self._modern_answer(discover)) is not None:
                    return found
            return await initialize
        finally:
            await _discard(initialize)

    async def _discover(self) -> msgspec.Raw:
        return await self.ask(
            "server/discover", {"_meta": protocol.own_envelope(self.capabilities)}, timeout=float("inf")
        )

    def _modern_answer(self, discover: asyncio.Task[msgspec.Raw]) -> Negotiated | None:
        """What the finished probe found: None for a legacy server."""
        match discover.exception():
            case None:
                return protocol.from_discover(discover.result())
            case RpcError(code=code, data=data) if code == UNSUPPORTED_PROTOCOL_VERSION and not _names_legacy(data):
                raise Lost(Failure(Reason.PROTOCOL, "speaks none of our protocol versions", permanent=True))
            case Lost() as lost if self.loss is not None:
                raise lost
            case _:
                return None

    async def _modern(self) -> Negotiated:
        try:
            found = protocol.from_discover(await self._discover())
        except RpcError as refused:
            raise Lost(Failure(Reason.PROTOCOL, f"refused server/discover: error {refused.code}")) from None
        if found is None:
            raise Lost(Failure(Reason.PROTOCOL, f"does not speak {protocol.MODERN_VERSION}", permanent=True))
        return found

    async def _initialize(self) -> Negotiated:
        try:
            result = await self.ask("initialize", protocol.initialize_params(self.capabilities), timeout=float("inf"))
            found = protocol.from_initialize(result)
        except RpcError as refused:
            raise Lost(Failure(Reason.PROTOCOL, f"refused initialize: error {refused.code}")) from None
        except ValueError as unusable:
            raise Lost(Failure(Reason.PROTOCOL, str(unusable), permanent=True)) from None
        self.notify("notifications/initialized")
        return found

    # -- lists ---------------------------------------------------------------------------------------------------

    async def read_catalog(self, *, timeout: float) -> Catalog:
        """Every page of every list that the server offers.

        `timeout`: seconds a page. Raises Lost where a list is broken or the connection ended, TimeoutError.
        """
        assert self.negotiated is not None
        pages: dict[Kind, list[ListPage]] = {}
        for kind in Kind:
            if self.negotiated.has(kind.capability):
                pages[kind] = await self._read_list(kind, timeout)
        return Catalog.of(pages)

    async def _read_list(self, kind: Kind, timeout: float) -> list[ListPage]:
        pages: list[ListPage] = []
        seen: set[str] = set()
        params: dict[str, Any] = {}
        while len(pages) < MAX_PAGES:
            try:
                page = read_page(kind, await self.ask(kind.list_method, params, timeout=timeout))
            except RpcError as refused:
                if refused.code == METHOD_NOT_FOUND and not pages:
                    return []
                raise Lost(Failure(Reason.PROTOCOL, f"{kind.list_method} failed: error {refused.code}")) from None
            except CatalogError as broken:
                raise Lost(Failure(Reason.PROTOCOL, f"{kind.list_method}: {broken}")) from None
            pages.append(page)
            if page.cursor is None:
                return pages
            if page.cursor in seen:
                break
            seen.add(page.cursor)
            params = {"cursor": page.cursor}
        raise Lost(Failure(Reason.PROTOCOL, f"{kind.list_method} has no end: stopped after {len(pages)} pages"))

    # -- what comes in -------------------------------------------------------------------------------------------

    def _line(self, line: bytes | Oversize) -> None:
        if self.loss is not None:
            return
        if isinstance(line, Oversize):
            self.lose(Failure(Reason.PROTOCOL, f"sent a line of {line.size} bytes, over the limit"))
            return
        try:
            message = jsonrpc.decode(line)
        except InvalidMessage as problem:
            self._unreadable(line, problem.message)
            return
        if message.method:
            self._said(message)
        else:
            self._answered(message)

    def _answered(self, message: Message) -> None:
        id = _number(bytes(message.id))
        waiter = None if id is None else self.pending.take(id)
        if waiter is None:
            if id is None or not self.pending.was_issued(id):  # else late: cancelled, or answered twice
                self._count_invalid("an answer to no request")
            return
        self._heard()
        try:
            if (fault := _fault(message)) is None:
                waiter.settle(message)
                return
        except TooDeep:
            fault = "an answer that is nested too deeply"
        self._count_invalid(fault)
        waiter.fail(Failure(Reason.PROTOCOL, f"sent {fault}"))

    def _said(self, message: Message) -> None:
        """A request or a notification of the server's."""
        if message.id is not ABSENT:
            self._requested(message)
        elif message.method == "notifications/progress":
            self._progressed(message)
        elif kinds := [kind for kind in Kind if message.method == kind.list_changed]:
            for kind in kinds:
                self._changed(kind)
        else:
            self._told(message)

    def _progressed(self, message: Message) -> None:
        try:
            params = jsonrpc.members(message.params) if message.params is not ABSENT else {}
        except TooDeep:
            self._count_invalid("nested too deeply")
            return
        id = _number(bytes(params.get("progressToken", b"")))
        if id is not None and (waiter := self.pending.get(id)) is not None:
            self._heard()
            waiter.progress(params)

    def _heard(self) -> None:
        self.last_answer, self._last_answered = self._loop.time(), self.pending.newest

    def _is_late(self, id: int) -> None:
        """The deadline of a request has passed; the server may be slow with it alone, or silent altogether."""
        if id > self._last_answered:
            self._unanswered()

    def _requested(self, message: Message) -> None:
        """Take up what a legacy server asks; a modern one must not ask (transports/stdio)."""
        if self.negotiated is not None and self.negotiated.era is Era.MODERN:
            return
        if message.method == "ping":
            self.answer(bytes(message.id), b"{}")
        else:
            self._asked(message)

    def _refuse(self, message: Message) -> None:
        self.answer_error(bytes(message.id), jsonrpc.error_object(unsupported(message.method)))

    def _unreadable(self, line: bytes, problem: str) -> None:
        """A line that is no message; where it was meant as an answer, its waiter need not wait for the deadline."""
        self._count_invalid(problem)
        id = _number(jsonrpc.salvage_id(line[: jsonrpc.Lines.KEEP], line[-jsonrpc.Lines.KEEP :]) or b"")
        if id is not None and (waiter := self.pending.take(id)) is not None:
            waiter.fail(Failure(Reason.PROTOCOL, f"sent an answer that cannot be read: {problem}"))

    def _count_invalid(self, problem: str) -> None:
        self._invalid(problem)
        if self._invalid_lines.is_exceeded(self._loop.time()):
            self.lose(Failure(Reason.PROTOCOL, f"sent more than {FLOOD_LINES} invalid lines within a second"))

    def _failed(self, id: int, failure: Failure) -> None:
        if (waiter := self.pending.take(id)) is not None:
            waiter.fail(failure)
            self._failed_on_the_way(failure)

    def _tell_cancelled(self, id: int, reason: str) -> None:
        self.notify("notifications/cancelled", self._with_meta({"requestId": id, "reason": reason}))

    def _with_meta(self, params: Mapping[str, Any], token: int | None = None) -> Mapping[str, Any]:
        """`params` with what the era and a wish for progress put into their `_meta`."""
        is_modern = self.negotiated is not None and self.negotiated.era is Era.MODERN
        meta = protocol.own_envelope(self.capabilities) if is_modern else {}
        if token is not None:
            meta[protocol.PROGRESS_TOKEN] = token
        return {**params, "_meta": {**params.get("_meta", {}), **meta}} if meta else params


def _names_legacy(data: object) -> bool:
    """Whether the data of an "unsupported version" error offers a revision that begins with `initialize`."""
    supported = data.get("supported") if isinstance(data, dict) else None
    return isinstance(supported, list) and any(version in protocol.LEGACY_VERSIONS for version in supported)


def _number(text: bytes) -> int | None:
    """The id, where `text` could be one of ours."""
    return int(text) if text.isdigit() and len(text) <= LONGEST_NUMBER else None


def _fault(message: Message) -> str | None:
    """What is wrong with an answer, if anything."""
    if message.error is not ABSENT:
        return None if _is_error(message.error) else "an error without code and message"
    if message.result is ABSENT or not jsonrpc.is_object(message.result):
        return "a result that is not an object"
    return None


def _is_error(error: msgspec.Raw) -> bool:
    if not jsonrpc.is_object(error):
        return False
    body = jsonrpc.members(error)
    code = bytes(body.get("code", b""))
    return _number(code.removeprefix(b"-")) is not None and jsonrpc.text(body.get("message")) is not None


async def _discard(task: asyncio.Task[Any]) -> None:
    """End a task whose outcome does not matter any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
