"""The callbacks by which a program answers servers and hears what they log."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypedDict, TypeVar

import anyio
import anyio.to_thread
import mcp_types as types

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
THREADS = 64
"""Synchronous callbacks of one client that run at a time; further ones wait."""

Sampled: TypeAlias = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData
Elicited: TypeAlias = types.ElicitResult | types.ErrorData
Roots: TypeAlias = types.ListRootsResult | types.ErrorData


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequestContext:
    """Which server asks: the first argument of the callbacks that answer servers.

    Attributes:
        server_name: the server, by its name in the config.
        request_id: the id of the server's request.
        meta: the `_meta` of its request; None where it has none.

    """

    server_name: str
    request_id: int | str
    meta: dict[str, Any] | None = None


class SamplingFnT(Protocol):
    """Has a language model write the next message for a server."""

    async def __call__(self, context: ServerRequestContext, params: types.CreateMessageRequestParams, /) -> Sampled:
        """The message; `ErrorData` refuses."""


class ElicitationFnT(Protocol):
    """Asks the user something for a server."""

    async def __call__(self, context: ServerRequestContext, params: types.ElicitRequestParams, /) -> Elicited:
        """What the user said, or that they would not."""


class ListRootsFnT(Protocol):
    """Names the directories that a server may work on."""

    async def __call__(self, context: ServerRequestContext, /) -> Roots:
        """The roots."""


class LoggingFnT(Protocol):
    """Takes the log messages of servers, one after another."""

    async def __call__(self, params: types.LoggingMessageNotificationParams, /) -> None:
        """`params.meta["serverName"]` says whose message it is."""


class SyncSamplingFnT(Protocol):
    """`SamplingFnT` without await."""

    def __call__(self, context: ServerRequestContext, params: types.CreateMessageRequestParams, /) -> Sampled:
        """The message; `ErrorData` refuses."""


class SyncElicitationFnT(Protocol):
    """`ElicitationFnT` without await."""

    def __call__(self, context: ServerRequestContext, params: types.ElicitRequestParams, /) -> Elicited:
        """What the user said, or that they would not."""


class SyncListRootsFnT(Protocol):
    """`ListRootsFnT` without await."""

    def __call__(self, context: ServerRequestContext, /) -> Roots:
        """The roots."""


class SyncLoggingFnT(Protocol):
    """`LoggingFnT` without await."""

    def __call__(self, params: types.LoggingMessageNotificationParams, /) -> None:
        """`params.meta["serverName"]` says whose message it is."""


class CallbackOptions(TypedDict, total=False):
    """The keyword arguments of `MultiServerClient` that take callbacks."""

    sampling_callback: SamplingFnT | None
    elicitation_callback: ElicitationFnT | None
    list_roots_callback: ListRootsFnT | None
    logging_callback: LoggingFnT | None


class SyncCallbackOptions(TypedDict, total=False):
    """The keyword arguments of `SyncMultiServerClient` that take callbacks."""

    sampling_callback: SyncSamplingFnT | None
    elicitation_callback: SyncElicitationFnT | None
    list_roots_callback: SyncListRootsFnT | None
    logging_callback: SyncLoggingFnT | None


def check_callable(**callbacks: object) -> None:
    """Raises TypeError if one of these is neither None nor callable; the names are those of the arguments."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(f"{name} must be callable, not {type(callback).__name__}")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks that a client was made with. Raises TypeError for one that cannot be called."""

    sampling: SamplingFnT | None = None
    elicitation: ElicitationFnT | None = None
    list_roots: ListRootsFnT | None = None
    logging: LoggingFnT | None = None

    def __post_init__(self) -> None:
        check_callable(**{f"{name}_callback": getattr(self, name) for name in self.__slots__})

    @property
    def abilities(self) -> frozenset[str]:
        """The client capabilities for which there is a callback; servers are told of no other."""
        given = {"sampling": self.sampling, "elicitation": self.elicitation, "roots": self.list_roots}
        return frozenset(name for name, callback in given.items() if callback is not None)


class CallbackThreads:
    """Runs the synchronous callbacks of one client in threads, so that they may block, and use the client as well.

    `SyncMultiServerClient` makes one. There is nothing to end: threads that idle are left to the event loop.
    """

    def __init__(self) -> None:
        # Of our own: callbacks that block could fill the 40 places that everything else in the loop shares.
        self._places = anyio.CapacityLimiter(THREADS)

    def awaitable(self, given: SyncCallbackOptions) -> CallbackOptions:
        """The callbacks as a `MultiServerClient` takes them. Raises TypeError for one that cannot be called."""
        check_callable(**given)
        return {
            "sampling_callback": self._of_two(given.get("sampling_callback")),
            "elicitation_callback": self._of_two(given.get("elicitation_callback")),
            "list_roots_callback": self._of_one(given.get("list_roots_callback")),
            "logging_callback": self._of_one(given.get("logging_callback")),
        }

    # One wrapper for each number of arguments: a single one for all would hide their types from the checker.

    def _of_one(self, callback: Callable[[A], T] | None) -> Callable[[A], Coroutine[Any, Any, T]] | None:
        if callback is None:
            return None

        async def answer(first: A, /) -> T:
            return await self._run(partial(callback, first))

        return answer

    def _of_two(self, callback: Callable[[A, B], T] | None) -> Callable[[A, B], Coroutine[Any, Any, T]] | None:
        if callback is None:
            return None

        async def answer(first: A, second: B, /) -> T:
            return await self._run(partial(callback, first, second))

        return answer

    async def _run(self, work: Callable[[], T]) -> T:
        # Abandoned where the server takes its request back: a thread cannot be stopped, only not be waited for.
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._places)
