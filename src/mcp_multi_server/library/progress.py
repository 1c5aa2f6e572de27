"""Reports of progress of a call, on their way to a program's callback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from ..core import jsonrpc
from ..core.jsonrpc import Members

_log = logging.getLogger("mcp_multi_server.client")


class ProgressFnT(Protocol):
    """Awaited for each report of progress of a call, in order."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """`total` and `message` are None where the server does not say."""


@asynccontextmanager
async def delivery(progress: ProgressFnT | None) -> AsyncIterator[Callable[[Members], None] | None]:
    """Gives a function that takes reports as they come; `progress` is awaited for each, in order.

    Left after the last report was delivered, so that a program has heard all of them when it gets the result; left
    with an error, it drops those that wait. None without a callback: then servers are asked for no progress at all.
    """
    if progress is None:
        yield None
        return
    reports: asyncio.Queue[Members | None] = asyncio.Queue()  # None ends it
    delivery = asyncio.create_task(_deliver(reports, progress))
    try:
        yield reports.put_nowait
        reports.put_nowait(None)
        await delivery
    finally:
        delivery.cancel()


async def _deliver(reports: asyncio.Queue[Members | None], progress: ProgressFnT) -> None:
    """Call the callback for each report. One without a number is dropped; what the callback raises is logged."""
    while (report := await reports.get()) is not None:
        value, total = (jsonrpc.value(report[key]) if key in report else None for key in ("progress", "total"))
        if not isinstance(value, int | float):
            continue
        try:
            await progress(value, total, jsonrpc.text(report.get("message")))
        except Exception:
            _log.exception("a progress callback failed")
