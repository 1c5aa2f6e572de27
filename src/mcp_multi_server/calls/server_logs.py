"""Log messages of servers: which clients get them, and from which level on servers are to send them."""

from __future__ import annotations

from collections.abc import Callable

from ..core import jsonrpc, log_levels
from ..core.input_requests import named, params_of
from ..core.jsonrpc import Message
from ..core.protocol import LOG_LEVEL_KEY, Era
from ..servers.server import Server
from ..servers.session import ServerSession
from ..servers.snapshot import Snapshot
from .call import SentCall, calls_on
from .request import Caller, ClientRequest

METHOD = "notifications/message"


class ServerLogs:
    """Keeps what clients want. A legacy server is told the lowest level of all; a modern one hears it in each call."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._wanted: dict[Caller, str] = {}
        """From where on a client wants messages, for a modern one the lowest level of its calls so far."""

    def want(self, caller: Caller, level: str) -> None:
        """A legacy client says from which level on it wants messages."""
        caller.log_level = level
        self._want(caller, level)

    def opted_in(self, caller: Caller, level: str) -> None:
        """A request of a modern client asks for messages while it runs."""
        before = self._wanted.get(caller)
        # Only a lower level than before changes what servers are told to send.
        if before is None or not log_levels.reaches(level, before):
            self._want(caller, level)

    def forget(self, caller: Caller) -> None:
        """The client is gone."""
        if self._wanted.pop(caller, None) is not None:
            self._tell_all()

    def changed(self, server: Server) -> None:
        """A server may be there anew, and does not know yet what is wanted."""
        if self._wanted:
            self._tell(server, log_levels.lowest(self._wanted.values()))

    def told(self, server: Server, session: ServerSession, message: Message) -> None:
        """A server's message: for legacy clients by their level, for modern ones while an opted-in call runs there.

        A modern server sends it because of a call, so clients that have none there are none of its business.
        """
        calls = [call for call in calls_on(session) if not call.is_postponed]
        # A legacy server does not say for whose call a message is.
        is_legacy = session.negotiated.era is Era.LEGACY
        wanted = {c: c.log_level for c in (self._wanted if is_legacy else (call.caller for call in calls))}
        params = params_of(message.params)
        level = jsonrpc.text(params.get("level"))
        reached = {caller for caller, least in wanted.items() if least is not None and log_levels.reaches(level, least)}
        reached |= {call.caller for call in calls if _opted_in(call, level)}
        if reached:
            # Named once for all who get it.
            payload = named(params, server.name)
            for caller in reached:
                caller.notify(METHOD, payload)

    def _want(self, caller: Caller, level: str) -> None:
        self._wanted[caller] = level
        self._tell_all()

    def _tell_all(self) -> None:
        level = log_levels.lowest(self._wanted.values())
        for server in self._snapshot().servers.values():
            self._tell(server, level)

    def _tell(self, server: Server, level: str | None) -> None:
        if level is not None and (session := server.live) is not None:
            session.set_log_level(level)


def level_of(request: ClientRequest) -> str | None:
    """The level that a modern request opts in with. Raises RpcError -32602 where it is none."""
    if request.meta is None or LOG_LEVEL_KEY not in request.meta:
        return None
    return log_levels.level_in(request.meta[LOG_LEVEL_KEY], f"params._meta[{LOG_LEVEL_KEY!r}]")


def _opted_in(call: SentCall, level: str | None) -> bool:
    least = level_of(call.request) if call.request.era is Era.MODERN else None
    return least is not None and log_levels.reaches(level, least)
