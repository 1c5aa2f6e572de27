"""Many MCP servers as one, in a program: servers of its own, or those of the daemon, behind the same methods."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket as sockets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import deepcopy
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import anyio
import mcp_types as types
import msgspec
from pydantic import AnyUrl
from pydantic_core import to_jsonable_python

from ..core.catalog import Kind
from ..core.errors import INTERNAL_ERROR, METHOD_NOT_FOUND, RpcError
from ..core.lifecycle import Lost
from ..core.uri import namespaced
from .answers import error_result, in_seconds, is_unknown, mcp_error, no_paging, of_reading, only_levels
from .attachment import Attachment, attached
from .callbacks import (
    CallbackOptions,
    Callbacks,
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    SamplingFnT,
    only_callable,
)
from .capabilities import ServerCapabilities
from .hosting import Hosting, TimeLimits
from .logs import follow
from .offers import Offers
from .progress import ProgressFnT, delivery
from .sources import Source, as_json, daemon, first, is_strict, load, own_fleet

REATTACH_EVERY = 0.2
REATTACH_WITHIN = 10.0
"""Seconds between attempts to reach a daemon that is gone, and how long a call waits for it to come back."""
IN_FLIGHT = 240
"""Calls of one client at a time, further ones wait: a daemon refuses more than `limits.inFlight` (256) requests."""

OnChange: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Told of changes: `{"event": "lists"}`, `{"event": "server", …}` and the other events of the daemon."""

_log = logging.getLogger("mcp_multi_server")


class MultiServerClient:
    """Connects to several MCP servers, lists what they offer as one, and routes each request to its server.

    `async with` connects and disconnects. Listings come at once, from an index that is kept current; servers that die
    are restarted. A client can be entered again after it was left. Servers may ask what there is a callback for, and
    while they wait for it, `read_timeout_seconds` of a call stands still.
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
        self._config_path = os.path.abspath(config_path) if config_path else ""
        self._given: bytes | None = None
        self._socket: str | os.PathLike[str] | None = None
        self._attaches = False
        self._strict = is_strict(strict_connect)
        self._life: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._attached = asyncio.Event()
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._attachment: Attachment | None = None
        self._offers = Offers.none()
        self._watchers: list[OnChange] = []
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
        """A client with servers of its own, as the file says; edits of the file are followed while it is connected."""
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[CallbackOptions],
    ) -> Self:
        """A client with servers of its own. Raises pydantic.ValidationError where the config is wrong."""
        client = cls("", strict_connect=strict_connect, **callbacks)
        client._given = as_json(config_dict)
        return client

    @classmethod
    def connect(cls, socket: str | os.PathLike[str] | None = None, **callbacks: Unpack[CallbackOptions]) -> Self:
        """A client of the daemon, at this socket or where daemons usually listen."""
        client = cls("", **callbacks)
        client._attaches, client._socket = True, socket
        return client

    # -- connecting ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect; returns when each server is ready or has failed once.

        Raises:
            FileNotFoundError, json.JSONDecodeError, pydantic.ValidationError: the config cannot be used.
            ConnectionError: the daemon cannot be reached; with `strict_connect`, also where one server cannot.

        """
        if self._life is not None and not self._life.done():
            raise RuntimeError("this client is connected already")
        self._stop, self._attached = asyncio.Event(), asyncio.Event()
        self._places = asyncio.Semaphore(IN_FLIGHT)
        fleet = daemon(self._socket) if self._attaches else self._own_fleet()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(fleet, opened), name="mcp-multi-server client")
        try:
            await opened
        except BaseException:
            self._life.cancel()
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect, ending the servers of its own; does nothing where it is not connected."""
        if (life := self._life) is None:
            return
        self._stop.set()
        with anyio.CancelScope(shield=True):  # whoever is cancelled still waits until the servers have ended
            await asyncio.wait([life])
        if self._life is life:
            self._life = None
            if not life.cancelled() and (failure := life.exception()) is not None:
                _log.error("the client had ended before it was closed", exc_info=failure)

    async def connect_all(self, stack: AsyncExitStack) -> None:
        """Connect, for as long as `stack` is open."""
        await stack.enter_async_context(self)

    def _own_fleet(self) -> AbstractAsyncContextManager[Source]:
        config, abilities = load(self._config_path, self._given), self._callbacks.abilities
        return own_fleet(config, self._config_path, is_strict=self._strict, abilities=abilities)

    async def _live(self, fleet: AbstractAsyncContextManager[Source], opened: asyncio.Future[None]) -> None:
        """Be connected until told to stop. What keeps it from beginning is raised from `opened`."""
        try:
            async with fleet as source:
                refusal = await self._stay_attached(source, opened)
            if refusal:
                raise ConnectionError(refusal)
        except BaseException as failure:
            if opened.done():
                raise
            opened.set_exception(_only(failure))
        finally:
            self._attachment = None
            self._stop.set()

    async def _stay_attached(self, source: Source, opened: asyncio.Future[None]) -> str:
        """Attach, and attach again to a daemon that comes back; why it must not even begin, or ""."""
        while not self._stop.is_set():
            try:
                async with self._attach(await source.dial()) as attachment:
                    if not opened.done():
                        refusal = await source.settled(attachment)
                        self._changed({"event": "lists"})
                        if refusal:
                            return refusal
                        opened.set_result(None)
                    await first(self._stop.wait(), attachment.ended())
            except (OSError, Lost, RpcError, TimeoutError):
                if not opened.done():
                    raise ConnectionError("the daemon does not answer") from None
            self._attached.clear()
            await first(self._stop.wait(), asyncio.sleep(REATTACH_EVERY))
        return ""

    @asynccontextmanager
    async def _attach(self, connected: sockets.socket) -> AsyncIterator[Attachment]:
        async with attached(connected, self._changed, Hosting(self._callbacks, self._limits)) as attachment:
            if self._log_level is not None:
                await attachment.ask("logging/setLevel", {"level": self._log_level})
            self._attachment = attachment
            self._changed({"event": "lists"})
            self._attached.set()
            yield attachment

    # -- what there is ---------------------------------------------------------------------------------------------

    def list_tools(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListToolsResult:
        """All tools, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError."""
        no_paging(cursor, params)
        return types.ListToolsResult(tools=self._offers.tools())

    def list_prompts(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListPromptsResult:
        """All prompts, likewise."""
        no_paging(cursor, params)
        return types.ListPromptsResult(prompts=self._offers.prompts())

    def list_resources(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourcesResult:
        """All resources, with `server:uri` as their URIs, or the servers' own where `use_namespace` is False."""
        no_paging(cursor, params)
        return types.ListResourcesResult(resources=self._offers.resources(use_namespace))

    def list_resource_templates(
        self,
        cursor: str | None = None,
        use_namespace: bool = True,
        *,
        params: types.PaginatedRequestParams | None = None,
    ) -> types.ListResourceTemplatesResult:
        """All resource templates, likewise."""
        no_paging(cursor, params)
        return types.ListResourceTemplatesResult(resource_templates=self._offers.templates(use_namespace))

    @property
    def capabilities(self) -> dict[str, ServerCapabilities]:
        """What each server offers, under its own names."""
        return self._offers.capabilities()

    @property
    def tool_to_server(self) -> dict[str, str]:
        """The server of each listed tool."""
        return self._offers.servers_of(Kind.TOOL)

    @property
    def prompt_to_server(self) -> dict[str, str]:
        """The server of each listed prompt."""
        return self._offers.servers_of(Kind.PROMPT)

    def status(self) -> dict[str, Any]:
        """The state of every server and more, as `daemon/status` has it."""
        return deepcopy(dict(self._offers.status))

    def collisions(self) -> list[dict[str, Any]]:
        """The names that several servers claim: `kind`, `name`, `owner`, `shadowed`."""
        return deepcopy(list(self._offers.status.get("collisions", [])))

    def on_change(self, callback: OnChange) -> None:
        """Have `callback` told, in this client's event loop, when lists or servers' states change."""
        only_callable(callback=callback)
        self._watchers.append(callback)

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

        An unknown tool or server is a result with `is_error`. Raises mcp.MCPError for errors of the protocol, a call
        that took too long (code -32001) and a server that is away, with the server, its state and the next attempt in
        `error.data`.
        """
        if server_name is not None:
            if refusal := self._offers.refusal(Kind.TOOL, server_name, name):
                return error_result(refusal)
            name = self._offers.qualified(server_name, name)
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

    async def read_resource(self, uri: str | AnyUrl, server_name: str | None = None) -> types.ReadResourceResult:
        """Read a resource by `server:uri`, by a URI that leads to one server, or by its own URI on `server_name`.

        Raises mcp.MCPError, with code -32601 where no such server or resource is known.
        """
        target = str(uri)
        if server_name is not None:
            if not self._offers.knows(server_name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, f"Unknown server: {server_name}"))
            target = namespaced(server_name, target)
        try:
            raw = await self._ask("resources/read", {"uri": target})
        except RpcError as refused:
            raise mcp_error(of_reading(refused, target)) from None
        result = types.ReadResourceResult.model_validate_json(bytes(raw))
        if server_name is not None:
            for content in result.contents:
                content.uri = content.uri.removeprefix(f"{server_name}:")
        return result

    async def get_prompt(
        self, name: str, arguments: dict[str, str] | None = None, server_name: str | None = None
    ) -> types.GetPromptResult:
        """Get a prompt by its listed or qualified name, or by its own name on `server_name`.

        Raises mcp.MCPError, with code -32601 where no such server or prompt is known.
        """
        if server_name is not None:
            if refusal := self._offers.refusal(Kind.PROMPT, server_name, name):
                raise mcp_error(RpcError(METHOD_NOT_FOUND, refusal))
            name = self._offers.qualified(server_name, name)
        try:
            raw = await self._ask_by_name(Kind.PROMPT, "prompts/get", {"name": name, "arguments": arguments or {}})
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
        """Completions for an argument of a prompt or resource template. Raises mcp.MCPError."""
        params: dict[str, Any] = {"ref": ref.model_dump(by_alias=True, exclude_none=True), "argument": argument}
        if context_arguments:
            params["context"] = {"arguments": context_arguments}
        try:
            raw = await self._ask("completion/complete", params)
        except RpcError as refused:
            raise mcp_error(refused) from None
        return types.CompleteResult.model_validate_json(bytes(raw))

    async def set_logging_level(self, level: types.LoggingLevel) -> types.EmptyResult:
        """Have `logging_callback` told of what servers log from this level on, and the library's own logger too.

        Raises ValueError where it is no level.
        """
        only_levels(level)
        try:
            await self._ask("logging/setLevel", {"level": level})
        except RpcError as refused:
            raise mcp_error(refused) from None
        self._log_level = level
        follow(level)
        return types.EmptyResult()

    async def _ask_by_name(
        self,
        kind: Kind,
        method: str,
        params: Mapping[str, Any],
        timeout: float | timedelta | None = None,
        progress: ProgressFnT | None = None,
    ) -> msgspec.Raw:
        """Ask for a tool or prompt; where it is unknown because its server is away, wait for that one or hear why."""
        try:
            return await self._ask(method, params, timeout, progress)
        except RpcError as refused:
            qualified = self._offers.withdrawn(kind, params["name"])
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
        """A request's result; raises RpcError."""
        seconds = in_seconds(timeout, "read_timeout_seconds")
        try:
            async with delivery(progress) as report:
                with self._limits.within(seconds, partial(self._may_be_at, params.get("name"))):
                    async with self._places:
                        attachment = await self._present()
                        return await attachment.ask(method, params, timeout=math.inf, progress=report)
        except TimeoutError:
            raise RpcError(types.REQUEST_TIMEOUT, f"{method} was not answered within {seconds:g} s") from None
        except Lost as lost:
            message = f"{lost.failure.message}; the request may or may not have been carried out"
            raise RpcError(INTERNAL_ERROR, message) from None

    def _may_be_at(self, tool: str | None, server: str) -> bool:
        """Whether a call of this tool may be with that server."""
        return tool is None or self._offers.may_be_at(Kind.TOOL, tool, server)

    async def _present(self) -> Attachment:
        """The connection, waited for while a daemon is being restarted."""
        if self._life is None:
            raise RuntimeError("this client is not connected: use `async with`")
        if self._attachment is None or self._attachment.loss is not None:
            self._attached.clear()
            with anyio.move_on_after(REATTACH_WITHIN):
                await first(self._attached.wait(), self._stop.wait())
        if self._stop.is_set():
            raise RpcError(INTERNAL_ERROR, "the client is closed")
        if self._attachment is None or self._attachment.loss is not None:
            raise RpcError(INTERNAL_ERROR, "the daemon cannot be reached")
        return self._attachment

    def _changed(self, event: Mapping[str, Any]) -> None:
        if self._attachment is not None:
            self._offers = Offers(self._attachment.catalog, self._attachment.status, self._offers)
        for callback in self._watchers:
            try:
                callback(event)
            except Exception:
                _log.exception("a callback of on_change failed")


def _only(failure: BaseException) -> BaseException:
    """The failure inside a group of one."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure
