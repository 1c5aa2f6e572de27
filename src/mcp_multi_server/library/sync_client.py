"""The library without `await`: a `MultiServerClient` in an event loop of its own, in a thread of its own."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack

from mcp_types import (
    CallToolResult,
    CompleteResult,
    EmptyResult,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    LoggingLevel,
    PaginatedRequestParams,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
)
from pydantic import AnyUrl

from .background import Background
from .callbacks import (
    CallbackThreads,
    SyncCallbackOptions,
    SyncElicitationFnT,
    SyncListRootsFnT,
    SyncLoggingFnT,
    SyncSamplingFnT,
)
from .capabilities import ServerCapabilities
from .client import MultiServerClient
from .fleets import CONNECT_WITHIN
from .progress import ProgressFnT
from .watchers import OnChange


class SyncMultiServerClient:
    """`MultiServerClient` for programs without an event loop: the same methods, which return when they are done.

    Making one connects it. The end of `with`, `shutdown()` and the end of the program disconnect it. Any thread may
    call any method, several at a time. In a thread that runs an event loop, a call stops the loop while it takes.

    Callbacks for progress and `on_change` run in this client's own thread and must not call what blocks. The other
    callbacks run in threads of their own: they may block, and use this client.

    Args:
        config_path: the file that names the servers; or give `config_dict`.
        config_dict: the same as a dict; or give `config_path`.
        strict_connect: as in `MultiServerClient`, with the callbacks as plain functions.

    Raises:
        ValueError: neither or both of `config_path` and `config_dict` were given.
        FileNotFoundError: and the other exceptions that entering a `MultiServerClient` raises.
        RuntimeError: by any method: after `shutdown()`, in a forked child, or a call that blocks in a callback.
        TimeoutError: by a method with `timeout`, seconds or a `timedelta`, when it is over; the call is cancelled.

    """

    def __init__(
        self,
        config_path: str | os.PathLike[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        *,
        strict_connect: bool | None = None,
        sampling_callback: SyncSamplingFnT | None = None,
        elicitation_callback: SyncElicitationFnT | None = None,
        list_roots_callback: SyncListRootsFnT | None = None,
        logging_callback: SyncLoggingFnT | None = None,
    ) -> None:
        callbacks = CallbackThreads().awaitable(
            {
                "sampling_callback": sampling_callback,
                "elicitation_callback": elicitation_callback,
                "list_roots_callback": list_roots_callback,
                "logging_callback": logging_callback,
            }
        )
        if config_path is not None and config_dict is None:
            self._begin(MultiServerClient.from_config(config_path, strict_connect=strict_connect, **callbacks))
        elif config_dict is not None and config_path is None:
            self._begin(MultiServerClient.from_dict(config_dict, strict_connect=strict_connect, **callbacks))
        else:
            raise ValueError("give either config_path or config_dict")

    @classmethod
    def from_config(
        cls,
        config_path: str | os.PathLike[str],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client that runs the servers named in a file; edits of the file are applied."""
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client that runs the servers named in `config_dict`, which has the form of the file."""
        return cls(config_dict=config_dict, strict_connect=strict_connect, **callbacks)

    @classmethod
    def connect(
        cls,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float | timedelta = CONNECT_WITHIN,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client of the servers of the daemon at `socket`; by default, where a daemon usually listens.

        Raises:
            ConnectionError: the daemon cannot be reached, or does not answer within `timeout` seconds.

        """
        self = cls.__new__(cls)
        self._begin(MultiServerClient.connect(socket, timeout=timeout, **CallbackThreads().awaitable(callbacks)))
        return self

    def _begin(self, client: MultiServerClient) -> None:
        self._background = Background(client)
        # A client that is dropped ends its thread, which holds no reference to it. At exit `background` ends them all.
        weakref.finalize(self, self._background.forget).atexit = False
        self._background.start()

    def __enter__(self) -> Self:
        self._background.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """Cancel what runs, disconnect and end the thread. Calling it again does nothing.

        Waits until the servers have stopped, 15 s at most; called from a callback, it does not wait.
        """
        self._background.stop()

    # what is known: answered from the last listing, in the caller's thread

    @property
    def _client(self) -> MultiServerClient:
        """The client in the background. Raises RuntimeError after `shutdown`, and in a forked child."""
        self._background.check()
        return self._background.client

    @property
    def capabilities(self) -> dict[str, ServerCapabilities]:
        """By server: its lists, with the names and URIs that it gives them itself."""
        return self._client.capabilities

    @property
    def tool_to_server(self) -> dict[str, str]:
        """By the name of each listed tool: its server."""
        return self._client.tool_to_server

    @property
    def prompt_to_server(self) -> dict[str, str]:
        """By the name of each listed prompt: its server."""
        return self._client.prompt_to_server

    def status(self) -> dict[str, Any]:
        """The state of every server and more, as the control method `daemon/status` has it; a copy."""
        return self._client.status()

    def collisions(self) -> list[dict[str, Any]]:
        """The names that several servers claim: `kind`, `name`, `owner`, `shadowed`."""
        return self._client.collisions()

    def on_change(self, callback: OnChange) -> None:
        """Have `callback` called with each change of lists or servers' states, in this client's own thread."""
        self._client.on_change(callback)

    def list_tools(self, cursor: str | None = None, *, params: PaginatedRequestParams | None = None) -> ListToolsResult:
        """All tools, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError."""
        return self._client.list_tools(cursor, params=params)

    def list_prompts(
        self, cursor: str | None = None, *, params: PaginatedRequestParams | None = None
    ) -> ListPromptsResult:
        """All prompts, each with its server's name in `meta["serverName"]`. One page: a cursor raises ValueError."""
        return self._client.list_prompts(cursor, params=params)

    def list_resources(
        self, cursor: str | None = None, use_namespace: bool = True, *, params: PaginatedRequestParams | None = None
    ) -> ListResourcesResult:
        """All resources, with `server:uri` as their URIs, or the servers' own where `use_namespace` is False."""
        return self._client.list_resources(cursor, use_namespace, params=params)

    def list_resource_templates(
        self, cursor: str | None = None, use_namespace: bool = True, *, params: PaginatedRequestParams | None = None
    ) -> ListResourceTemplatesResult:
        """All resource templates, with `server:uri` or, where `use_namespace` is False, the servers' own URIs."""
        return self._client.list_resource_templates(cursor, use_namespace, params=params)

    # what is asked of a server: done by the background loop, while the caller waits

    def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | timedelta | None = None,
        progress_callback: ProgressFnT | None = None,
        timeout: float | timedelta | None = None,
        *,
        meta: dict[str, Any] | None = None,
        server_name: str | None = None,
    ) -> CallToolResult:
        """Call a tool by its listed or qualified name, or by its own name on `server_name`.

        Parameters and result are those of `MultiServerClient.call_tool`. `progress_callback` runs in this client's own
        thread.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as `MultiServerClient.call_tool`.

        """
        return self._background.call(
            lambda client: client.call_tool(
                name, arguments, read_timeout_seconds, progress_callback, meta=meta, server_name=server_name
            ),
            timeout=timeout,
            what=lambda client: _named("tool", name, server_name or client.tool_to_server.get(name)),
        )

    def read_resource(
        self,
        uri: str | AnyUrl,
        server_name: str | None = None,
        timeout: float | timedelta | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> ReadResourceResult:
        """Read a resource by `server:uri`, by a URI that leads to one server, or by its own URI on `server_name`.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as `call_tool`; code -32601 if there is no such server or no server offers the resource.

        """
        return self._background.call(
            lambda client: client.read_resource(uri, server_name, read_timeout_seconds=read_timeout_seconds),
            timeout=timeout,
            what=lambda _: _named("resource", str(uri), server_name),
        )

    def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        server_name: str | None = None,
        timeout: float | timedelta | None = None,
        *,
        read_timeout_seconds: float | timedelta | None = None,
    ) -> GetPromptResult:
        """Get a prompt by its listed or qualified name, or by its own name on `server_name`.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as `call_tool`; code -32601 if there is no such server or prompt.

        """
        return self._background.call(
            lambda client: client.get_prompt(name, arguments, server_name, read_timeout_seconds=read_timeout_seconds),
            timeout=timeout,
            what=lambda client: _named("prompt", name, server_name or client.prompt_to_server.get(name)),
        )

    def complete(
        self,
        ref: PromptReference | ResourceTemplateReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
        timeout: float | timedelta | None = None,
    ) -> CompleteResult:
        """Completions for an argument of a prompt or resource template, with the parameters of `MultiServerClient`.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as `call_tool`.

        """
        return self._background.call(
            lambda client: client.complete(ref, argument, context_arguments),
            timeout=timeout,
            what=lambda _: f"completion of {(ref.name if isinstance(ref, PromptReference) else ref.uri)!r}",
        )

    def set_logging_level(self, level: LoggingLevel, timeout: float | timedelta | None = None) -> EmptyResult:
        """Have `logging_callback` called with the servers' log messages of this level and above.

        It sets the level of the library's own logger, too.

        Raises:
            ValueError: there is no such level.
            TimeoutError: after `timeout`.

        """
        return self._background.call(
            lambda client: client.set_logging_level(level), timeout=timeout, what=lambda _: f"logging level {level!r}"
        )


def _named(kind: str, name: str, server: str | None) -> str:
    """What did not answer in time, for the error."""
    return f"{kind} {name!r}" + (f" of server {server!r}" if server else "")
