"""Notices when the config may have changed. It watches directories, never the file.

A watch on a file goes deaf at the first atomic replace; Kubernetes swaps a symlink beside it instead of the file.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

import anyio

QUIET_MS = 250
"""How long nothing may happen until a burst of changes counts as one."""
LONGEST_BURST_MS = 1000
LOOK_EVERY = 2.0
"""Seconds between looks of our own: where the kernel gives no watch, and for what a watch that was just made missed."""


def identity(path: str) -> Hashable:
    """What tells one state of the file from another without reading it."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except OSError:
        return real
    # st_mode: new permissions may make the file usable, or no longer trusted.
    return real, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


async def watch(path: str, known: Hashable, changed: Callable[[], Awaitable[None]]) -> None:
    """Call `changed` whenever the file, or what it links to, is not what it was; until cancelled.

    `known` is its `identity` from before it was read, so that nothing is missed in between.
    """
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_set_when_cancelled, stop)
        with anyio.CancelScope(shield=True):  # a cancelled watch waits for its thread, a stopped one ends at once
            await _watch(path, known, changed, stop)


async def _set_when_cancelled(stop: anyio.Event) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


async def _watch(path: str, known: Hashable, changed: Callable[[], Awaitable[None]], stop: anyio.Event) -> None:
    while not stop.is_set():
        directories = _directories(path)
        async for _ in _stirrings(directories, stop):
            if (found := identity(path)) != known:
                known = found  # before `changed`, which takes time: an edit meanwhile differs from it
                await changed()
            if _directories(path) != directories:  # a link leads elsewhere now: watch there
                break


async def _stirrings(directories: tuple[str, ...], stop: anyio.Event) -> AsyncIterator[None]:
    """After each burst of changes in these directories, and now and then all the same."""
    from watchfiles import awatch  # 50 ms to import, needed by nobody before the daemon serves

    try:
        async for _ in awatch(
            *directories,
            recursive=False,
            debounce=LONGEST_BURST_MS,
            step=QUIET_MS,
            rust_timeout=round(LOOK_EVERY * 1000),
            yield_on_timeout=True,
            stop_event=stop,
        ):
            yield
    except OSError:  # the kernel gives no watch: its limit is reached, or a directory is missing
        with anyio.move_on_after(LOOK_EVERY):
            await stop.wait()
        yield


def _directories(path: str) -> tuple[str, ...]:
    """Where the file is, and where the file is that it links to."""
    real = os.path.dirname(os.path.realpath(path))
    return tuple(dict.fromkeys((os.path.dirname(os.path.abspath(path)), real)))
