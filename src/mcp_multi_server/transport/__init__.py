"""Carries the bytes of one session. Every transport, whatever it runs over, is a stream of JSON-RPC messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure
from ..core.lines import Oversize


class Transport(Protocol):
    """An open stream to one server. The server's opener opens it; the task that opened it also closes it."""

    kind: str
    """`stdio`, `http` or `sse`."""
    pid: int | None
    """The child's process id; None if there is no child."""
    last_status: int | None
    """The last HTTP status that was an error; None over stdio."""

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line (its newline included, as `core.jsonrpc` frames it); never waits, never raises."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """The functions that a transport calls with what comes in, on the event loop; they must not block.

    The session's exchange makes one and gives it to the transport that is opened for it.
    """

    line: Callable[[bytes | Oversize], None]
    """One line from the server, without its newline."""
    stderr: Callable[[str], None]
    """One line of the server's stderr."""
    failed: Callable[[int, Failure], None]
    """The request with this id was lost on the way out or on the way back. The transport goes on."""
    lost: Callable[[Failure], None]
    """The stream ended without our asking. Called at most once, and nothing is called after it."""
