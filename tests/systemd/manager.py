"""What a service says to systemd, heard in systemd's place."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PATIENCE = 20.0
_CREDENTIALS = struct.Struct("3i")


class Said(NamedTuple):
    """One datagram."""

    lines: tuple[str, ...]
    pid: int

    def value(self, name: str) -> str:
        """What stands after `NAME=`."""
        return next(line.partition("=")[2] for line in self.lines if line.startswith(f"{name}="))


class Manager:
    """The other end of `NOTIFY_SOCKET`; `heard` is everything so far."""

    def __init__(self, *, abstract: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(dir="/tmp", prefix="mms-notify-")
        name = f"mms-notify-{os.getpid()}-{id(self)}" if abstract else str(Path(self._directory.name) / "notify")
        self.address = f"@{name}" if abstract else name
        self.heard: list[Said] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}" if abstract else name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.close()
        self._directory.cleanup()

    def hear(self, start: str, *, after: int = 0, within: float = PATIENCE) -> Said:
        """Listen until a line begins with `start`, in what was heard after the first `after` datagrams."""
        until = time.monotonic() + within
        while True:
            for said in self.heard[after:]:
                if any(line.startswith(start) for line in said.lines):
                    return said
            left = until - time.monotonic()
            assert left > 0, f"no {start} within {within} s; heard {[said.lines for said in self.heard]}"
            self._listen(left)

    def hear_all(self) -> list[tuple[str, ...]]:
        """Everything that was said until now."""
        while self._listen(0):
            pass
        return [said.lines for said in self.heard]

    def _listen(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            data, credentials, _, _ = self._socket.recvmsg(4096, 64)
        except (TimeoutError, BlockingIOError):
            return False
        pid = _CREDENTIALS.unpack(credentials[0][2])[0]
        self.heard.append(Said(tuple(data.decode().split("\n")), pid))
        return True
