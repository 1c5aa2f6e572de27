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
    LoggingLevel,
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
from .client import MultiServerClient
from .fleets import CONNECT_WITHIN
from .overview import Overview
from .progress import ProgressFnT
from .watchers import OnChange


class SyncMultiServerClient(Overview):
    """`MultiServerClient` for programs without an event loop: the same methods, which return when they are done.

    Making one connects it. The end of `with`, `shutdown()` and the end of the program disconnect it. Any thread may
    call any method, several at a time. In a thread that runs an event loop, a call stops the loop while it takes.

    Callbacks for progress and `on_change` run in this client's own thread and must not call what blocks. The other
    callbacks run in threads of their own: they may block, and use this client.

    Args:
        config_path: the file that names the servers; or give `config_dict`.
        config_dict: the same as a dict; or give `config_path`.
        strict_connect: whether one server that fails, or a broken entry of the config, makes connecting fail. Default:
            whether the variable `MCP_MULTI_SERVER_STRICT_CONNECT` is `1`.
        sampling_callback: has a language model write a message for a server; like the next three, a plain function.
        elicitation_callback: asks the user something for a server.
        list_roots_callback: lists the directories that servers may use.
        logging_callback: gets the servers' log messages, once `set_logging_level` was called.

    Raises:
        ValueError: neither or both of `config_path` and `config_dict` were given.
        FileNotFoundError: there is no such file.
        json.JSONDecodeError: the file is not JSON.
        pydantic.ValidationError: the config is wrong as a whole, or has no entry that is right; with
            `strict_connect`, also if one entry is wrong.
        ConnectionError: with `strict_connect`, a server cannot be connected.
        TypeError: a callback cannot be called.
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
            raise ValueError("Exactly one of config_path and config_dict must be given")

    @classmethod
    def from_config(
        cls,
        config_path: str | os.PathLike[str],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client that runs the servers named in a file; edits of the file are applied.

        Args:
            config_path: the file.
            strict_connect: as in the class.
            **callbacks: those of the class.

        Raises:
            FileNotFoundError, json.JSONDecodeError, pydantic.ValidationError, ConnectionError: as in the class.

        """
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client that runs the servers named in a dict.

        Args:
            config_dict: what a config file holds; the `model_dump()` of an `MCPServersConfig`, for example.
            strict_connect: as in the class.
            **callbacks: those of the class.

        Raises:
            pydantic.ValidationError, ConnectionError: as in the class.

        """
        return cls(config_dict=config_dict, strict_connect=strict_connect, **callbacks)

    @classmethod
    def connect(
        cls,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float | timedelta = CONNECT_WITHIN,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """A connected client of the servers of the daemon, which may go and come back: it connects again by itself.

        Args:
            socket: the path of the daemon's socket. Default: where a daemon usually listens.
            timeout: seconds, or a `timedelta`, in which the daemon must answer.
            **callbacks: those of the class.

        Raises:
            ConnectionError: the daemon cannot be reached, or does not answer in time.
            TypeError, ValueError: `timeout` is no time.

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

    def on_change(self, callback: OnChange) -> None:
        """Be told of each change of lists, servers' states or the connection to the daemon.

        Args:
            callback: called in this client's own thread with `{"event": "lists"}`, `{"event": "server", …}`,
                `{"event": "daemon", …}` or another event of the daemon. It must not call what blocks.

        Raises:
            TypeError: it cannot be called.
            RuntimeError: the client is shut down.

        """
        self._client.on_change(callback)

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
        """Call a tool and wait for its result.

        Args:
            name: the tool's name: as `list_tools` has it, or `server__name`.
            arguments: the tool's arguments by name, as its input schema wants them: anything that can be JSON.
            read_timeout_seconds: seconds, or a `timedelta`, that the server may take, more or less than the `timeout`
                of its entry. Default: that `timeout` (60 s), renewed by each progress report. `math.inf` for no limit.
            progress_callback: an `async` function, awaited in this client's own thread with
                `(progress, total, message)` for each report of progress, in order; `total` and `message` are None where
                the server does not say.
            timeout: seconds, or a `timedelta`, that the caller waits; then the call is cancelled. Default: no limit.
            meta: a dict that goes along as the request's `_meta`.
            server_name: the server whose tool it is; `name` is then the name that this server gives it.

        Returns:
            What the tool returned: `content` (a list of texts, images and so on), `structured_content` (a dict or
            None), `is_error` and `meta`. `is_error` is set if the tool failed, or if there is no such tool or server.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: the server answered with an error of the protocol, the call took too long (code -32001) or is
                longer than `daemon.limits.clientLine` allows (-32600), or the server is away or was lost (-32603); then
                `error.data` has the server, its state, the reason and the time of the next attempt.
            pydantic.ValidationError: what the server returned is no result of a tool.
            RuntimeError: the client is shut down, or its own thread would wait for itself.
            TypeError, ValueError: a time limit is no time, or `arguments` or `meta` cannot be JSON.

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
        """Read a resource.

        Args:
            uri: `server:uri`, as `list_resources` has it, or a URI that leads to one server.
            server_name: the server whose resource it is; `uri` is then the URI that this server gives it.
            timeout: as in `call_tool`.
            read_timeout_seconds: as in `call_tool`.

        Returns:
            Its `contents`: a list, each with `uri`, `mime_type` and `text`, or `blob` in base64.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as in `call_tool`; code -32601 if there is no such server or no server offers the resource,
                -32602 if its server does not have it.
            pydantic.ValidationError: what the server returned is no content of a resource.
            RuntimeError: the client is shut down, or its own thread would wait for itself.
            TypeError, ValueError: a time limit is no time.

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
        """Get a prompt.

        Args:
            name: the prompt's name: as `list_prompts` has it, or `server__name`.
            arguments: the prompt's arguments by name; their values are strings.
            server_name: the server whose prompt it is; `name` is then the name that this server gives it.
            timeout: as in `call_tool`.
            read_timeout_seconds: as in `call_tool`.

        Returns:
            Its `messages`, each with `role` and `content`, and a `description` or None.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as in `call_tool`; code -32601 if there is no such server or prompt.
            pydantic.ValidationError: what the server returned is no prompt.
            RuntimeError: the client is shut down, or its own thread would wait for itself.
            TypeError, ValueError: a time limit is no time, or `arguments` cannot be JSON.

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
        """Ask for completions of an argument of a prompt or template.

        Args:
            ref: the prompt or template.
            argument: its `name`, and as `value` what is written of it so far.
            context_arguments: the arguments that are already known, by name.
            timeout: as in `call_tool`.

        Returns:
            In `completion`: `values`, a list of at most 100 strings, `total` and `has_more`.

        Raises:
            TimeoutError: after `timeout`.
            mcp.MCPError: as in `call_tool`.
            pydantic.ValidationError: what the server returned is no completion.
            RuntimeError: the client is shut down, or its own thread would wait for itself.
            TypeError, ValueError: `timeout` is no time.

        """
        return self._background.call(
            lambda client: client.complete(ref, argument, context_arguments),
            timeout=timeout,
            what=lambda _: f"completion of {(ref.name if isinstance(ref, PromptReference) else ref.uri)!r}",
        )

    def set_logging_level(self, level: LoggingLevel, timeout: float | timedelta | None = None) -> EmptyResult:
        """Have `logging_callback` called with the servers' log messages of this level and above.

        It sets the level of the library's own logger, too.

        Args:
            level: `debug`, `info`, `notice`, `warning`, `error`, `critical`, `alert` or `emergency`.
            timeout: as in `call_tool`.

        Returns:
            Nothing in it: `EmptyResult`.

        Raises:
            ValueError: there is no such level, or `timeout` is no time.
            TypeError: `timeout` is no time.
            TimeoutError: after `timeout`.
            mcp.MCPError: the daemon is away.
            RuntimeError: the client is shut down, or its own thread would wait for itself.

        """
        return self._background.call(
            lambda client: client.set_logging_level(level), timeout=timeout, what=lambda _: f"logging level {level!r}"
        )


def _named(kind: str, name: str, server: str | None) -> str:
    """What did not answer in time, for the error."""
    return f"{kind} {name!r}" + (f" of server {server!r}" if server else "")
