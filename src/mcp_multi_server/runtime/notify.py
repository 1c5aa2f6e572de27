"""Speaks to systemd as sd_notify(3) does: one datagram of `NAME=value` lines."""

from __future__ import annotations

import os
import socket
import time

PATIENCE = 0.5
"""Seconds that one message may hold up the event loop while systemd does not read."""


class Notifier:
    """The way to the service manager at `address`, its `NOTIFY_SOCKET`; without one, nothing is said."""

    def __init__(self, address: str | None) -> None:
        self._address = address or ""

    def __bool__(self) -> bool:
        return bool(self._address)

    def send(self, *lines: str) -> str | None:
        """Send these lines; why it could not be done, or None. Line breaks within one would begin another."""
        if not self._address:
            return None
        message = "\n".join(" ".join(line.split("\n")) for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(PATIENCE)
                sender.connect(_address(self._address))
                sender.send(message.encode(errors="replace"))
        except (OSError, ValueError) as failure:
            return getattr(failure, "strerror", None) or "timed out or no address of a Unix socket"
        return None


def monotonic_usec() -> str:
    """The line that tells systemd which reload a `READY=1` belongs to."""
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def _address(path: str) -> bytes:
    """`@` stands for the zero byte of an abstract socket."""
    if path[0] not in "/@":
        raise ValueError(path)
    name = os.fsencode(path)
    return b"\0" + name[1:] if path[0] == "@" else name
