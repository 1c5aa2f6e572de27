"""Times as people read them: the event loop's clock counts from an unknown moment, status and files from 1970."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


def wall(loop_time: float) -> float:
    """A time of the event loop's clock as seconds since 1970."""
    return time.time() + (loop_time - asyncio.get_running_loop().time())


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
