"""The daemon's own methods, `daemon/…`, beside MCP's on the same socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from .. import __version__
from ..calls.request import ClientRequest
from ..core import jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Problem, RpcError
from ..core.events import (
    CatalogRead,
    CatalogWithdrawn,
    ClientConnected,
    ClientGone,
    CollisionChanged,
    ConfigReloaded,
    DaemonStopping,
    DaemonWarning,
    Event,
    LogLevelChanged,
    RefreshFailed,
    ReplacementFailed,
    ServerRemoved,
    ServerReplaced,
    StateChanged,
    Stderr,
)
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, State
from ..core.plan import Plan
from ..servers.server import Server
from ..servers.snapshot import Snapshot
from ..servers.status import Reload, fleet_status, problem_record, supervised_status
from ..telemetry.log_settings import LEVELS, LogSettings
from .streams import Client, DeferredAnswer, EventStream, LogStream

LOG_LINES = 50
LONGEST_SHOWN = 100
"""Characters of a client's own words in an error."""
EVENT_NAMES: dict[type[Event], str] = {
    StateChanged: "server",
    ServerReplaced: "server_replaced",
    ReplacementFailed: "replacement_failed",
    ServerRemoved: "server_removed",
    CatalogRead: "catalog",
    RefreshFailed: "refresh_failed",
    CatalogWithdrawn: "withdrawn",
    CollisionChanged: "collision",
    ConfigReloaded: "config",
    ClientConnected: "client_connected",
    ClientGone: "client_gone",
    LogLevelChanged: "log_level",
    DaemonWarning: "warning",
    DaemonStopping: "stopping",
}
"""Events that `daemon/events` passes on; requests and stderr lines would be floods."""


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

    @property
    def log(self) -> LogSettings | None:
        """How this process logs; None where that is not ours to say."""

    def clients(self) -> Iterable[Client]:
        """Everyone connected."""

    def tell(self, event: Event) -> None:
        """Tell everyone who is to know."""

    def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` as a task of the daemon's."""

    async def reload(self) -> tuple[Reload, Plan]:
        """Read the config again and apply it."""

    async def restart(self, server: str) -> tuple[Server, Failure | None]:
        """Have a new connection to a server: the one that is there in the end, and why it is not a new one that works.

        A server that serves goes on until the new connection is ready, unless its entry says `stop-first`.
        """

    async def plan(self, config: bytes | None) -> tuple[Plan, tuple[Problem, ...]]:
        """What a config would change, the present file's where none is given. Raises ConfigError."""


class Control:
    """Serves the control methods. None of them takes a command line: what runs comes from the config file alone."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._event_streams: dict[EventStream, None] = {}
        self._log_streams: dict[LogStream, None] = {}
        self._catalogs: dict[str, CatalogRead] = {}

    def serve(self, client: Client, request: ClientRequest, *, is_admin: bool) -> Buffer | None:
        """The result of a control request; None where it is answered later. Raises RpcError."""
        match request.method:
            case "daemon/status":
                return jsonrpc.encode(self.status())
            case "daemon/logs":
                _require(is_admin, request)
                return self._logs(client, request)
            case "daemon/log-level":
                _require(is_admin, request)
                return jsonrpc.encode(self._log_level(client, request))
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
                self._server(request)
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
        if self._log_streams:
            self._tell_log_streams(event)
        name = EVENT_NAMES.get(type(event))
        if name is None or not self._is_news(event) or not self._event_streams:
            return
        params = _event_params(name, event)
        if isinstance(event, StateChanged | ServerReplaced) and (found := self._found(event.server)):
            params["server"] = supervised_status(found)
        encoded = jsonrpc.encode(params)
        for stream in list(self._event_streams):
            stream.tell(encoded)

    def _tell_log_streams(self, event: Event) -> None:
        """Pass on what concerns the servers whose stderr is followed."""
        if not isinstance(event, Stderr | StateChanged | ServerReplaced | ReplacementFailed | ServerRemoved):
            return
        found = self._found(event.server)
        state = found.status.state.value if found else State.STOPPING.value
        for stream in [each for each in self._log_streams if each.server == event.server]:
            match event:
                case Stderr(line=line):
                    stream.tell(line)
                case StateChanged(new=new, failure=failure):
                    stream.tell_state(new.value, f"{failure.reason}: {failure.message}" if failure else None)
                case ServerReplaced():
                    stream.tell_state(state, "a new one took its place")
                case ReplacementFailed(failure=failure):
                    stream.tell_state(state, f"not replaced: {failure.reason}: {failure.message}")
                case ServerRemoved():
                    stream.end("removed")

    def _is_news(self, event: Event) -> bool:
        """Whether an event tells what was not known: lists are read again all day long and found the same."""
        match event:
            case CatalogRead(server):
                before, self._catalogs[server] = self._catalogs.get(server), event
                return before is None or replace(before, seconds=event.seconds) != event
            case RefreshFailed(server) | CatalogWithdrawn(server) | ServerRemoved(server):
                self._catalogs.pop(server, None)
        return True

    def _later(self, client: Client, request: ClientRequest, work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        pending = DeferredAnswer(client, request.id)

        async def answer() -> None:
            try:
                pending.answer(await work())
            except RpcError as failure:
                pending.answer_error(failure)
            except BaseException:
                pending.answer_error(RpcError(INTERNAL_ERROR, f"{request.method} was not completed"))
                raise

        self._actions.later(answer)

    def _follow(self, client: Client, request: ClientRequest) -> None:
        present = jsonrpc.encode({"event": "status", "status": self.status()})
        EventStream(client, request.id, self._event_streams).tell(present)

    async def _reload(self) -> dict[str, Any]:
        reload, plan = await self._actions.reload()
        return {
            "outcome": reload.outcome,
            "problems": [problem_record(problem) for problem in reload.problems],
            "generation": self._actions.snapshot.generation,
            "plan": plan.to_dict(),
        }

    async def _restart(self, request: ClientRequest) -> dict[str, Any]:
        name = self._server(request).name  # it may have been removed since the request came
        server, failure = await self._actions.restart(name)
        return {
            "server": name,
            "state": server.status.state.value,
            "reason": failure.message if failure else None,
        }

    async def _plan(self, config: bytes | None) -> dict[str, Any]:
        plan, problems = await self._actions.plan(config)
        return {**plan.to_dict(), "problems": [problem_record(problem) for problem in problems]}

    def _logs(self, client: Client, request: ClientRequest) -> Buffer | None:
        server, wanted = self._server(request), _lines(request)
        lines = list(server.stderr)
        lines = lines[max(0, len(lines) - wanted) :]
        if not _flag(request, "follow"):
            return jsonrpc.encode({"server": server.name, "lines": lines})
        LogStream(client, request.id, server.name, self._log_streams).begin(lines)
        return None

    def _log_level(self, client: Client, request: ClientRequest) -> dict[str, Any]:
        log = self._actions.log
        if log is None:
            raise RpcError(INVALID_REQUEST, "the log is the program's that runs these servers, and its level too")
        if "level" in request.params:
            level = LEVELS.get(request.string("level"))
            if level is None:
                raise RpcError(INVALID_PARAMS, f"params.level must be one of {', '.join(LEVELS)}")
            changed = LogLevelChanged(level, log.level, client.number, client.peer.uid)
            log.change(level, lambda: self._actions.tell(changed))
        return {"level": log.level, "configured": log.configured}

    def _found(self, server: str) -> Server | None:
        return self._actions.snapshot.servers.get(server)

    def _server(self, request: ClientRequest) -> Server:
        name = request.string("server")
        found = self._found(name)
        if found is None:
            known = ", ".join(self._actions.snapshot.servers) or "none"
            raise RpcError(INVALID_PARAMS, f"no server {name[:LONGEST_SHOWN]!r} is running; running: {known}")
        return found


def _given_config(request: ClientRequest) -> bytes | None:
    given = request.params.get("config")
    if given is not None and not jsonrpc.is_object(given):
        raise RpcError(INVALID_PARAMS, "params.config must be an object")
    return None if given is None else bytes(given)


def _require(is_admin: bool, request: ClientRequest) -> None:
    if not is_admin:
        raise RpcError(INVALID_REQUEST, f"{request.method} is for the daemon's user, root and daemon.access.admins")


def _lines(request: ClientRequest) -> int:
    lines = request.params.get("lines", msgspec.Raw(b"%d" % LOG_LINES))
    if not bytes(lines).isdigit():
        raise RpcError(INVALID_PARAMS, "params.lines must be a whole number")
    return int(bytes(lines)[:9])  # more digits cannot mean more lines, and Python refuses to read thousands


def _flag(request: ClientRequest, name: str) -> bool:
    written = bytes(request.params.get(name, b"false"))
    if written not in (b"true", b"false"):
        raise RpcError(INVALID_PARAMS, f"params.{name} must be true or false")
    return written == b"true"


def _event_params(name: str, event: Event) -> dict[str, Any]:
    """An event as JSON: its name and its fields, but for stderr, which is for admins alone (see `daemon/logs`)."""
    assert is_dataclass(event)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "stderr_tail"}
    if isinstance(failure := shown.get("failure"), Failure):
        shown["failure"] = {name: getattr(failure, name) for name in ("reason", "message", "permanent")}
    return {"event": name, "at": at, **shown}
