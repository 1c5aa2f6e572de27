"""Carries the bytes of one session: every transport is a stream of JSON-RPC lines, whatever is below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..core.jsonrpc import Buffer, Oversize
from ..core.lifecycle import Failure


class Transport(Protocol):
    """A live stream to one server or client; the task that opens it also leaves it."""

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
    """Who is told what a transport brings. Its functions are called on the event loop and must not block."""

    line: Callable[[bytes | Oversize], None]
    """One line from the server, without its newline."""
    stderr: Callable[[str], None]
    """One line of the server's stderr."""
    failed: Callable[[int, Failure], None]
    """The request with this id was lost on its way out or its way back; the transport lives."""
    lost: Callable[[Failure], None]
    """The stream ended without our asking; called at most once, nothing comes after it."""
