"""Ways to reach an MCP server, all with one face: a stream of JSON-RPC lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ..core.jsonrpc import Buffer, Oversize
from ..core.lifecycle import Failure


class Transport(Protocol):
    """A live stream to one server, left by the task that entered it."""

    kind: str
    """`stdio`, `http` or `sse`."""
    pid: int | None
    """The child's process id; None where there is no child."""
    last_status: int | None
    """The last HTTP status that was an error; None over stdio."""

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line (its newline included, as `core.jsonrpc` frames it); never waits, never raises."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told what a transport brings; called on the event loop, never to be awaited in."""

    line: Callable[[bytes | Oversize], None]
    """One line from the server, without its newline."""
    stderr: Callable[[str], None]
    """One line of the server's stderr."""
    failed: Callable[[int, Failure], None]
    """The request with this id failed on its way or on its way back; the connection lives."""
    lost: Callable[[Failure], None]
    """The stream ended without our asking; called at most once, nothing comes after it."""


Open = Callable[[Receiver], AbstractAsyncContextManager[Transport]]
"""Opens the transport of one server; raises `core.lifecycle.Lost` where it cannot be reached."""
