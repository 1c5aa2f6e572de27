"""The daemon's own methods, `daemon/…`, beside MCP's on the same socket."""

from __future__ import annotations

import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from .. import __version__
from ..calls.request import ClientRequest
from ..clients.followers import EventFollowers, LogFollowers
from ..clients.session import ClientSession
from ..clients.streams import DeferredAnswer
from ..core import jsonrpc
from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RpcError
from ..core.events import InternalError, LogLevelChanged, Observer
from ..core.jsonrpc import Buffer
from ..servers.server import Server
from ..servers.supervisor import Supervisor
from ..telemetry.log_settings import LEVELS, LogSettings
from .reload import Reloads
from .status import fleet_status, problem_record

LOG_LINES = 50
LONGEST_SHOWN = 100
"""Characters of a client's own words in an error."""

Work: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
"""Gives the result of a request that takes its time. Raises RpcError."""


class Control:
    """Serves the control methods. None of them takes a command line: what runs comes from the config file alone.

    The fleet makes it and hands its `serve` to the gateway; `run` is the task that carries out what takes its time.
    `sessions` are the clients that are connected, by number. `log` is None where the process is somebody else's, and
    its log too.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        reloads: Reloads,
        *,
        sessions: Mapping[int, ClientSession],
        events: EventFollowers,
        stderr: LogFollowers,
        log: LogSettings | None,
        tell: Observer,
    ) -> None:
        self._supervisor = supervisor
        self._reloads = reloads
        self._sessions = sessions
        self._events = events
        self._stderr = stderr
        self._log = log
        self._tell = tell
        self._started_at = time.time()
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry out what takes its time, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def serve(self, client: ClientSession, request: ClientRequest, is_admin: bool) -> Buffer | None:
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
                # Read at once, so that a wrong one is refused before anything starts.
                config = _given_config(request)
                self._later(client, request, lambda: self._plan(config))
                return None
            case "daemon/reload":
                _require(is_admin, request)
                self._later(client, request, self._reload)
                return None
            case "daemon/restart":
                _require(is_admin, request)
                self._server(request)  # an unknown name is refused at once
                self._later(client, request, lambda: self._restart(request))
                return None
            case "daemon/events":
                present = jsonrpc.encode({"event": "status", "status": self.status()})
                self._events.follow(client, request.id, present)
                return None
            case _:
                raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method[:LONGEST_SHOWN]}")

    def status(self) -> dict[str, Any]:
        """The result of `daemon/status`."""
        reloads = self._reloads
        return {
            "version": __version__,
            **fleet_status(self._supervisor.snapshot, reloads.last, path=reloads.path, started_at=self._started_at),
            "clients": [_client(session) for session in self._sessions.values()],
        }

    def _later(self, client: ClientSession, request: ClientRequest, work: Work) -> None:
        """Answer with the outcome of `work`, which goes on when the client is gone."""
        assert self._tasks is not None
        self._tasks.start_soon(self._carry_out, request.method, work, DeferredAnswer(client, request.id))

    async def _carry_out(self, method: str, work: Work, pending: DeferredAnswer) -> None:
        try:
            pending.answer(await work())
        except RpcError as failure:
            pending.answer_error(failure)
        except BaseException as failure:
            pending.answer_error(RpcError(INTERNAL_ERROR, f"{method} was not completed"))
            if not isinstance(failure, Exception):
                raise  # the daemon stops
            self._tell(InternalError(method, traceback.format_exc()))

    async def _reload(self) -> dict[str, Any]:
        reload, plan = await self._reloads.reload()
        return {
            "outcome": reload.outcome,
            "problems": [problem_record(problem) for problem in reload.problems],
            "generation": self._supervisor.snapshot.generation,
            "plan": plan.to_dict(),
        }

    async def _restart(self, request: ClientRequest) -> dict[str, Any]:
        """Replace a server by itself.

        One that serves goes on until the new one is ready, unless its entry says `stop-first`.
        """
        name = self._server(request).name  # it may have been removed since the request came
        replacement = self._supervisor.restart(name)
        await replacement.decided.wait()
        # A reload may have removed it while the replacement was decided.
        server = self._supervisor.snapshot.servers.get(name, replacement.server)
        return {
            "server": name,
            "state": server.status.state.value,
            "reason": replacement.failure.message if replacement.failure else None,
        }

    async def _plan(self, config: bytes | None) -> dict[str, Any]:
        plan, problems = await self._reloads.plan(config)
        return {**plan.to_dict(), "problems": [problem_record(problem) for problem in problems]}

    def _logs(self, client: ClientSession, request: ClientRequest) -> Buffer | None:
        server, wanted = self._server(request), _lines(request)
        lines = list(server.stderr)  # a deque cannot be sliced
        lines = lines[max(0, len(lines) - wanted) :]
        if not _flag(request, "follow"):
            return jsonrpc.encode({"server": server.name, "lines": lines})
        self._stderr.follow(client, request.id, server.name, lines)
        return None

    def _log_level(self, client: ClientSession, request: ClientRequest) -> dict[str, Any]:
        log = self._log
        if log is None:
            raise RpcError(INVALID_REQUEST, "the log is the program's that runs these servers, and its level too")
        if "level" in request.params:
            level = LEVELS.get(request.string("level"))
            if level is None:
                raise RpcError(INVALID_PARAMS, f"params.level must be one of {', '.join(LEVELS)}")
            # Made before the change, as it names the level that was.
            changed = LogLevelChanged(level, log.level, client.number, client.peer.uid)
            log.change(level, lambda: self._tell(changed))
        return {"level": log.level, "configured": log.configured}

    def _server(self, request: ClientRequest) -> Server:
        name, servers = request.string("server"), self._supervisor.snapshot.servers
        if name not in servers:
            known = ", ".join(servers) or "none"
            raise RpcError(INVALID_PARAMS, f"no server {name[:LONGEST_SHOWN]!r} is running; running: {known}")
        return servers[name]


def _client(session: ClientSession) -> dict[str, Any]:
    """One client's row in the status."""
    peer = session.peer
    return {"id": session.number, "pid": peer.pid, "uid": peer.uid, "name": session.name, "era": session.era_name}


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
