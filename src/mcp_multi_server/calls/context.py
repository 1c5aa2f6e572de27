"""What every call is given by the router: time, tracing, the way back of links, its errors and its last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..core.errors import INTERNAL_ERROR, RpcError
from ..core.events import Observer, RequestDone
from ..core.lifecycle import ROUTED, Failure
from ..core.names import Route
from ..core.uri import namespaced
from ..servers.server import Server
from ..servers.snapshot import Snapshot
from ..telemetry.tracing import Tracer

LINKS_LOOKED_UP = 256
"""Different links of one result that are looked at, as each may mean a look at every template of every server."""

SERVERS_SHOWN = 8
"""Names of servers in an error."""


class CallContext:
    """Made by the router, once. `wall` turns a time of the loop's clock into an ISO 8601 date."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, tell: Observer, wall: Callable[[float], str]) -> None:
        loop = asyncio.get_running_loop()
        self.snapshot = snapshot
        self.time = loop.time
        self.call_at = loop.call_at
        self.tracer: Tracer | None = None
        """What makes spans, where they are wanted."""
        self._tell = tell
        self._wall = wall

    def unavailable(
        self, server: Server, message: str, failure: Failure | None = None, *, reason: str | None = None
    ) -> RpcError:
        """The error for a call that its server could not answer: it names the server, its state and the next attempt.

        `failure`: why, where the call knows better than the server's state; `reason`: a word for it where the state
        says nothing.
        """
        status = server.status
        # The last failure of a server that is ready again explains nothing of this call.
        why = failure or (None if status.state in ROUTED else status.failure)
        data = {
            "server": server.name,
            "state": status.state.value,
            "reason": why.reason.value if why else reason,
            "retryAt": None if status.next_attempt is None else self._wall(status.next_attempt),
        }
        return RpcError(INTERNAL_ERROR, message, data)

    def not_heard(self, what: str, servers: Sequence[Server]) -> RpcError:
        """The error for a call of what nobody offers by now, while some servers have not been heard."""
        names = [server.name for server in servers]
        shown = ", ".join(map(repr, names[:SERVERS_SHOWN]))
        shown += f" and {len(names) - SERVERS_SHOWN} more" if len(names) > SERVERS_SHOWN else ""
        return self.unavailable(servers[0], f"no server offers {what} so far; not heard yet: {shown}")

    def renaming(self, route: Route, method: str) -> Callable[[str], str]:
        """What is done to the URIs in a result of that route's server, so that they lead back to it.

        The URIs of a read come back in the form that was asked for. Elsewhere only those get the server's name in front
        that the server offers as resources and that would lead nowhere or to another server without it: links to the
        web, and whatever else is no resource of the server's, are nobody's to rewrite.
        """
        if method == "resources/read":
            return (lambda uri: namespaced(route.namespace, uri)) if route.namespace else (lambda uri: uri)
        index, server = self.snapshot().index, route.server
        known: dict[str, str] = {}

        def lead_back(uri: str) -> str:
            if uri not in known:
                if len(known) == LINKS_LOOKED_UP:
                    return uri
                is_fine = not index.offers(server, uri) or index.routes_back(uri, server)
                known[uri] = uri if is_fine else index.namespaced(server, uri)
            return known[uri]

        return lead_back

    def done(self, method: str, server: str, tool: str, kind: str, started: float, error: str) -> None:
        """Tell that a call has ended.

        `tool`, `kind`: the server's own name of the tool that was called and the transport that it was sent over, or
        "" for none; `started`: loop time; `error`: "" for success.
        """
        self._tell(RequestDone(method, server, tool, kind, self.time() - started, error))
