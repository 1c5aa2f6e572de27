"""The TypeScript SDK's client as a host that has started `mcp-multi-server stdio`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

from .entries import MARK, RUN, node

SCRIPT = Path(__file__).with_suffix(".mjs")
PATIENCE = 20.0
Message = dict[str, Any]


class TypeScriptHost:
    """A context manager. What it is asked runs side by side; `saw` holds what it saw besides answers, in order."""

    def __init__(self, socket: Path, *words: str) -> None:
        bridge = [sys.executable, "-m", "mcp_multi_server", "--socket", str(socket), "stdio", *words]
        self.process = subprocess.Popen(
            [str(node()), str(SCRIPT), *bridge],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={MARK: RUN, "PATH": "/usr/bin:/bin"},
            text=True,
        )
        self.saw: list[Message] = []
        self._answers: dict[int, Queue[Message]] = {}
        self._connected: Queue[None] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        self._connected.get(timeout=PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"the host saw {self.saw}")
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def ask(self, act: str, **given: Any) -> int:
        """Have it do something; returns the number by which `outcome` knows it."""
        assert self.process.stdin is not None
        id = len(self._answers)
        self._answers[id] = Queue()
        self.process.stdin.write(json.dumps({"id": id, "act": act, **given}) + "\n")
        self.process.stdin.flush()
        return id

    def outcome(self, id: int, *, within: float = PATIENCE) -> Message:
        """Its `result` or `error`."""
        try:
            return self._answers[id].get(timeout=within)
        except Empty:
            raise AssertionError(f"no answer within {within} s; the host saw {self.saw}") from None

    def result(self, act: str, **given: Any) -> Any:
        found = self.outcome(self.ask(act, **given))
        assert "result" in found, found
        return found["result"]

    def call(self, name: str, **arguments: Any) -> Message:
        """What a tool returns."""
        found: Message = self.result("call", name=name, arguments=arguments)
        return found

    def has_seen(self, what: str) -> bool:
        return any(one["saw"] == what for one in self.saw)

    @property
    def stderr(self) -> str:
        """What the bridge wrote to it."""
        return "".join(one["message"] for one in self.saw if one["saw"] == "stderr")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("saw") == "connected":
                self._connected.put(None)
            elif "saw" in message:
                self.saw.append(message)
            else:
                self._answers[message["id"]].put(message)
