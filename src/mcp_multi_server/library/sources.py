"""Where a client's servers come from: a config, run in this process, or a daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, PydanticSerializationError, to_json

from ..core.config import Config, ServerConfig, parse
from ..core.errors import ConfigError, Problem
from ..core.events import Event, RequestDone
from ..core.paths import socket_candidates, temporary_directory
from ..daemon import config_file
from ..daemon.fleet import Fleet
from ..daemon.watcher import identity, watch
from ..telemetry.describe import describe
from ..telemetry.events import Events
from .attachment import Attachment

Dial: TypeAlias = Callable[[], Awaitable[sockets.socket]]
"""Gives a socket that is connected to a fleet; raises OSError where there is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A fleet to attach to."""

    dial: Dial
    settle: Callable[[Attachment], Coroutine[Any, Any, str]]
    """Waits until each server is ready or has failed once; why a client must not go on, or ""."""

    async def settled(self, attachment: Attachment) -> str:
        """See `settle`; waits no longer than the connection lives. Servers may ask meanwhile: hence it is needed."""
        settling = asyncio.ensure_future(self.settle(attachment))
        await first(settling, attachment.ended())
        return settling.result() if settling.done() and not settling.cancelled() else ""


START_WITHIN = 30.0
"""Seconds that connecting waits for servers that a daemon is just starting."""
STRICT_VARIABLE = "MCP_MULTI_SERVER_STRICT_CONNECT"
_log = logging.getLogger("mcp_multi_server")


class MCPServersConfig(BaseModel):
    """The config of `MultiServerClient` as an object; `model_dump()` of it is what `from_dict` takes."""

    model_config = ConfigDict(hide_input_in_errors=True, extra="allow", serialize_by_alias=True)

    mcpServers: dict[str, ServerConfig]  # noqa: N815  # the key in the file, and in the original library


def is_strict(given: bool | None) -> bool:
    """Whether a server that cannot be reached keeps a client from connecting: as it was told, else the environment."""
    if given is not None:
        return given
    return os.environ.get(STRICT_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def load(path: str, given: bytes | None) -> Config:
    """The config that was given, else the file's, with the errors that the original library raises.

    Raises FileNotFoundError, json.JSONDecodeError, pydantic.ValidationError.
    """
    if given is not None:
        text, directory = given, os.getcwd()
    else:
        with open(path, "rb") as file:
            text, directory = file.read(), os.path.dirname(path)
    data = json.loads(text)
    try:
        config = parse(text, config_file.lookup_in(directory))
    except ConfigError as unusable:
        raise _refused(data, unusable.problems) from None
    if config.broken:
        raise _refused(data, [problem for problems in config.broken.values() for problem in problems])
    return config


def as_json(config: Mapping[str, Any]) -> bytes:
    """A config that a program made, as the text of a file. Raises pydantic.ValidationError where it is wrong."""
    try:
        text: bytes = to_json(config, by_alias=True)
    except PydanticSerializationError:
        MCPServersConfig.model_validate(config)
        raise
    load("", text)
    return text


def _refused(data: Any, problems: Sequence[Problem]) -> ValidationError:
    """What the original library raises for such a config; else an error of the same class with our problems."""
    try:
        MCPServersConfig.model_validate(_with_servers(data))
    except ValidationError as wrong:
        return wrong
    return ValidationError.from_exception_data(
        MCPServersConfig.__name__,
        [
            {
                "type": PydanticCustomError("config", "{problem}", {"problem": problem.message}),
                "loc": tuple(problem.field.split(".")) if problem.field else (),
                "input": None,
            }
            for problem in problems
        ],
        hide_input=True,
    )


@asynccontextmanager
async def own_fleet(config: Config, path: str, *, is_strict: bool, abilities: frozenset[str]) -> AsyncIterator[Source]:
    """Run the servers of a config in this process; `path` is its file, "" where there is none.

    `abilities`: what servers are told that they may ask. `is_strict`: a server that cannot be reached is a reason not
    to go on.
    """
    known = identity(path) if path else None
    fleet = Fleet(config, events=Events(_log_event), path=path, abilities=abilities)

    async def dial() -> sockets.socket:
        ours, theirs = sockets.socketpair()
        fleet.gateway.adopt(theirs)
        return ours

    async def settle(attachment: Attachment) -> str:
        failures = await _first_attempts(fleet)
        await attachment.refresh()
        return "; ".join(failures) if is_strict else ""

    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.run)
        if path:
            tasks.start_soon(watch, path, known, fleet.reloads.config_may_have_changed)
        yield Source(dial, settle)
        fleet.gateway.close("the client is closed")
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def daemon(path: str | os.PathLike[str] | None) -> AsyncIterator[Source]:
    """Use the servers of the daemon at this socket. Raises ConnectionError where there is none."""
    candidates = (os.fspath(path),) if path else _usual_sockets()

    async def dial() -> sockets.socket:
        failures = []
        for candidate in candidates:
            connected = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
            try:
                await asyncio.get_running_loop().sock_connect(connected, candidate)
            except OSError as failure:
                connected.close()
                failures.append(f"{candidate} ({failure.strerror or failure})")
            else:
                return connected
        raise ConnectionError(f"the daemon cannot be reached at {' or '.join(failures)}")

    first: sockets.socket | None = await dial()

    async def dial_again() -> sockets.socket:
        nonlocal first
        connected, first = first, None
        return connected or await dial()

    yield Source(dial_again, _settle)


async def _settle(attachment: Attachment) -> str:
    with anyio.move_on_after(START_WITHIN):
        await attachment.settled()
    return ""


async def _first_attempts(fleet: Fleet) -> list[str]:
    """Wait until each server is ready or has failed once; what went wrong with which."""
    failures = []
    for server in fleet.snapshot.servers.values():
        with anyio.move_on_after(server.config.start_timeout + server.config.stop_timeout):
            await server.attempted.wait()
        if server.live is None:
            reason = server.status.failure.message if server.status.failure else "not ready in time"
            failures.append(f"server {server.name!r}: {reason}")
    return failures


def _log_event(event: Event) -> None:
    if type(event) is RequestDone and not _log.isEnabledFor(logging.DEBUG):
        return
    entry = describe(event)
    _log.log(entry.level, "%s", entry)


def _usual_sockets() -> tuple[str, ...]:
    return socket_candidates(os.environ, os.geteuid(), temporary_directory(os.environ))


def _with_servers(data: Any) -> Any:
    """The content of a config, with its servers where the model looks for them."""
    if isinstance(data, dict) and "mcpServers" not in data and "servers" in data:
        return data | {"mcpServers": data["servers"]}
    return data


async def first(*waits: Any) -> None:
    """Wait for the first of these to end."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
