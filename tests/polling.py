"""To wait for what is seen from outside only, and never longer than to a deadline."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
WITHIN = 20.0
"""Seconds: what takes longer on a loaded machine has not happened."""


def eventually(check: Callable[[], T], *, within: float = WITHIN, what: str = "") -> T:
    """The first true value of `check`, asked again and again; AssertionError when the time is over."""
    end, pause = time.monotonic() + within, 0.005
    while not (found := check()):
        assert time.monotonic() < end, _never(check, within, what, found)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return found


async def until(check: Callable[[], Any] | Callable[[], Awaitable[Any]], *, within: float = WITHIN) -> None:
    """As `eventually`, in an event loop that goes on meanwhile."""
    end = time.monotonic() + within
    while not (found := await _asked(check)):
        assert time.monotonic() < end, _never(check, within, "", found)
        await anyio.sleep(0.01)


async def _asked(check: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> object:
    found = check()
    return await found if isinstance(found, Awaitable) else found


def _never(check: Callable[[], object], within: float, what: str, last: object) -> str:
    return f"{what or check.__name__} did not come true within {within} s; last: {last!r}"
