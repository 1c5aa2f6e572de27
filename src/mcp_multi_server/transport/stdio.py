"""A server that is a child process: JSON-RPC lines on its stdin and stdout, its log on stderr."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import anyio

from ..core.config.environment import child_environment
from ..core.jsonrpc import Buffer
from ..core.lifecycle import Failure, Reason, exit_failure
from ..core.lines import Lines
from ..core.processes import MARK
from ..processes.child import Child
from ..processes.reaper import Reaper
from ..processes.spawn import spawn
from . import Receiver
from .link import Flusher, Link
from .stderr import StderrReader

EXIT_GRACE = 0.2
"""Seconds to wait, after a stream ended, for the exit that explains it."""
ENDLESS = 4
"""A line of so many times the cap is taken to have no end."""
UNKNOWN_EXIT = Failure(Reason.EXIT, "exited, with a code that another process took")


@dataclass(frozen=True, slots=True)
class StdioSpec:
    """What a program is started with; made from the server's entry."""

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    cwd: str | None = None
    inherit_env: Sequence[str] | Literal["all"] = ()
    stop_timeout: float = 5.0


class StdioTransport:
    """The stream to one child process. `open_stdio` makes it, and stops it in the end.

    Its end is reported once, after everything that the child wrote before.
    """

    kind = "stdio"
    last_status: int | None = None

    def __init__(self, child: Child, receiver: Receiver, *, flusher: Flusher, line_cap: int, out_cap: int) -> None:
        self.pid: int | None = child.pid
        self._child = child
        self._receiver = receiver
        self._lines = Lines(line_cap)
        self._unfinished = 0
        self._silent = False
        self._stderr = StderrReader(child.stderr, receiver.stderr)
        self._link = Link(
            child.stdout,
            child.stdin,
            feed=self._feed,
            lost=self._stream_ended,
            unwritable=self._stdin_closed,
            flusher=flusher,
            cap=out_cap,
        )
        child.watch(self._child_ended)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one line. It never waits and never raises."""
        self._link.send(parts)

    async def stop(self, patience: float) -> None:
        """End the child and its group. Reading goes on meanwhile: a child that cannot write may be unable to exit."""
        self._silent = True
        self._child.note_descendants()
        self._link.close_writer()
        try:
            # When cancelled, too: what is not ended here would stay.
            with anyio.CancelScope(shield=True):
                await self._child.stop(patience)
        finally:
            self._stderr.close()
            self._link.close()
            self._child.close()

    def _feed(self, data: bytes) -> None:
        if self._silent:
            return
        for line in self._lines.feed(data):
            self._receiver.line(line)
        newline = data.rfind(b"\n")
        self._unfinished = len(data) - newline - 1 if newline >= 0 else self._unfinished + len(data)
        if self._unfinished > ENDLESS * self._lines.cap:
            self._report(Failure(Reason.PROTOCOL, f"wrote {self._unfinished} bytes without an end of line"))

    def _stream_ended(self, reason: str) -> None:
        if overfull := self._link.overfull:
            self._report(Failure(Reason.PROTOCOL, f"does not read its stdin: {overfull} bytes wait"))
        else:
            self._report_soon(Failure(Reason.CLOSED, "closed its stdout"))

    def _stdin_closed(self, reason: str) -> None:
        self._report_soon(Failure(Reason.CLOSED, "closed its stdin"))

    def _child_ended(self, returncode: int | None) -> None:
        try:
            # What the child wrote before its exit comes before the news of it.
            self._link.drain()
        finally:
            self._report(UNKNOWN_EXIT if returncode is None else exit_failure(returncode))

    def _report_soon(self, failure: Failure) -> None:
        """Report the end of a stream, unless the child exits in a moment: then the exit is reported."""
        asyncio.get_running_loop().call_later(EXIT_GRACE, self._report, failure)

    def _report(self, failure: Failure) -> None:
        if not self._silent:
            self._silent = True
            # First, since the last lines may say why.
            self._stderr.end()
            self._receiver.lost(failure)


@asynccontextmanager
async def open_stdio(
    spec: StdioSpec,
    receiver: Receiver,
    *,
    flusher: Flusher,
    line_cap: int,
    out_cap: int,
    environ: Mapping[str, str],
    reaper: Reaper,
) -> AsyncIterator[StdioTransport]:
    """Start the program and open a stream to it. On the way out, end it and all that it started.

    Leaving takes at most `stop_timeout` + 1.5 s, also when cancelled, and never raises.

    Args:
        spec: The program.
        receiver: Is called with what comes in.
        flusher: Writes what a turn of the loop produced.
        line_cap: Bytes of a line from the server; only the two ends are kept of a longer one.
        out_cap: Bytes that may wait for the server to read them.
        environ: The daemon's environment, of which the child inherits a part.
        reaper: Keeps account of the child.

    Raises:
        Lost: the program could not be started.

    """
    env = child_environment(environ, inherit=spec.inherit_env, env=spec.env) | {MARK: reaper.next_mark()}
    child = spawn(spec.command, spec.args, cwd=spec.cwd, env=env)
    reaper.began(child)
    transport = StdioTransport(child, receiver, flusher=flusher, line_cap=line_cap, out_cap=out_cap)
    try:
        yield transport
    finally:
        try:
            await transport.stop(spec.stop_timeout)
        finally:
            reaper.ended(child)
