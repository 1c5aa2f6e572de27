"""Speaks to systemd as sd_notify(3) does: datagrams of `NAME=value` lines."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable

MOST_WAITING = 32
"""Messages kept for a systemd that does not read; what was said later says more than what was said first."""
AGAIN_AFTER = 0.1


class Notifier:
    """Sends messages to the service manager at `address`, its `NOTIFY_SOCKET`; without one, none.

    `systemd.Service` makes it. Nothing here waits: a systemd that is busy is told a little later. `failed` is called
    with the reason where it cannot be told at all.
    """

    def __init__(self, address: str | None, failed: Callable[[str], None]) -> None:
        self._address = address or ""
        self._failed = failed
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._address)

    def send(self, *lines: str) -> None:
        """Send these lines together, as one message."""
        if self._address:
            # A line break within a line would begin another one.
            self._waiting.append("\n".join(" ".join(line.split("\n")) for line in lines).encode(errors="replace"))
            if self._timer is None:  # else it waits behind those that could not be sent yet, in order
                self._flush()

    def _flush(self) -> None:
        self._timer = None
        try:
            while self._waiting:
                _send(self._address, self._waiting[0])
                self._waiting.popleft()  # only now: a message that systemd did not take stays the first
        except BlockingIOError:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_AFTER, self._flush)
        except OSError as failure:
            self._waiting.clear()  # nobody listens: what is kept would never be sent
            self._failed(failure.strerror or "unknown error")


def monotonic_usec() -> str:
    """The line that tells systemd which reload a `READY=1` belongs to."""
    # sd_notify(3): CLOCK_MONOTONIC in microseconds; loop.time() is in seconds as a float.
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def _send(address: str, message: bytes) -> None:
    """`@` in an address stands for the zero byte of an abstract one."""
    name = os.fsencode(address)
    flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, flags) as sender:
        sender.sendto(message, b"\0" + name[1:] if name[:1] == b"@" else name)
