"""The callbacks by which a program answers what servers ask, and takes what they log."""

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
"""Synchronous callbacks that run at a time."""

Sampled: TypeAlias = types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData
Elicited: TypeAlias = types.ElicitResult | types.ErrorData
Roots: TypeAlias = types.ListRootsResult | types.ErrorData


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequestContext:
    """Who asks: the first argument of the callbacks that answer a server."""

    server_name: str
    """The server, by its name in the config."""
    request_id: int | str
    meta: dict[str, Any] | None = None
    """The `_meta` of its request."""


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
    """The keyword arguments by which callbacks are given."""

    sampling_callback: SamplingFnT | None
    elicitation_callback: ElicitationFnT | None
    list_roots_callback: ListRootsFnT | None
    logging_callback: LoggingFnT | None


class SyncCallbackOptions(TypedDict, total=False):
    """Likewise, for callbacks without await."""

    sampling_callback: SyncSamplingFnT | None
    elicitation_callback: SyncElicitationFnT | None
    list_roots_callback: SyncListRootsFnT | None
    logging_callback: SyncLoggingFnT | None


def only_callable(**callbacks: object) -> None:
    """Raises TypeError for what is given as a callback, and is none."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(f"{name} must be callable, not {type(callback).__name__}")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks that a client has; the client makes it once. Raises TypeError for one that cannot be called."""

    sampling: SamplingFnT | None = None
    elicitation: ElicitationFnT | None = None
    list_roots: ListRootsFnT | None = None
    logging: LoggingFnT | None = None

    def __post_init__(self) -> None:
        only_callable(**{f"{name}_callback": getattr(self, name) for name in self.__slots__})

    @property
    def abilities(self) -> frozenset[str]:
        """What servers may ask of the program, in the words of `core.input_requests`."""
        given = {"sampling": self.sampling, "elicitation": self.elicitation, "roots": self.list_roots}
        return frozenset(name for name, callback in given.items() if callback is not None)


class OffLoop:
    """Makes callbacks of a MultiServerClient from synchronous ones, which run in threads and so may block.

    A SyncMultiServerClient makes one for its callbacks. At most `THREADS` of them run at a time.
    """

    def __init__(self) -> None:
        self._places: anyio.CapacityLimiter | None = None

    def options(self, given: SyncCallbackOptions) -> CallbackOptions:
        """Callbacks without await as callbacks of a MultiServerClient."""
        only_callable(**given)
        return {
            "sampling_callback": self._of_two(given.get("sampling_callback")),
            "elicitation_callback": self._of_two(given.get("elicitation_callback")),
            "list_roots_callback": self._of_one(given.get("list_roots_callback")),
            "logging_callback": self._of_one(given.get("logging_callback")),
        }

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
        # Made here, as a limiter belongs to the event loop that it is made in.
        self._places = self._places or anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._places)
