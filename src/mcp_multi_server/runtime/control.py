"""The daemon's own methods, `daemon/…`, beside MCP's on the same socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from .. import __version__
from ..core import jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Problem, RpcError
from ..core.events import (
    ClientConnected,
    ClientGone,
    CollisionChanged,
    ConfigReloaded,
    DaemonStopping,
    Event,
    ReplacementFailed,
    ServerRemoved,
    ServerReplaced,
    StateChanged,
)
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure
from ..core.plan import Plan
from .access import Peer
from .connection import Connection
from .request import Cancellable, Request
from .snapshot import Snapshot
from .status import Reload, connection_status, fleet_status, problem_record

EVENT_METHOD = "notifications/daemon/event"
LOG_LINES = 50
LONGEST_SHOWN = 100
"""Characters of a client's own words in an error."""
_FOLLOWED = (
    StateChanged,
    ServerReplaced,
    ReplacementFailed,
    ServerRemoved,
    CollisionChanged,
    ConfigReloaded,
    ClientConnected,
    ClientGone,
    DaemonStopping,
)
"""Events that `daemon/events` passes on; requests and stderr lines would be floods."""


class Client(Protocol):
    """The client side of a control request."""

    number: int
    peer: Peer
    name: str
    calls: dict[bytes, Cancellable]

    @property
    def era_name(self) -> str | None:
        """`legacy` or `modern`, once it is known."""

    def answer(self, id: bytes, payload: Buffer) -> None:
        """Send a result."""

    def answer_error(self, id: bytes, payload: Buffer) -> None:
        """Send an error object, already encoded."""

    def notify(self, method: str, params: Buffer) -> None:
        """Send a notification."""


class Actions(Protocol):
    """What the control methods can have done; carried out by the daemon."""

    @property
    def snapshot(self) -> Snapshot:
        """The present one."""

    @property
    def last_reload(self) -> Reload:
        """How the last reading of the config went."""

    @property
    def config_path(self) -> str:
        """The file that `reload` reads."""

    @property
    def started_at(self) -> float:
        """Seconds since 1970."""

    def clients(self) -> Iterable[Client]:
        """Everyone connected."""

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` as a task of the daemon's."""

    async def reload(self) -> tuple[Reload, Plan]:
        """Read the config again and apply it."""

    async def restart(self, server: str) -> tuple[Connection, Failure | None]:
        """Have a new connection to a server: the one that is there in the end, and why it is not a new one that works.

        A server that serves goes on until the new connection is ready, unless its entry says `stop-first`.
        """

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        """What a config would change, the present file's where none is given. Raises ConfigError."""


class Pending:
    """A control request that is answered later, or never."""

    def __init__(self, client: Client, id: bytes) -> None:
        self._client = client
        self._id = id
        client.calls[id] = self

    def cancel(self, reason: str) -> None:
        """See Cancellable; what was begun goes on."""
        self._client.calls.pop(self._id, None)

    def answer(self, result: Mapping[str, Any]) -> None:
        """Answer, unless the client gave up."""
        if self._client.calls.pop(self._id, None) is self:
            self._client.answer(self._id, jsonrpc.encode(result))

    def answer_error(self, failure: RpcError) -> None:
        """Answer with an error, unless the client gave up."""
        if self._client.calls.pop(self._id, None) is self:
            self._client.answer_error(self._id, jsonrpc.error_object(failure))


class Follower(Pending):
    """A `daemon/events` request, among the `others` for as long as its client wants it."""

    def __init__(self, client: Client, id: bytes, others: dict[Follower, None]) -> None:
        super().__init__(client, id)
        self._others = others
        others[self] = None

    def cancel(self, reason: str) -> None:
        """See Cancellable."""
        super().cancel(reason)
        self._others.pop(self, None)

    def tell(self, params: Buffer) -> None:
        """Send one event, already encoded."""
        self._client.notify(EVENT_METHOD, params)


class Control:
    """Serves the control methods. None of them takes a command line: what runs comes from the config file alone."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._followers: dict[Follower, None] = {}

    def serve(self, client: Client, request: Request, *, is_admin: bool) -> Buffer | None:
        """The result of a control request; None where it is answered later. Raises RpcError."""
        match request.method:
            case "daemon/status":
                return jsonrpc.encode(self.status())
            case "daemon/logs":
                _require(is_admin, request)
                return jsonrpc.encode(self._logs(request))
            case "daemon/plan":
                _require(is_admin, request)
                config = _given_config(request)
                self._later(client, request, lambda: self._plan(config))
                return None
            case "daemon/reload":
                _require(is_admin, request)
                self._later(client, request, self._reload)
                return None
            case "daemon/restart":
                _require(is_admin, request)
                self._connection(request)
                self._later(client, request, lambda: self._restart(request))
                return None
            case "daemon/events":
                self._follow(client, request)
                return None
            case _:
                raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method[:LONGEST_SHOWN]}")

    def status(self) -> dict[str, Any]:
        """The result of `daemon/status`."""
        actions = self._actions
        return {
            "version": __version__,
            **fleet_status(
                actions.snapshot, actions.last_reload, path=actions.config_path, started_at=actions.started_at
            ),
            "clients": [
                {
                    "id": client.number,
                    "pid": client.peer.pid,
                    "uid": client.peer.uid,
                    "name": client.name,
                    "era": client.era_name,
                }
                for client in actions.clients()
            ],
        }

    def spread(self, event: Event) -> None:
        """Pass an event on to those who follow."""
        if self._followers and isinstance(event, _FOLLOWED):
            params = _event_params(event)
            if isinstance(event, StateChanged | ServerReplaced) and (
                found := self._actions.snapshot.connections.get(event.server)
            ):
                params["server"] = connection_status(found)
            encoded = jsonrpc.encode(params)
            for follower in list(self._followers):
                follower.tell(encoded)

    def _later(self, client: Client, request: Request, work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        pending = Pending(client, request.id)

        async def answer() -> None:
            try:
                pending.answer(await work())
            except RpcError as failure:
                pending.answer_error(failure)
            except BaseException:
                pending.answer_error(RpcError(INTERNAL_ERROR, f"{request.method} was not completed"))
                raise

        self._actions.later(answer)

    def _follow(self, client: Client, request: Request) -> None:
        present = jsonrpc.encode({"event": "status", "status": self.status()})
        Follower(client, request.id, self._followers).tell(present)

    async def _reload(self) -> dict[str, Any]:
        reload, plan = await self._actions.reload()
        return {
            "outcome": reload.outcome,
            "problems": [problem_record(problem) for problem in reload.problems],
            "generation": self._actions.snapshot.generation,
            "plan": plan.to_dict(),
        }

    async def _restart(self, request: Request) -> dict[str, Any]:
        server = self._connection(request).name  # it may have been removed since the request came
        connection, failure = await self._actions.restart(server)
        return {
            "server": server,
            "state": connection.status.state.value,
            "reason": failure.message if failure else None,
        }

    async def _plan(self, config: bytes | None) -> dict[str, Any]:
        plan, problems = await self._actions.plan(config)
        return {**plan.to_dict(), "problems": [problem_record(problem) for problem in problems]}

    def _logs(self, request: Request) -> dict[str, Any]:
        connection = self._connection(request)
        lines = request.params.get("lines", msgspec.Raw(b"%d" % LOG_LINES))
        if not bytes(lines).isdigit():
            raise RpcError(INVALID_PARAMS, "params.lines must be a whole number")
        digits = bytes(lines)[:9]  # more cannot mean more lines, and Python refuses to read thousands
        wanted = min(int(digits), len(connection.stderr))
        return {"server": connection.name, "lines": list(connection.stderr)[len(connection.stderr) - wanted :]}

    def _connection(self, request: Request) -> Connection:
        name = request.string("server")
        found = self._actions.snapshot.connections.get(name)
        if found is None:
            known = ", ".join(self._actions.snapshot.connections) or "none"
            raise RpcError(INVALID_PARAMS, f"no server {name[:LONGEST_SHOWN]!r} is running; running: {known}")
        return found


def _given_config(request: Request) -> bytes | None:
    given = request.params.get("config")
    if given is not None and not jsonrpc.is_object(given):
        raise RpcError(INVALID_PARAMS, "params.config must be an object")
    return None if given is None else bytes(given)


def _require(is_admin: bool, request: Request) -> None:
    if not is_admin:
        raise RpcError(INVALID_REQUEST, f"{request.method} is for the daemon's user, root and daemon.access.admins")


def _event_params(event: Event) -> dict[str, Any]:
    """An event as JSON: its name and its fields, but for stderr, which is for admins alone (see `daemon/logs`)."""
    assert is_dataclass(event)
    name = {
        StateChanged: "server",
        ServerReplaced: "server_replaced",
        ReplacementFailed: "replacement_failed",
        ServerRemoved: "server_removed",
        CollisionChanged: "collision",
        ConfigReloaded: "config",
        ClientConnected: "client_connected",
        ClientGone: "client_gone",
        DaemonStopping: "stopping",
    }[type(event)]
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "stderr_tail"}
    return {"event": name, "at": at, **shown}
