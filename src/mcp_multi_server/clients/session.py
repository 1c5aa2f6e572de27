"""One client on the socket: its requests in either era, its subscriptions, and what it waits for."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from ..calls.call import SentCall
from ..calls.client_requests import ClientRequests
from ..calls.first_sight import WaitingRequest
from ..calls.open_requests import OpenRequests
from ..calls.request import ClientRequest
from ..calls.router import HeldCall, Router
from ..calls.server_logs import level_of
from ..core import jsonrpc, protocol
from ..core.catalog.catalog import Kind
from ..core.config.settings import CLIENT_LINE, LimitsConfig
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RpcError
from ..core.events import InternalError, Observer, Rejected, RequestDone
from ..core.flood import FloodLimit
from ..core.input_requests import client_capabilities
from ..core.jsonrpc import ABSENT, Buffer, InvalidMessage, Members, Message, TooDeep
from ..core.lines import Lines, Oversize
from ..core.log_levels import level_in
from ..core.protocol import Era
from ..servers.snapshot import Snapshot, Snapshots
from ..transport.link import Flusher, Link
from .access import Peer
from .subscription import Subscription

CONTROL_PREFIX = "daemon/"
LISTS = {kind.list_method: kind for kind in Kind}
LAST_ANSWERS_LOOK_EVERY = 0.1
"""Seconds between looks at a client that has said all and waits for answers."""
FRESH = 0.5
"""Seconds after connecting within which a client's first words may be on their way."""
FLOOD_LINES = 100
"""Invalid messages within one second that end the connection: refusing them takes the loop from everybody else."""
LONGEST_SHOWN = 100
"""Characters of a method's name in an error."""
COMMON = frozenset({*LISTS, *protocol.CALLS})
LEGACY_ONLY = frozenset({"initialize", "ping", "logging/setLevel"})
BEFORE_INITIALIZE = frozenset({"initialize", "ping"})
MODERN_ONLY = frozenset({"server/discover", "subscriptions/listen"})


@dataclass(slots=True)
class Services:
    """What the sessions use of the daemon. The gateway makes it and hands it to each of them."""

    tell: Observer
    router: Router
    flusher: Flusher
    snapshots: Snapshots
    limits: LimitsConfig
    """Those of the moment: the gateway replaces them when the config does."""
    control: Callable[[ClientSession, ClientRequest], Buffer | None]
    """Carries out a `daemon/…` request: its result, or None where it is answered later."""
    gone: Callable[[ClientSession, str], None]
    """Is called when a client's connection has ended, with the reason."""

    @property
    def snapshot(self) -> Snapshot:
        """The servers as clients see them now."""
        return self.snapshots.present()


class ClientSession:
    """One client's connection, from its first byte to its end. The gateway makes it when it has accepted the client.

    It ends when the client hangs up, when it is cut off for what it sends or does not read, or by `close`. Bytes come
    in by `_feed` and go out by the link; neither waits for anybody.
    """

    def __init__(self, number: int, peer: Peer, descriptor: int, services: Services) -> None:
        self.number = number
        self.peer = peer
        self.name = ""
        self.era: Era | None = None
        self.open_requests = OpenRequests()
        self.client_info: Buffer | None = None
        self.capabilities: Members = {}
        self.log_level: str | None = None
        self._services = services
        self._initialized = False
        self._loop = asyncio.get_running_loop()
        self._lines = Lines(services.limits.client_line)
        self._lines_done = 0
        self._since = self._loop.time()
        self._invalid_lines = FloodLimit(FLOOD_LINES)
        self._line_timer: asyncio.TimerHandle | None = None
        self._link = Link(
            descriptor,
            descriptor,
            feed=self._feed,
            lost=self._lost,
            said_all=self._said_all,
            flusher=services.flusher,
            cap=services.limits.outgoing,
        )
        self.client_requests = ClientRequests(self._link.send)

    def __repr__(self) -> str:
        return f"<ClientSession {self.number} pid={self.peer.pid} waiting={len(self.open_requests)}>"

    @property
    def era_name(self) -> str | None:
        """`legacy` or `modern`, once it is known."""
        return self.era.value if self.era else None

    @property
    def uid(self) -> int:
        """The user id of the client's process, as the kernel tells it."""
        return self.peer.uid

    @property
    def waits_for_server(self) -> bool:
        """Whether a call of this client's is with a server, or something of it waits for one."""
        return any(isinstance(waiting, SentCall | HeldCall | WaitingRequest) for waiting in self.open_requests)

    @property
    def is_fresh(self) -> bool:
        """Whether the client has only just connected and said nothing yet: it must not find the door shut again."""
        return not self._lines_done and self._loop.time() - self._since < FRESH

    def _subscriptions(self) -> list[Subscription]:
        return [waiting for waiting in self.open_requests if isinstance(waiting, Subscription)]

    # -- out -----------------------------------------------------------------------------------------------------

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Send the result of a request. `id`: the bytes that it came as."""
        self._link.send(jsonrpc.result(id, payload))

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Send an error object, already encoded."""
        self._link.send(jsonrpc.error(id, payload))

    def notify(self, method: str, params: Buffer | None = None) -> None:
        """Send a notification."""
        self._link.send(jsonrpc.notification(method, params))

    def list_changed(self, kinds: frozenset[Kind]) -> None:
        """Tell the client of changed lists, in the way of its era; templates change with resources."""
        told: set[str] = set()
        for kind in kinds:
            method = kind.list_changed
            # Resources and templates share one notification, and it is sent once.
            if method in told:
                continue
            told.add(method)
            if self._initialized:
                self.notify(method)
            for subscription in self._subscriptions():
                if any(k.list_changed == method for k in subscription.kinds):
                    subscription.notify(method)

    def close(self, reason: str) -> None:
        """End the connection from our side: subscriptions gracefully, calls by telling their servers."""
        for subscription in self._subscriptions():
            subscription.end()
        # What was just queued is written now: nothing is written after the close.
        self._link.flush()
        self._link.close()
        self._gone(reason)

    # -- in ------------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._lines_done += 1
            self._line(line)
            if self._link.closed:
                return
        # Only a line that has begun can be late; a client may be silent for as long as it likes.
        if not self._lines.partial:
            self._stop_line_timer()
        elif self._line_timer is None:
            self._start_line_timer()

    def _line(self, line: bytes | Oversize) -> None:
        """One line; whatever it is, the next one is served."""
        try:
            if isinstance(line, Oversize):
                # Raised like other invalid lines, so that it is answered and counted in one place.
                raise self._too_long(line)
            message = jsonrpc.decode(line)
            if message.method and message.id is not ABSENT:
                self._requested(message)
            elif message.method:
                self._notified(message)
            elif message.result is ABSENT and message.error is ABSENT:
                raise InvalidMessage(INVALID_REQUEST, "method is missing", bytes(message.id))
            else:
                self.client_requests.answered(message)
        except InvalidMessage as invalid:
            self._invalid(invalid)
        except TooDeep as deep:  # a notification, which has no answer
            self._reject("invalid_message", deep.message)
        except Exception:
            self._services.tell(InternalError(f"client {self.number}", traceback.format_exc()))

    def _invalid(self, invalid: InvalidMessage) -> None:
        """Say what is wrong with a line; part with a client that sends nothing else."""
        self._reject("invalid_message", invalid.message)
        self.answer_error(invalid.id, jsonrpc.error_object(invalid))
        if self._invalid_lines.is_exceeded(self._loop.time()):
            self._cut_off(f"sent more than {FLOOD_LINES} invalid messages within a second")

    def _too_long(self, line: Oversize) -> InvalidMessage:
        id = jsonrpc.salvage_id(line.head, line.tail) or b"null"
        return InvalidMessage(
            INVALID_REQUEST, f"a message may have at most {self._lines.cap} bytes ({CLIENT_LINE})", id
        )

    def _requested(self, message: Message) -> None:
        started = self._loop.time()
        id = bytes(message.id)
        try:
            # Two open requests of one id could not be told apart, by us or by the client.
            if id in self.open_requests:
                raise RpcError(INVALID_REQUEST, "a request with this id is still being answered")
            request = ClientRequest(message)
            # The most frequent requests first; they tell their end themselves, once the server has answered.
            if message.method in protocol.CALLS:
                self._check(request)
                self._admit(request)
                self._services.router.forward(self, request)
                return
            if message.method in LISTS and self._waits_for_servers(request, started):
                return
            answer = self._serve(request)
            error = ""
            if answer is not None:
                self.answer(id, answer)
        except RpcError as failure:
            error = self._refuse(id, failure)
        except Exception:
            self._services.tell(InternalError(f"{message.method} of client {self.number}", traceback.format_exc()))
            error = self._refuse(id, RpcError(INTERNAL_ERROR, "Internal error"))
        self._services.tell(RequestDone(message.method, "", "", "", self._loop.time() - started, error))

    def _refuse(self, id: bytes, failure: RpcError) -> str:
        """Answer with an error; its code, as events have it."""
        self.answer_error(id, jsonrpc.error_object(failure))
        return str(failure.code)

    def _notified(self, message: Message) -> None:
        if message.method == "notifications/initialized":
            # Before that a legacy client must not be sent notifications (2025-11-25, basic/lifecycle).
            self._initialized = self.era is Era.LEGACY
        elif message.method == "notifications/cancelled" and message.params is not ABSENT:
            params = jsonrpc.members(message.params)
            reason = jsonrpc.text(params.get("reason")) or "cancelled by the client"
            self.open_requests.cancel(bytes(params.get("requestId", b"")), reason)

    # -- requests that are answered here -------------------------------------------------------------------------

    def _serve(self, request: ClientRequest) -> Buffer | None:
        """The result of a request; None where it is answered later."""
        method = request.method
        if method.startswith(CONTROL_PREFIX):
            self._admit(request)
            return self._services.control(self, request)
        self._check(request)
        if (kind := LISTS.get(method)) is not None:
            return self._list(request, kind)
        match method:
            case "initialize":
                return self._initialize(request)
            case "server/discover":
                self._introduced(request)
                instructions = self._services.snapshot.instructions
                return jsonrpc.encode(protocol.discover_result(instructions, self._lines.cap))
            case "subscriptions/listen":
                self._admit(request)
                self._listen(request)
                return None
            case "logging/setLevel":
                self._services.router.logs.want(self, level_in(request.params.get("level"), "params.level"))
                return b"{}"
            case _:
                return b"{}"

    def _check(self, request: ClientRequest) -> None:
        """Refuse what the request's era does not allow."""
        method = request.method
        if request.era is Era.MODERN:
            assert request.meta is not None
            protocol.check_envelope(request.meta)
            allowed = method in COMMON or method in MODERN_ONLY
            # A legacy client stays one: it may be asked at any time, also where it tries a modern request.
            self.era = self.era or Era.MODERN
            if (level := level_of(request)) is not None:
                self._services.router.logs.opted_in(self, level)
        else:
            allowed = method in COMMON or method in LEGACY_ONLY
            if method in MODERN_ONLY and self.era is not Era.LEGACY:
                raise RpcError(INVALID_PARAMS, f"params._meta lacks {protocol.VERSION_KEY!r}")
        if not allowed:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:LONGEST_SHOWN]}")
        if request.era is Era.LEGACY and self.era is not Era.LEGACY and method not in BEFORE_INITIALIZE:
            wanted = f"send initialize first, or put {protocol.VERSION_KEY!r} into params._meta"
            raise RpcError(INVALID_REQUEST, f"Not initialized: {wanted}")

    def _admit(self, request: ClientRequest) -> None:
        """Refuse one more request that may have to wait where as many wait as the limit allows."""
        if len(self.open_requests) >= self._services.limits.in_flight:
            self._reject("in_flight", request.method[:LONGEST_SHOWN])
            raise RpcError(INTERNAL_ERROR, f"more than {self._services.limits.in_flight} requests in flight")

    def _waits_for_servers(self, request: ClientRequest, started: float) -> bool:
        """Whether a list waits for servers that are started for the first time; then it is answered later."""
        sight = self._services.router.first_sight
        until = sight.until()
        if until is None or "cursor" in request.params:
            return False
        self._check(request)
        self._admit(request)
        until = min(until, started + request.seconds(math.inf))
        sight.wait(self, request, started, until=until, go=lambda: self._list_late(request, started))
        return True

    def _list_late(self, request: ClientRequest, started: float) -> None:
        self.answer(request.id, self._list(request, LISTS[request.method]))
        self._services.tell(RequestDone(request.method, "", "", "", self._loop.time() - started, ""))

    def _list(self, request: ClientRequest, kind: Kind) -> bytes:
        if bytes(request.params.get("cursor", b"null")) != b"null":
            raise RpcError(INVALID_PARAMS, "params.cursor is not one of ours: the list is a single page")
        # Encoded once per snapshot and era, whoever asks.
        return self._services.snapshot.listing(kind, request.era)

    def _initialize(self, request: ClientRequest) -> bytes:
        self.era = Era.LEGACY
        self._introduced(request)
        self.capabilities = client_capabilities(request.params.get("capabilities"))
        requested = jsonrpc.text(request.params.get("protocolVersion"))
        instructions = self._services.snapshot.instructions
        return jsonrpc.encode(protocol.initialize_result(requested, instructions, self._lines.cap))

    def _introduced(self, request: ClientRequest) -> None:
        """Keep who the client says it is, for status and for servers."""
        holder = request.params.get("clientInfo")
        if holder is None and request.meta is not None:
            holder = request.meta.get(protocol.CLIENT_INFO_KEY)
        if holder is None or not jsonrpc.is_object(holder):
            return
        self.client_info = bytes(holder)
        # Cut, since it is shown in every status and chosen by the client.
        self.name = (jsonrpc.text(jsonrpc.members(holder).get("name")) or "")[:100]

    def _listen(self, request: ClientRequest) -> None:
        try:
            asked = jsonrpc.members(request.params["notifications"])
        except (KeyError, ValueError):
            raise RpcError(INVALID_PARAMS, "params.notifications must be an object") from None
        wanted = frozenset(kind for kind in Kind if bytes(asked.get(kind.subscription, b"")) == b"true")
        self.open_requests.add(request.id, Subscription(self, request.id, wanted))
        acknowledged = {
            "_meta": protocol.subscription_meta(request.id),
            "notifications": {kind.subscription: True for kind in wanted},
        }
        self.notify("notifications/subscriptions/acknowledged", jsonrpc.encode(acknowledged))

    # -- the end -------------------------------------------------------------------------------------------------

    def _said_all(self) -> None:
        """The client ended its side, as `socat` does after its input: what it asked is answered before it goes."""
        if self._lines.partial:
            self._feed(b"\n")  # the end of the stream ends the last line too
        self.client_requests.end()
        # A subscription is never answered, so it keeps nobody.
        waits = len(self.open_requests) > len(self._subscriptions()) or self._link.waiting
        # Nothing tells that a half-closed socket's peer is gone, so it is looked at again and again.
        if not waits or self._link.is_deserted():
            self.close("closed")
        else:
            self._loop.call_later(LAST_ANSWERS_LOOK_EVERY, self._said_all)

    def _lost(self, reason: str) -> None:
        if self._link.overfull:
            self._reject("cut_off", reason)
        self._gone(reason)

    def _gone(self, reason: str) -> None:
        self._stop_line_timer()
        self.open_requests.cancel_all("the client is gone")
        self.client_requests.end()
        self._services.router.gone(self)
        self._services.gone(self, reason)

    def _reject(self, reason: str, detail: str) -> None:
        self._services.tell(Rejected(reason, self.number, detail))

    def _start_line_timer(self) -> None:
        seen, seconds = self._lines_done, self._services.limits.partial_line
        self._line_timer = self._loop.call_later(seconds, self._line_is_late, seen)

    def _stop_line_timer(self) -> None:
        if self._line_timer is not None:
            self._line_timer.cancel()
            self._line_timer = None

    def _line_is_late(self, seen: int) -> None:
        """Cut off a client that began a line and did not end it in time."""
        self._line_timer = None
        # Another line has begun since; it has the whole time, too.
        if self._lines_done != seen:
            self._start_line_timer()
            return
        seconds = self._services.limits.partial_line
        late = InvalidMessage(INVALID_REQUEST, f"a message must be complete within {seconds:g} s")
        self.answer_error(b"null", jsonrpc.error_object(late))
        self._cut_off(f"left a message unfinished for {seconds:g} s")

    def _cut_off(self, reason: str) -> None:
        self._reject("cut_off", reason)
        self.close(reason)
