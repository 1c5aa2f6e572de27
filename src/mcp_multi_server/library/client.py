"""Many MCP servers as one, in a program: servers of its own, or those of the daemon, behind the same methods."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from copy import deepcopy
from datetime import timedelta
from functools import partial
from time import time
from types import TracebackType
from typing import Any, Self, Unpack

import mcp_types as types
import msgspec
from pydantic import AnyUrl
from pydantic_core import to_jsonable_python

from ..core.catalog import Kind
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.uri import namespaced
from ..servers.clock import iso
from .away import Away
from .callbacks import (
    CallbackOptions,
    Callbacks,
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    SamplingFnT,
)
from .capabilities import ServerCapabilities
from .config import as_json, is_strict, load
from .connection import FleetConnection
from .errors import check_level, check_single_page, error_result, in_seconds, is_unknown, mcp_error, read_error
from .fleets import CONNECT_WITHIN, FleetAccess, daemon_fleet, own_fleet
from .listing import Listing
from .logs import set_own_level
from .progress import ProgressFnT
from .time_limits import TimeLimits
from .watchers import OnChange, Watchers

_log = logging.getLogger("mcp_multi_server")


class MultiServerClient:
    """Connects to several MCP servers, lists what they offer as one, and routes each request to its server.

    `async with` connects and disconnects; a client can be connected again afterwards. Entering returns when each server
    is ready or has failed once. Lists need no waiting, and servers that die are restarted. Servers may make the input
    requests for which there is a callback; while they wait for its answer, `read_timeout_seconds` of the calls
    concerned is paused.

    Args:
        config_path: the file that names the servers. Edits of it are applied while the client is connected.
        strict_connect: whether one server that fails makes entering fail. Default: whether the variable
            `MCP_MULTI_SERVER_STRICT_CONNECT` is `1`.
        sampling_callback: has a language model write a message for a server.
        elicitation_callback: asks the user something for a server.
        list_roots_callback: lists the directories that servers may use.
        logging_callback: gets the servers' log messages, once `set_logging_level` was called.

    Raises:
        FileNotFoundError: there is no such file (on entering, as all of these).
        json.JSONDecodeError: the file is not JSON.
        pydantic.ValidationError: the config is wrong.
        ConnectionError: the daemon cannot be reached; with `strict_connect`, a server cannot be connected.
        RuntimeError: the client is connected already. Methods that need a connection raise it where there is none.

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
        self._config_path = os.path.abspath(config_path) if config_path else ""
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
        """A client that runs the servers named in a file; the same as the constructor."""
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client that runs the servers named in `config_dict`, which has the form of the file.

        Raises:
            pydantic.ValidationError: the config is wrong.

        """
        client = cls("", strict_connect=strict_connect, **callbacks)
        client._given = as_json(config_dict)  # now, for its errors, and since the program may change the dict
        return client

    @classmethod
    def connect(
        cls,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float | timedelta = CONNECT_WITHIN,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client of the servers of the daemon at `socket`; by default, where a daemon usually listens.

        On entering, it must answer within `timeout` seconds. Later it may go and come back: the client connects again.
        """
        client = cls("", **callbacks)
        client._daemon = partial(daemon_fleet, socket, in_seconds(timeout, "timeout"))
        return client

    # -- connecting ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect; returns when each server is ready or has failed once. Raises what the class says."""
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
        """Connect until `stack` is closed."""
        await stack.enter_async_context(self)

    def _own_fleet(self) -> AbstractAsyncContextManager[FleetAccess]:
        config, abilities = load(self._config_path, self._given), self._callbacks.abilities
        return own_fleet(config, self._config_path, is_strict=self._strict, abilities=abilities)

    # -- what there is ---------------------------------------------------------------------------------------------

    def list_tools(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListToolsResult:
        """All tools, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError."""
        check_single_page(cursor, params)
        return types.ListToolsResult(tools=self._listing.tools())

    def list_prompts(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListPromptsResult:
        """All prompts, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError."""
        check_single_page(cursor, params)
        return types.ListPromptsResult(prompts=self._listing.prompts())

    def list_resources(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourcesResult:
        """All resources, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError.

        Their URIs are `server:uri`, by which they can be read; the servers' own if `use_namespace` is False.
        """
        check_single_page(cursor, params)
        return types.ListResourcesResult(resources=self._listing.resources(use_namespace))

    def list_resource_templates(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourceTemplatesResult:
        """All resource templates; their URIs are as in `list_resources`."""
        check_single_page(cursor, params)
        return types.ListResourceTemplatesResult(resource_templates=self._listing.templates(use_namespace))

    @property
    def capabilities(self) -> dict[str, ServerCapabilities]:
        """By server: its lists, with the names and URIs that it gives them itself."""
        return self._listing.capabilities()

    @property
    def tool_to_server(self) -> dict[str, str]:
        """By the name of each listed tool: its server."""
        return self._listing.servers_of(Kind.TOOL)

    @property
    def prompt_to_server(self) -> dict[str, str]:
        """By the name of each listed prompt: its server."""
        return self._listing.servers_of(Kind.PROMPT)

    def status(self) -> dict[str, Any]:
        """The state of every server and more, as the control method `daemon/status` has it; a copy.

        `connected` says whether it is of now. If not, `away` says since when and why, and states are `unknown`.
        """
        return deepcopy(dict(self._listing.status))  # the program may change what it gets

    def collisions(self) -> list[dict[str, Any]]:
        """The names that several servers claim: `kind`, `name`, `owner`, `shadowed`."""
        return deepcopy(list(self._listing.status.get("collisions", [])))

    def on_change(self, callback: OnChange) -> None:
        """Have `callback` called with each change of lists or servers' states, in the client's event loop.

        It gets `{"event": "lists"}`, `{"event": "server", …}`, `{"event": "daemon", …}` or another event of the daemon,
        and must not block.
        """
        self._watchers.add(callback)

    # -- what can be done ------------------------------------------------------------------------------------------

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | timedelta | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        meta: dict[str, Any] | None = None,
        server_name: str | None = None,
    ) -> types.CallToolResult:
        """Call a tool by its listed or qualified name, or by its own name on `server_name`.

        Args:
            name: the tool's name.
            arguments: the tool's arguments, as its input schema wants them.
            read_timeout_seconds: how long the call may take, more or less than the `timeout` of the server's entry.
                Default: that `timeout` (60 s), renewed by each progress report. `math.inf` for no limit.
            progress_callback: awaited with progress, total and message of each progress report.
            meta: the request's `_meta`.
            server_name: the server whose tool it is.

        Returns:
            What the tool returned. `is_error` is set if the tool failed, or if there is no such tool or server.

        Raises:
            mcp.MCPError: the server answered with an error of the protocol, the call took too long (code -32001), or
                the server is away or was lost; then `error.data` has the server, its state, the reason and the time of
                the next attempt. If the daemon is away or was lost, it has the reason, and in `sent` if it was sent.

        """
        if server_name is not None:
            if refusal := self._listing.refusal(Kind.TOOL, server_name, name):
                return error_result(refusal)
            name = self._listing.qualified(server_name, name)
        params: dict[str, Any] = {"name": name, "arguments": to_jsonable_python(arguments or {})}
        if meta:
            params["_meta"] = to_jsonable_python(meta)
        try:
            raw = await self._ask_by_name(Kind.TOOL, "tools/call", params, read_timeout_seconds, progress_callback)
        except RpcError as refused:
            if is_unknown(refused, "Unknown tool"):
                return error_result(f"Unknown tool: {name}")
            raise mcp_error(refused) from None
        return types.CallToolResult.model_validate_json(bytes(raw))

    async def read_resource(
        self,
        uri: str | AnyUrl,
        server_name: str | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> types.ReadResourceResult:
        """Read a resource by `server:uri`, by a URI that leads to one server, or by its own URI on `server_name`.

        `read_timeout_seconds` is as in `call_tool`.

        Raises:
            mcp.MCPError: as `call_tool`; code -32601 if there is no such server or no server offers the resource.

        """
        target = str(uri)
        if server_name is not None:
            if not self._listing.knows(server_name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, f"Unknown server: {server_name}"))
            target = namespaced(server_name, target)
        try:
            raw = await self._ask("resources/read", {"uri": target}, read_timeout_seconds)
        except RpcError as refused:
            raise mcp_error(read_error(refused, target)) from None
        result = types.ReadResourceResult.model_validate_json(bytes(raw))
        if server_name is not None:  # a URI comes back in the form in which it was asked for
            for content in result.contents:
                content.uri = content.uri.removeprefix(f"{server_name}:")
        return result

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        server_name: str | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> types.GetPromptResult:
        """Get a prompt by its listed or qualified name, or by its own name on `server_name`.

        `read_timeout_seconds` is as in `call_tool`.

        Raises:
            mcp.MCPError: as `call_tool`; code -32601 if there is no such server or prompt.

        """
        if server_name is not None:
            if refusal := self._listing.refusal(Kind.PROMPT, server_name, name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, refusal))
            name = self._listing.qualified(server_name, name)
        params = {"name": name, "arguments": arguments or {}}
        try:
            raw = await self._ask_by_name(Kind.PROMPT, "prompts/get", params, read_timeout_seconds)
        except RpcError as refused:
            if is_unknown(refused, "Unknown prompt"):
                refused = RpcError(METHOD_NOT_FOUND, refused.message)
            raise mcp_error(refused) from None
        return types.GetPromptResult.model_validate_json(bytes(raw))

    async def complete(
        self,
        ref: types.PromptReference | types.ResourceTemplateReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
    ) -> types.CompleteResult:
        """Completions for an argument of a prompt or template.

        Args:
            ref: the prompt or template.
            argument: its `name`, and as `value` what is written of it so far.
            context_arguments: the arguments that are already known.

        Raises:
            mcp.MCPError: as `call_tool`.

        """
        params: dict[str, Any] = {"ref": ref.model_dump(by_alias=True, exclude_none=True), "argument": argument}
        if context_arguments:
            params["context"] = {"arguments": context_arguments}
        try:
            raw = await self._ask("completion/complete", params)
        except RpcError as refused:
            raise mcp_error(refused) from None
        return types.CompleteResult.model_validate_json(bytes(raw))

    async def set_logging_level(self, level: types.LoggingLevel) -> types.EmptyResult:
        """Have `logging_callback` called with the servers' log messages of this level and above.

        It sets the level of the library's own logger, too, and lasts when the client connects again.

        Raises:
            ValueError: there is no such level.

        """
        check_level(level)
        try:
            await self._ask("logging/setLevel", {"level": level})
        except RpcError as refused:
            raise mcp_error(refused) from None
        self._log_level = level
        if self._connection is not None:
            self._connection.log_level = level
        set_own_level(level)
        return types.EmptyResult()

    async def _ask_by_name(
        self,
        kind: Kind,
        method: str,
        params: Mapping[str, Any],
        timeout: float | timedelta | None = None,
        progress: ProgressFnT | None = None,
    ) -> msgspec.Raw:
        """The result of a request for a tool or prompt. Raises RpcError.

        A name may be withdrawn from the lists while its server is away. Then the request is made once more by the
        qualified name, which leads to that server: the fleet waits for it, or says why it is away.
        """
        try:
            return await self._ask(method, params, timeout, progress)
        except RpcError as refused:
            qualified = self._listing.withdrawn(kind, params["name"])
            if qualified is None or not is_unknown(refused, f"Unknown {kind.value}"):
                raise
        return await self._ask(method, {**params, "name": qualified}, timeout, progress)

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        timeout: float | timedelta | None = None,
        progress: ProgressFnT | None = None,
    ) -> msgspec.Raw:
        """A request's result. Raises RpcError, also for a time limit that is over and a session that was lost."""
        if self._connection is None:
            raise RuntimeError("this client is not connected: use `async with`")
        return await self._connection.request(method, params, in_seconds(timeout, "read_timeout_seconds"), progress)

    def _may_be_at(self, tool: str | None, server: str) -> bool:
        """Whether a request may be carried out by that server; `tool` is what it calls, if it calls one."""
        return tool is None or self._listing.may_be_at(Kind.TOOL, tool, server)

    def _changed(self, event: Mapping[str, Any]) -> None:
        """Take the new lists and status, if there are any, and tell whoever wants to be told."""
        connection = self._connection
        if connection is not None and (session := connection.session) is not None:
            self._listing = Listing(session.catalog, session.status, self._listing, connection.away)
        self._watchers.tell(event)
