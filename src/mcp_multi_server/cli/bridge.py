"""`stdio`: the lines of this process's stdin and stdout, and those of the daemon's socket, brought to each other.

It lets a host that can only start a program (an editor, a desktop application) use the daemon, and outlives the daemon:
what goes where, and what is said meanwhile, is decided in `core/bridge/bridge.py`. Here is what it needs for that:
one `poll`, reads, writes, connections and the clock. An end that does not take what is written to it holds up the other
end, and nothing else.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from contextlib import ExitStack, suppress

from ..core.bridge.bridge import Bridge
from ..core.lines import Lines, Oversize
from ..core.printable import one_line
from .connect import connect
from .failures import CommandFailed, Unreachable
from .outgoing import BARRIER_LOOK_EVERY, Outgoing, non_blocking

CHUNK = 64 * 1024
MIB = 1 << 20
HOST_LINE = 64 * MIB
DAEMON_LINE = 256 * MIB
"""Bytes of one line, above which it is not passed on: several times what a daemon takes and keeps by default."""
PAUSE_ABOVE = MIB
"""Bytes that wait for one end, above which the other end is not read."""
MOST_WAITING = 64 * MIB
"""Bytes of answers that wait for a host that does not read, above which its own lines are not read either."""
KEPT_MEMORY = 4 * MIB
LAST_WRITES = 0.1
"""Seconds for what waits to be written when nothing else is left to do."""
LONGEST_SAID = 4000
"""Bytes of a line on stderr: a pipe that takes anything takes as many at once (pipe(7), PIPE_BUF)."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


def join(path: str | None, stdin: int, stdout: int, *, hold: float, wait: float, linger: float) -> None:
    """Serve the host until it leaves.

    `path`: the daemon's socket, if it is not at a usual place. `hold`: seconds that a request waits for a daemon that
    is away; `wait`: the same, while no daemon was ever there; `linger`: seconds that a host which has left is given
    for the answers that it waits for.

    Raises:
        Unreachable: no daemon was ever reached.
        CommandFailed: answers were dropped.

    """
    _keep_freed_memory()
    with ExitStack() as stack:
        for descriptor in (stdin, stdout):
            stack.enter_context(non_blocking(descriptor))
        shell = stack.enter_context(_Shell(path, stdin, stdout, hold=hold, wait=wait, linger=linger))
        shell.run()
        shell.judge()


class _Shell:
    """Acts for one `Bridge`. `join` makes it, runs it and leaves it."""

    def __init__(self, path: str | None, stdin: int, stdout: int, **patience: float) -> None:
        self._path = path
        self._stdin = stdin
        self._stdout = stdout
        self._bridge = Bridge(time.monotonic(), **patience)
        self._to_host = Outgoing(stdout)
        self._host_lines = Lines(HOST_LINE)
        self._connection: socket.socket | None = None
        self._to_daemon = Outgoing(-1)
        self._daemon_lines = Lines(DAEMON_LINE)
        self._poll = select.poll()
        self._wanted: dict[int, int] = {}
        self._ends = 0
        """How often stdin has ended: a terminal goes on after that."""
        self._hung_up: set[int] = set()
        """Descriptors whose other end is gone, and that cannot be read to their end just now."""
        self._is_steady = False
        """Whether `poll` looks for what it looks for most of the time: something to read from both sides."""
        self._closing: float | None = None
        """When the last writes must be done."""
        self._unreachable: Unreachable | None = None

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self) -> None:
        """Serve until there is nothing left to do, or nobody to do it for."""
        bridge = self._bridge
        while True:
            now = time.monotonic()
            # Asked here and not there, as all of this is done twice for each call.
            if now >= bridge.look_at:
                bridge.time(now)
            if self._connection is None and bridge.wants_to_dial(now) and self._to_host.size <= PAUSE_ABOVE:
                self._dial(now)
            self._write()
            if bridge.hang_up:
                self._lose(bridge.hang_up, now)
            elif (self._ends or self._hung_up or self._to_host.is_broken) and self._is_done(now):
                return
            else:
                self._turn(now)

    def judge(self) -> None:
        """Say how it ended. Raises Unreachable or CommandFailed where that was not well."""
        bridge = self._bridge
        if dropped := bridge.unanswered + self._to_host.answers():
            what = "1 answer was" if dropped == 1 else f"{dropped} answers were"
            raise CommandFailed(f"{what} dropped: the client left before it had come")
        if bridge.is_unserved:
            raise self._unreachable or Unreachable(bridge.dialing.why)

    # -- what is done --------------------------------------------------------------------------------------------

    def _is_done(self, now: float) -> bool:
        if self._to_host.is_broken or self._ends > 1:
            return True
        if not self._bridge.is_over:
            return False
        if self._closing is None:
            self._closing = now + LAST_WRITES
            # An answer is worth as much time as its request was.
            if self._to_host.answers():
                self._closing = max(self._closing, self._bridge.lingers_until)
        return now >= self._closing or not (self._to_host.size or self._to_daemon.size)

    def _dial(self, now: float) -> None:
        try:
            connection = connect(self._path, timeout=0)
        except Unreachable as failure:
            self._unreachable = failure
            self._bridge.not_there(now, str(failure))
            return
        connection.setblocking(False)
        self._connection, self._is_steady = connection, False
        self._to_daemon, self._daemon_lines = Outgoing(connection.fileno()), Lines(DAEMON_LINE)
        self._bridge.opened(now)

    def _lose(self, why: str, now: float) -> None:
        unsent = self._to_daemon.unsent()
        self._close()
        self._bridge.lost(now, why, unsent)

    def _close(self) -> None:
        if self._connection is not None:
            self._want(self._connection.fileno(), None)
            self._hung_up.discard(self._connection.fileno())
            self._connection.close()
            self._connection, self._to_daemon, self._is_steady = None, Outgoing(-1), False

    def _write(self) -> None:
        """Write what the bridge has decided, as far as the ends take it."""
        bridge = self._bridge
        if bridge.says:
            for said in bridge.says:
                _say(said)
            bridge.says.clear()
        if bridge.to_daemon and self._connection is not None:
            self._to_daemon.send(bridge.to_daemon)
            bridge.to_daemon.clear()
        elif self._to_daemon.size:
            self._to_daemon.write()
        if bridge.to_host:
            self._to_host.send(bridge.to_host)
            bridge.to_host.clear()
        elif self._to_host.size:
            self._to_host.write()

    # -- what is waited for --------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """Wait until something can be done, then read what can be read."""
        if not self._is_steady or self._to_host.size or self._to_daemon.size:
            self._want_all()
        timeout = self._bridge.wait(now)
        if self._to_host.size or self._closing is not None:
            timeout = self._sooner(timeout, now)
        for descriptor, event in self._poll.poll(None if timeout is None else 1000 * timeout):
            if descriptor == self._stdout:
                self._to_host.is_broken |= bool(event & _GONE)
            elif descriptor == self._stdin:
                self._on_stdin()
            elif event & ~select.POLLOUT:
                self._on_connection()

    def _sooner(self, timeout: float | None, now: float) -> float | None:
        """The same, where something waits to be written that is not only a matter of room."""
        if self._to_host.is_at_barrier:
            return BARRIER_LOOK_EVERY
        if self._closing is not None:
            return min(max(0.0, self._closing - now), math.inf if timeout is None else timeout)
        return timeout

    def _want_all(self) -> None:
        self._want(self._stdout, select.POLLOUT if self._to_host.wants_room else 0)
        if self._ends and not os.isatty(self._stdin):
            self._want(self._stdin, None)
        else:
            self._want(self._stdin, self._reading(self._stdin, pause=self._is_host_paused))
        if (connection := self._connection) is not None:
            reading = self._reading(connection.fileno(), pause=self._to_host.size > PAUSE_ABOVE)
            room = select.POLLOUT if self._to_daemon.wants_room else 0
            self._want(connection.fileno(), room or None if reading is None else reading | room)
        nothing_waits = not (self._to_host.size or self._to_daemon.size)
        self._is_steady = nothing_waits and self._connection is not None and not self._ends

    @property
    def _is_host_paused(self) -> bool:
        return self._to_daemon.size > PAUSE_ABOVE or self._to_host.size > MOST_WAITING

    def _reading(self, descriptor: int, *, pause: bool) -> int | None:
        """What to wait for of an end that is read: to be told that it is gone, too, but not again and again."""
        if not pause:
            return select.POLLIN
        return None if descriptor in self._hung_up else select.POLLRDHUP

    def _want(self, descriptor: int, events: int | None) -> None:
        """Have `poll` look at a descriptor; with None, not even at whether it is gone."""
        before = self._wanted.get(descriptor)
        if before == events:
            return
        if events is None:
            del self._wanted[descriptor]
            self._poll.unregister(descriptor)
        else:
            self._wanted[descriptor] = events
            self._poll.register(descriptor, events)

    # -- what comes ----------------------------------------------------------------------------------------------

    def _on_stdin(self) -> None:
        now = time.monotonic()
        if self._is_host_paused:
            # It will be read to its end when there is room. The time of a host that has left begins now.
            self._hung_up.add(self._stdin)
            self._bridge.left(now)
        elif (data := _read(self._stdin)) is not None:
            for line in self._host_lines.feed(data or b"\n"):
                if isinstance(line, Oversize):
                    self._bridge.too_long(line.head, line.tail, HOST_LINE)
                else:
                    self._bridge.from_host(line, now)
            if not data:
                self._ends += 1
                self._is_steady = False
                self._bridge.left(now)

    def _on_connection(self) -> None:
        connection, now = self._connection, time.monotonic()
        if connection is None:
            return
        if self._to_host.size > PAUSE_ABOVE:
            self._hung_up.add(connection.fileno())
        elif (data := _read(connection.fileno())) is not None:
            if not data:
                self._lose("the daemon closed the connection", now)
                return
            self._bridge.last_heard = now
            for line in self._daemon_lines.feed(data):
                if isinstance(line, Oversize):
                    self._bridge.answer_too_long(line.head, line.tail, DAEMON_LINE)
                else:
                    self._bridge.from_daemon(line, now)


def _keep_freed_memory() -> None:
    """Have glibc keep some of the memory of a long line for the next one.

    It keeps as much as twice the largest block that was ever given back, which at first is next to nothing. The memory
    of each long line would go back to the kernel and be fetched again page by page, which takes more than all the rest.
    """
    block = bytes(KEPT_MEMORY)  # untouched, it is no memory yet
    del block


def _read(descriptor: int) -> bytes | None:
    """The next bytes; none at the end, None where there are none yet."""
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _say(text: str) -> None:
    """Write a line to stderr, unless nobody takes it: a host that does not read it must not hold us up."""
    look = select.poll()
    look.register(2, select.POLLOUT)
    with suppress(OSError):
        if any(event & select.POLLOUT for _, event in look.poll(0)):
            os.write(2, f"mcp-multi-server: {one_line(text)}\n".encode(errors="replace")[:LONGEST_SAID])
