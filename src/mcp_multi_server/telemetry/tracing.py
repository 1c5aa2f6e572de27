"""Whether and where to spans of forwarded requests are sent: OpenTelemetry's own environment variables say so.

Nothing of OpenTelemetry is imported where they do not; where they do, in a thread, as it takes half a second.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import anyio
import anyio.to_thread

from ..core.events import DaemonWarning, Observer
from ..core.jsonrpc import Members
from ..core.spans import Operation

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
LAST_EXPORT = 2.0
"""Seconds for the spans that wait, when the daemon stops."""


class Span(Protocol):
    """A request that is under way: an OtelSpan, whose module is imported only where spans are wanted.

    `meta`: what to send as its `_meta`, the client's with this span as the parent.
    """

    @property
    def meta(self) -> Members:
        """Given to the server."""

    def end(self, error: str) -> None:
        """It was answered, or given up; `error` is "" for success."""


class Tracer(Protocol):
    """What makes spans: an OtelTracer, whose module is imported only where spans are wanted."""

    def begin(self, operation: Operation, meta: Members | None, *, seconds_ago: float) -> Span:
        """The span of a request that came in so many seconds ago."""

    def close(self) -> None:
        """Send what waits; takes as long as the network does."""


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment names somebody who takes spans."""
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not is_off and any(environ.get(name) for name in ENDPOINTS)


@asynccontextmanager
async def tracer(environ: Mapping[str, str], *, tell: Observer) -> AsyncIterator[Tracer | None]:
    """What makes spans while the block runs, and sends them; None, with a warning, where the wanted cannot be had."""
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), SPOKEN)
    if protocol != SPOKEN:
        tell(DaemonWarning("traces", f"no spans are sent: {SPOKEN} is spoken, and {protocol[:40]!r} is wanted"))
        yield None
        return
    try:
        # Abandoned at a stop, which need not wait for imports.
        made = await anyio.to_thread.run_sync(_load, abandon_on_cancel=True)
    except ImportError:
        missing = "no spans are sent: their packages are missing (pip install 'mcp-multi-server[otel]')"
        tell(DaemonWarning("traces", missing))
        yield None
        return
    try:
        yield made
    finally:
        await _close(made)


async def _close(made: Tracer) -> None:
    """Send what waits, in a thread that no one joins: the network may hold it for longer than the daemon stays."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        made.close()
        with suppress(RuntimeError):  # the loop is gone already
            loop.call_soon_threadsafe(closed.set)

    # Python joins anyio's threads when the process ends, and no thread that is a daemon.
    threading.Thread(target=close, name="last spans", daemon=True).start()
    # Shielded: the stop has cancelled this task already.
    with anyio.move_on_after(LAST_EXPORT, shield=True):
        await closed.wait()


def _load() -> Tracer:
    from .otel import OtelTracer

    return OtelTracer()
