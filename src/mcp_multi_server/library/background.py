"""An event loop in a thread of its own, in which a client lives for programs that have no event loop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from datetime import timedelta
from threading import Thread, get_ident
from typing import TypeVar
from warnings import warn

import anyio
from anyio.from_thread import BlockingPortal

from .client import MultiServerClient
from .errors import in_seconds
from .time_limits import waiting

T = TypeVar("T")
STOP_WITHIN = 15.0
"""Seconds that anybody waits for servers to stop; those that need longer are killed when the program ends."""
_SHUT_DOWN = "this SyncMultiServerClient is shut down; make a new one"
_SHUT_DOWN_MEANWHILE = "this SyncMultiServerClient was shut down before the call ended"
_FORKED = "this SyncMultiServerClient was made before the process forked, its event loop stayed behind; make a new one"
_OWN_LOOP = (
    "a callback of SyncMultiServerClient must not wait for the event loop that runs it: "
    "hand the call to another thread, or use MultiServerClient"
)
_log = logging.getLogger("mcp_multi_server.sync_client")
_living: set[Background] = set()


class Background:
    """The thread of a `SyncMultiServerClient`, its event loop, and the `MultiServerClient` that is connected in it.

    The synchronous client makes it and starts it; `stop`, `forget` or the end of the program ends it. It holds no
    reference to the synchronous client, so that one which is dropped can be collected, and then ends it.
    """

    def __init__(self, client: MultiServerClient) -> None:
        self.client = client
        self._pid = os.getpid()
        self._thread = Thread(target=self._run, name="SyncMultiServerClient", daemon=True)
        self._connected: Future[BlockingPortal] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = False
        """Whether it is told to end, or has ended."""

    def start(self) -> None:
        """Connect. Raises what connecting raised."""
        self._thread.start()
        try:
            self._portal = self._connected.result()
        except BaseException:
            self.stop()
            raise

    def _run(self) -> None:
        """The thread, from its beginning to its end."""
        _living.add(self)
        try:
            anyio.run(self._live)
        except BaseException as failure:
            if self._connected.done():
                raise
            self._connected.set_exception(failure)
        finally:
            self._is_over = True
            _living.discard(self)
            self._connected.cancel()

    async def _live(self) -> None:
        """Be connected until `end`, which cancels connecting or the calls, but never disconnecting."""
        with anyio.CancelScope() as self._ending:
            # `end` sets the one and reads the other, this in the reverse order: neither can miss the other.
            self._loop = asyncio.get_running_loop()
            if self._is_over:
                return
            async with self.client:
                # From here on only what is inside this scope is cancelled: leaving the client takes its time.
                with anyio.CancelScope() as self._ending:
                    async with BlockingPortal() as portal:
                        self._connected.set_result(portal)
                        await anyio.sleep_forever()

    def call(
        self,
        operation: Callable[[MultiServerClient], Awaitable[T]],
        *,
        timeout: float | timedelta | None,
        what: Callable[[MultiServerClient], str],
    ) -> T:
        """Run the operation in the loop, wait for it, and return or raise what it does.

        Raises TimeoutError, which begins with `what` was called, after `timeout`; RuntimeError if this client is shut
        down, before the call or during it, and in the loop's own thread. What nobody waits for any longer is cancelled.
        """
        self.check()
        if get_ident() == self._thread.ident:
            raise RuntimeError(_OWN_LOOP)
        seconds = in_seconds(timeout, "timeout")

        async def operate() -> T:
            with waiting(seconds):
                return await operation(self.client)

        try:
            future = self._portal.start_task_soon(operate)
        except RuntimeError:  # it was shut down at this very moment
            raise RuntimeError(_SHUT_DOWN) from None
        try:
            return future.result(seconds)
        except TimeoutError:
            if not future.cancel():  # it ended after all, or the error is its own
                return future.result()
            message = f"{what(self.client)} did not answer within {seconds:g} s, the call was cancelled"
            raise TimeoutError(message) from None
        except CancelledError:
            raise RuntimeError(_SHUT_DOWN_MEANWHILE) from None
        finally:
            future.cancel()  # for a KeyboardInterrupt, among others

    def check(self) -> None:
        """Raises RuntimeError if it has ended or is told to, or belongs to a parent process."""
        if os.getpid() != self._pid:
            raise RuntimeError(_FORKED)
        if self._is_over:
            raise RuntimeError(_SHUT_DOWN)

    def end(self) -> None:
        """Tell the loop to end, and do not wait for it."""
        self._is_over = True
        if self._loop is not None and os.getpid() == self._pid:  # a forked child shares the parent's wake-up socket
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(lambda: self._ending.cancel())

    def stop(self) -> None:
        """Tell the loop to end and wait until it has, `STOP_WITHIN` seconds at most."""
        self.end()
        # A thread cannot wait for itself, and in a forked child there is nothing to wait for: it has no such thread.
        if get_ident() == self._thread.ident or os.getpid() != self._pid:
            return
        self._thread.join(STOP_WITHIN)
        if self._thread.is_alive():
            _log.warning("servers are still stopping after %g s, or a callback does not return", STOP_WITHIN)

    def forget(self) -> None:
        """End, as nobody can call any more. The garbage collector may be calling this: it must not wait."""
        if not self._is_over:
            self.end()
            warn("a SyncMultiServerClient was dropped without shutdown()", ResourceWarning, stacklevel=3)


@atexit.register
def _stop_all() -> None:
    """Stop them all as the program ends: all are told first, so that they end side by side."""
    for background in tuple(_living):
        background.end()
    for background in tuple(_living):
        background.stop()
