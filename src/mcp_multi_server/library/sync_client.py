"""The library without `await`: a `MultiServerClient` in an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from datetime import timedelta
from threading import Thread, get_ident
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from warnings import warn

import anyio
from anyio.from_thread import BlockingPortal
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

from .callbacks import (
    OffLoop,
    SyncCallbackOptions,
    SyncElicitationFnT,
    SyncListRootsFnT,
    SyncLoggingFnT,
    SyncSamplingFnT,
)
from .capabilities import ServerCapabilities
from .client import MultiServerClient, OnChange
from .errors import in_seconds
from .progress import ProgressFnT

T = TypeVar("T")
STOP_WITHIN = 15.0
"""How long anybody waits for servers to stop; those that need longer are killed when the program ends."""
_SHUT_DOWN = "this SyncMultiServerClient is shut down; make a new one"
_SHUT_DOWN_MEANWHILE = "this SyncMultiServerClient was shut down before the call ended"
_FORKED = "this SyncMultiServerClient was made before the process forked, its event loop stayed behind; make a new one"
_OWN_LOOP = (
    "a callback of SyncMultiServerClient must not wait for the event loop that runs it: "
    "hand the call to another thread, or use MultiServerClient"
)
_log = logging.getLogger(__name__)
_living: set[_Background] = set()


class SyncMultiServerClient:
    """`MultiServerClient` for programs without an event loop: the same methods, which return when they are done.

    Made is connected; `with`, `shutdown()` or the end of the program disconnects. Every method may be called from any
    thread, several at a time, also from one that runs an event loop (which then stands still for as long). What
    `on_change` and progress call runs in this client's own thread, and what blocks raises RuntimeError there; so does
    everything after `shutdown()` and in a forked child. The callbacks that answer servers, and the one for their log
    messages, run in threads of their own: they may block, and use this client. Where `timeout`, seconds or a timedelta,
    is given and over, the call is cancelled and raises TimeoutError.
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
        callbacks = OffLoop().options(
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
        """See MultiServerClient; connects."""
        return cls(config_path, strict_connect=strict_connect, **callbacks)

    @classmethod
    def from_dict(
        cls,
        config_dict: Mapping[str, Any],
        *,
        strict_connect: bool | None = None,
        **callbacks: Unpack[SyncCallbackOptions],
    ) -> Self:
        """See MultiServerClient; connects."""
        return cls(config_dict=config_dict, strict_connect=strict_connect, **callbacks)

    @classmethod
    def connect(cls, socket: str | os.PathLike[str] | None = None, **callbacks: Unpack[SyncCallbackOptions]) -> Self:
        """See MultiServerClient; connects."""
        self = cls.__new__(cls)
        self._begin(MultiServerClient.connect(socket, **OffLoop().options(callbacks)))
        return self

    def _begin(self, client: MultiServerClient) -> None:
        self._background = _Background(client)
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
        """Cancel what runs, disconnect and end the thread; a second time is nothing.

        Waits until the servers have stopped, 15 s at most; called from a callback, it does not wait.
        """
        self._background.stop()

    # what is known: answered from the index, in the caller's thread

    @property
    def _client(self) -> MultiServerClient:
        self._background.check()
        return self._background.client

    @property
    def capabilities(self) -> dict[str, ServerCapabilities]:
        """See MultiServerClient."""
        return self._client.capabilities

    @property
    def tool_to_server(self) -> dict[str, str]:
        """See MultiServerClient."""
        return self._client.tool_to_server

    @property
    def prompt_to_server(self) -> dict[str, str]:
        """See MultiServerClient."""
        return self._client.prompt_to_server

    def status(self) -> dict[str, Any]:
        """See MultiServerClient."""
        return self._client.status()

    def collisions(self) -> list[dict[str, Any]]:
        """See MultiServerClient."""
        return self._client.collisions()

    def on_change(self, callback: OnChange) -> None:
        """See MultiServerClient; `callback` runs in this client's own thread."""
        self._client.on_change(callback)

    def list_tools(self, cursor: str | None = None, *, params: PaginatedRequestParams | None = None) -> ListToolsResult:
        """See MultiServerClient."""
        return self._client.list_tools(cursor, params=params)

    def list_prompts(
        self, cursor: str | None = None, *, params: PaginatedRequestParams | None = None
    ) -> ListPromptsResult:
        """See MultiServerClient."""
        return self._client.list_prompts(cursor, params=params)

    def list_resources(
        self, cursor: str | None = None, use_namespace: bool = True, *, params: PaginatedRequestParams | None = None
    ) -> ListResourcesResult:
        """See MultiServerClient."""
        return self._client.list_resources(cursor, use_namespace, params=params)

    def list_resource_templates(
        self, cursor: str | None = None, use_namespace: bool = True, *, params: PaginatedRequestParams | None = None
    ) -> ListResourceTemplatesResult:
        """See MultiServerClient."""
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
        """See MultiServerClient. A progress callback runs in this client's own thread."""
        client = self._client
        return self._background.call(
            lambda: client.call_tool(
                name, arguments, read_timeout_seconds, progress_callback, meta=meta, server_name=server_name
            ),
            timeout=timeout,
            what=lambda: _named("tool", name, server_name or client.tool_to_server.get(name)),
        )

    def read_resource(
        self, uri: str | AnyUrl, server_name: str | None = None, timeout: float | timedelta | None = None
    ) -> ReadResourceResult:
        """See MultiServerClient."""
        client = self._client
        return self._background.call(
            lambda: client.read_resource(uri, server_name),
            timeout=timeout,
            what=lambda: _named("resource", str(uri), server_name),
        )

    def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        server_name: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> GetPromptResult:
        """See MultiServerClient."""
        client = self._client
        return self._background.call(
            lambda: client.get_prompt(name, arguments, server_name),
            timeout=timeout,
            what=lambda: _named("prompt", name, server_name or client.prompt_to_server.get(name)),
        )

    def complete(
        self,
        ref: PromptReference | ResourceTemplateReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
        timeout: float | timedelta | None = None,
    ) -> CompleteResult:
        """See MultiServerClient."""
        client = self._client
        return self._background.call(
            lambda: client.complete(ref, argument, context_arguments),
            timeout=timeout,
            what=lambda: _named("completion of", ref.name if isinstance(ref, PromptReference) else ref.uri, None),
        )

    def set_logging_level(self, level: LoggingLevel, timeout: float | timedelta | None = None) -> EmptyResult:
        """See MultiServerClient."""
        client = self._client
        return self._background.call(
            lambda: client.set_logging_level(level), timeout=timeout, what=lambda: _named("logging level", level, None)
        )


class _Background:
    """The thread, its event loop and the client that lives there: made by a SyncMultiServerClient, ended by `stop`.

    It holds nothing of the SyncMultiServerClient, so that one that is dropped can be collected, and ends the thread.
    """

    def __init__(self, client: MultiServerClient) -> None:
        self.client = client
        self._pid = os.getpid()
        self._thread = Thread(target=self._run, name=SyncMultiServerClient.__name__, daemon=True)
        self._connected: Future[BlockingPortal] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False

    def start(self) -> None:
        """Connect. Raises what connecting raised."""
        self._thread.start()
        try:
            self._portal = self._connected.result()
        except BaseException:
            self.stop()
            raise

    def _run(self) -> None:
        _living.add(self)
        try:
            anyio.run(self._live)
        except BaseException as failure:
            if self._connected.done():
                raise
            self._connected.set_exception(failure)
        finally:
            self._over = True
            _living.discard(self)
            self._connected.cancel()

    async def _live(self) -> None:
        """Be connected until `end`, which cancels connecting or the calls, but never disconnecting."""
        with anyio.CancelScope() as self._ending:
            self._loop = asyncio.get_running_loop()
            if self._over:
                return
            async with self.client:
                with anyio.CancelScope() as self._ending:
                    async with BlockingPortal() as portal:
                        self._connected.set_result(portal)
                        await anyio.sleep_forever()

    def call(
        self, operation: Callable[[], Awaitable[T]], *, timeout: float | timedelta | None, what: Callable[[], str]
    ) -> T:
        """What the operation returns or raises. Waits; what nobody waits for any longer is cancelled."""
        if get_ident() == self._thread.ident:
            raise RuntimeError(_OWN_LOOP)
        seconds = in_seconds(timeout, "timeout")
        try:
            future = self._portal.start_task_soon(operation)
        except RuntimeError:  # it was shut down at this very moment
            raise RuntimeError(_SHUT_DOWN) from None
        try:
            return future.result(seconds)
        except TimeoutError:
            if not future.cancel():  # it ended after all, or the error is its own
                return future.result()
            raise TimeoutError(f"{what()} did not answer within {seconds:g} s, the call was cancelled") from None
        except CancelledError:
            raise RuntimeError(_SHUT_DOWN_MEANWHILE) from None
        finally:
            future.cancel()  # whatever else ended the wait, such as Ctrl-C; where it is done that does nothing

    def check(self) -> None:
        """Raise RuntimeError where this client is of no use (any more)."""
        if os.getpid() != self._pid:
            raise RuntimeError(_FORKED)
        if self._over:
            raise RuntimeError(_SHUT_DOWN)

    def end(self) -> None:
        """Tell the loop to end; waits for nothing."""
        self._over = True
        if self._loop is not None and os.getpid() == self._pid:  # a forked child shares the parent's wake-up socket
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(lambda: self._ending.cancel())

    def stop(self) -> None:
        """Tell the loop to end and wait until it has."""
        self.end()
        if get_ident() == self._thread.ident or os.getpid() != self._pid:
            return
        self._thread.join(STOP_WITHIN)
        if self._thread.is_alive():
            _log.warning("servers are still stopping after %g s, or a callback does not return", STOP_WITHIN)

    def forget(self) -> None:
        """End, as nobody can call any more. The garbage collector may be running: nothing may wait here."""
        if not self._over:
            self.end()
            warn("a SyncMultiServerClient was dropped without shutdown()", ResourceWarning, stacklevel=3)


@atexit.register
def _stop_all() -> None:
    for background in tuple(_living):
        background.end()
    for background in tuple(_living):
        background.stop()


def _named(kind: str, name: str, server: str | None) -> str:
    return f"{kind} {name!r}" + (f" of server {server!r}" if server else "")
