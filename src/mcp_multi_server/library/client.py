"""Many MCP servers as one, in a program: servers of its own, or those of the daemon, behind the same methods."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self, Unpack

import mcp_types as types

from ..core.catalog.catalog import Kind
from ..servers.clock import iso
from .away import Away
from .callbacks import CallbackOptions, Callbacks, ElicitationFnT, ListRootsFnT, LoggingFnT, SamplingFnT
from .config import as_json, is_strict, load
from .connection import FleetConnection
from .errors import check_event_loop, in_seconds
from .fleets import CONNECT_WITHIN, FleetAccess, daemon_fleet, own_fleet
from .listing import Listing
from .overview import Overview
from .requests import Requests
from .time_limits import TimeLimits
from .watchers import OnChange, Watchers

_log = logging.getLogger("mcp_multi_server.client")


class MultiServerClient(Overview, Requests):
    """Connects to several MCP servers, lists what they offer as one, and routes each request to its server.

    `async with` connects and disconnects; a client can be connected again afterwards. Entering returns when each server
    is ready or has failed once. Lists need no waiting, and servers that die are restarted. Servers may make the input
    requests for which there is a callback; while they wait for its answer, `read_timeout_seconds` of the calls
    concerned is paused.

    Args:
        config_path: the file that names the servers. Edits of it are applied while the client is connected.
        strict_connect: whether one server that fails, or a broken entry of the config, makes entering fail. Default:
            whether the variable `MCP_MULTI_SERVER_STRICT_CONNECT` is `1`.
        sampling_callback: has a language model write a message for a server.
        elicitation_callback: asks the user something for a server.
        list_roots_callback: lists the directories that servers may use.
        logging_callback: gets the servers' log messages, once `set_logging_level` was called.

    Raises:
        FileNotFoundError: there is no such file (on entering, as all of these).
        json.JSONDecodeError: the file is not JSON.
        pydantic.ValidationError: the config is wrong as a whole, or has no entry that is right; with
            `strict_connect`, also if one entry is wrong.
        ConnectionError: the daemon cannot be reached; with `strict_connect`, a server cannot be connected.
        RuntimeError: the client is connected already, or no asyncio event loop runs. Methods that need a connection
            raise it where there is none.
        TypeError: a callback cannot be called (at once).

    """

    def __init__(
        self,
        config_path: str | os.PathLike[str] = "mcp_servers.json",
        *,
        strict_connect: bool | None = None,
        sampling_callback: SamplingFnT | None = None,
        elicitation_callback: ElicitationFnT | None = None,
        list_roots_callback: ListRootsFnT | None = None,
        logging_callback: LoggingFnT | None = None,
    ) -> None:
        # Absolute, since the program may change its directory before it connects.
        self._absolute_path = os.path.abspath(config_path) if config_path else ""
        self._config_path = Path(config_path) if config_path else None
        self._given: bytes | None = None
        self._daemon: Callable[[], AbstractAsyncContextManager[FleetAccess]] | None = None
        self._strict = is_strict(strict_connect)
        self._connection: FleetConnection | None = None
        self._listing = Listing.empty()
        self._watchers = Watchers()
        self._callbacks = Callbacks(sampling_callback, elicitation_callback, list_roots_callback, logging_callback)
        self._limits = TimeLimits()
        self._log_level: types.LoggingLevel | None = None

    @classmethod
    def from_config(
        cls,
        config_path: str | os.PathLike[str],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client that runs the servers named in a file; the same as the constructor.

        Args:
            config_path: the file.
            strict_connect: as in the class.
            **callbacks: those of the class.

        """
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client that runs the servers named in a dict.

        Args:
            config_dict: what a config file holds; the `model_dump()` of an `MCPServersConfig`, for example.
            strict_connect: as in the class.
            **callbacks: those of the class.

        Raises:
            pydantic.ValidationError: the config is wrong, as in the class.

        """
        client = cls("", strict_connect=strict_connect, **callbacks)
        # Now, for its errors, and since the program may change the dict.
        client._given = as_json(config_dict, is_strict=client._strict)
        return client

    @classmethod
    def connect(
        cls,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float | timedelta = CONNECT_WITHIN,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client of the servers of the daemon. It may go and come back later: the client connects again by itself.

        Args:
            socket: the path of the daemon's socket. Default: where a daemon usually listens.
            timeout: seconds, or a `timedelta`, in which the daemon must answer on entering.
            **callbacks: those of the class.

        Raises:
            TypeError, ValueError: `timeout` is no time.

        """
        client = cls("", **callbacks)
        client._daemon = partial(daemon_fleet, socket, in_seconds(timeout, "timeout"))
        return client

    # -- connecting ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect; returns when each server is ready or has failed once. Raises what the class says."""
        check_event_loop()
        if self._connection is not None and self._connection.is_open:
            raise RuntimeError("this client is connected already")
        self._connection = FleetConnection(self._callbacks, self._limits, self._may_be_at, changed=self._changed)
        self._connection.log_level = self._log_level  # it outlives the connection in which it was set
        try:
            await self._connection.open(self._own_fleet() if self._daemon is None else self._daemon())
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect, as leaving `async with` does, and stop the client's own servers. Harmless if not connected."""
        if (connection := self._connection) is None:
            return
        failure = await connection.close()
        if self._connection is connection:  # else it was closed by another task meanwhile, which has said so
            self._connection = None
            self._listing = self._listing.without_fleet(Away(iso(time()), "the client is closed"))
            if failure is not None:
                _log.error("the client had ended before it was closed", exc_info=failure)

    async def connect_all(self, stack: AsyncExitStack) -> None:
        """Connect until `stack` is closed.

        Args:
            stack: what disconnects the client in the end.

        Raises:
            FileNotFoundError, json.JSONDecodeError, pydantic.ValidationError, ConnectionError, RuntimeError: as
                entering does, see the class.

        """
        await stack.enter_async_context(self)

    def _own_fleet(self) -> AbstractAsyncContextManager[FleetAccess]:
        config = load(self._absolute_path, self._given, is_strict=self._strict)
        return own_fleet(config, self._absolute_path, is_strict=self._strict, abilities=self._callbacks.abilities)

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def _listed(self) -> Listing:
        return self._listing

    @property
    def config_path(self) -> Path | None:
        """The path of the config file as it was given; None for a client that has no file."""
        return self._config_path

    @property
    def strict_connect(self) -> bool:
        """Whether one server that fails, or a broken entry of the config, makes entering fail."""
        return self._strict

    def on_change(self, callback: OnChange) -> None:
        """Be told of each change of lists, servers' states or the connection to the daemon.

        Args:
            callback: called in the client's event loop with `{"event": "lists"}`, `{"event": "server", …}`,
                `{"event": "daemon", …}` or another event of the daemon. It must not block.

        Raises:
            TypeError: it cannot be called.

        """
        self._watchers.add(callback)

    def _may_be_at(self, tool: str | None, server: str) -> bool:
        """Whether a request may be carried out by that server; `tool` is what it calls, if it calls one."""
        return tool is None or self._listing.may_be_at(Kind.TOOL, tool, server)

    def _changed(self, event: Mapping[str, Any]) -> None:
        """Take the new lists and status, if there are any, and tell whoever wants to be told."""
        connection = self._connection
        if connection is not None and (session := connection.session) is not None:
            self._listing = Listing(session.catalog, session.status, self._listing, connection.away)
        self._watchers.tell(event)
