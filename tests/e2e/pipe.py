"""A server's stdin and stdout, line by line: what it says when nobody stands in between."""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import Any, Self

from .entries import Entry


class Pipe:
    """A server of our own, started as an entry says; every answer is the very next line."""

    def __init__(self, entry: Entry) -> None:
        self.process = subprocess.Popen(
            [entry["command"], *entry["args"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=entry["env"],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def send(self, message: bytes | dict[str, Any]) -> None:
        assert self.process.stdin is not None
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip(b"\n")

    def ask(self, method: str, params: dict[str, Any] | None = None, *, id: int | str = 1) -> Any:
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})
        return json.loads(self.line())

    def initialize(self) -> Any:
        return self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
