"""`stdio`: bytes through, back-pressure, and who ends what."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_multi_server.cli import bridge
from mcp_multi_server.cli.failures import CommandFailed

from .wire import DEADLINE, run, running, serving

MIB = 1 << 20
PAYLOAD = random.Random(7).randbytes(8 * MIB) + b"\n\x00\xff no JSON at all"


def echo(connection: socket.socket) -> None:
    """Sends back what comes, and closes when nothing more will."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


@contextmanager
def bridged(tmp_path: Path, serve: Callable[[socket.socket], None]) -> Iterator[subprocess.Popen[bytes]]:
    path = str(tmp_path / "mcp.sock")
    with serving(path, serve), running("stdio", MCP_MULTI_SERVER_SOCKET=path) as process:
        yield process


def test_bytes_go_through_unchanged_in_both_directions(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.communicate(PAYLOAD, timeout=DEADLINE) == (PAYLOAD, b"")
        assert process.returncode == 0


def test_a_message_does_not_wait_for_the_next_one(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.stdin is not None and process.stdout is not None
        for message in (b'{"id":1}\n', b'{"id":2}\n'):
            process.stdin.write(message)
            assert process.stdout.read(len(message)) == message


def test_a_client_that_does_not_read_can_still_write(tmp_path: Path) -> None:
    """Neither direction may hold up the other: a host may write a long request before it reads an answer."""
    received = threading.Event()

    def flood_both_ways(connection: socket.socket) -> None:
        sender = threading.Thread(target=connection.sendall, args=(PAYLOAD,))
        sender.start()
        left = len(PAYLOAD)
        while left:
            left -= len(connection.recv(65536))
        received.set()
        sender.join(DEADLINE)
        connection.close()

    with bridged(tmp_path, flood_both_ways) as process:
        assert process.stdin is not None and process.stdout is not None
        unsent = memoryview(PAYLOAD)
        while unsent:
            unsent = unsent[process.stdin.write(unsent) or 0 :]
        assert received.wait(DEADLINE)
        assert read_exactly(process.stdout.fileno(), len(PAYLOAD)) == PAYLOAD


def test_a_daemon_that_does_not_read_can_still_write(tmp_path: Path) -> None:
    finish = threading.Event()

    def write_only(connection: socket.socket) -> None:
        connection.sendall(PAYLOAD)
        finish.wait(DEADLINE)
        connection.close()

    with bridged(tmp_path, write_only) as process:
        assert process.stdin is not None and process.stdout is not None
        fill(process.stdin.fileno())
        assert read_exactly(process.stdout.fileno(), len(PAYLOAD)) == PAYLOAD
        finish.set()


def test_what_the_daemon_still_answers_after_the_end_of_stdin_arrives(tmp_path: Path) -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        with connection:
            heard = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(b"late: " + heard)

    with bridged(tmp_path, answer_at_the_end) as process:
        assert process.communicate(b"question", timeout=DEADLINE) == (b"late: question", b"")
        assert process.returncode == 0


def test_a_daemon_that_goes_away_is_an_error_after_its_last_bytes(tmp_path: Path) -> None:
    def last_words(connection: socket.socket) -> None:
        connection.sendall(b"last words\n")
        connection.close()

    with bridged(tmp_path, last_words) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(100) == b"last words\n"
        assert process.wait(DEADLINE) == 1
        assert process.stderr.read() == b"error: the daemon closed the connection\n"


def test_a_daemon_that_closes_with_requests_unread_is_an_error(tmp_path: Path) -> None:
    """The kernel reports this one as a reset, and to the writer first."""
    may_close = threading.Event()

    def close_unread(connection: socket.socket) -> None:
        assert may_close.wait(DEADLINE)
        connection.close()

    with bridged(tmp_path, close_unread) as process:
        assert process.stdin is not None and process.stderr is not None
        fill(process.stdin.fileno())
        may_close.set()
        assert process.wait(DEADLINE) == 1
        assert process.stderr.read() == b"error: the daemon closed the connection\n"


def test_a_client_that_closes_stdout_is_gone(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdout.read(6)
        process.stdout.close()
        assert process.wait(DEADLINE) == 0


def test_ctrl_c_ends_it_as_an_interrupt(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdout.read(6)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130


def test_a_daemon_that_is_only_starting_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "mcp.sock")
    with socket.socket(socket.AF_UNIX) as early:
        early.bind(path)
        with running("stdio", "--wait", "15", MCP_MULTI_SERVER_SOCKET=path) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"hello\n")
            assert process.poll() is None
            os.unlink(path)
            with serving(path, echo):
                assert read_exactly(process.stdout.fileno(), 6) == b"hello\n"


def test_a_daemon_that_never_comes_is_not_reachable(tmp_path: Path) -> None:
    done = run("stdio", "--wait", "0.3", MCP_MULTI_SERVER_SOCKET=str(tmp_path / "mcp.sock"))
    assert (done.returncode, done.stdout) == (69, "")
    assert "the daemon is not reachable" in done.stderr


class Joined:
    """`join` in a thread of this process, between a socket and two pipes, to look at it closely."""

    def __init__(self) -> None:
        ours, self.daemon = socket.socketpair()
        self.stdin, self.write_end = os.pipe()
        self.read_end, self.stdout = os.pipe()
        self.failure: CommandFailed | None = None
        self.cpu_seconds = 0.0
        self.thread = threading.Thread(target=self._run, args=(ours,))

    def _run(self, ours: socket.socket) -> None:
        began = resource.getrusage(resource.RUSAGE_THREAD)
        with ours:
            try:
                bridge.join(ours, self.stdin, self.stdout)
            except CommandFailed as failure:
                self.failure = failure
        ended = resource.getrusage(resource.RUSAGE_THREAD)
        self.cpu_seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    def __enter__(self) -> Joined:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()
        self.close_stdin()
        self.thread.join(DEADLINE)
        for descriptor in (self.stdin, self.stdout, self.read_end):
            os.close(descriptor)
        assert not self.thread.is_alive()

    def close_stdin(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def end(self) -> None:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "LINGER", 0.5)


@pytest.mark.usefixtures("short_linger")
def test_a_daemon_that_does_not_close_after_the_end_of_stdin_is_left() -> None:
    with Joined() as joined:
        os.write(joined.write_end, b"question")
        joined.close_stdin()
        assert joined.daemon.recv(100) == b"question"
        assert joined.daemon.recv(100) == b""
        joined.daemon.sendall(b"answer")
        joined.end()
        assert os.read(joined.read_end, 100) == b"answer"
        assert joined.failure is None


@pytest.mark.usefixtures("short_linger")
def test_a_daemon_that_reads_nothing_does_not_keep_a_client_that_left() -> None:
    with Joined() as joined:
        fill(joined.write_end)
        joined.close_stdin()
        joined.end()
        assert joined.failure is None


def test_what_a_daemon_said_before_it_left_is_kept_for_a_slow_client() -> None:
    with Joined() as joined:
        sent = fill(joined.daemon.fileno())
        joined.daemon.close()
        assert len(read_exactly(joined.read_end, sent)) == sent
        joined.end()
        assert isinstance(joined.failure, CommandFailed)


@pytest.mark.usefixtures("short_linger")
@pytest.mark.parametrize("held_up", ["nothing", "the client", "the daemon"])
def test_waiting_costs_no_cpu(held_up: str) -> None:
    """Each case leaves a descriptor that is ready for what is not wanted of it, for as long as the linger lasts."""
    with Joined() as joined:
        if held_up == "the client":
            fill(joined.daemon.fileno())
            joined.daemon.close()
        elif held_up == "the daemon":
            fill(joined.write_end)
        joined.close_stdin()
        joined.end()
    assert joined.cpu_seconds < 0.2


def test_flags_of_shared_descriptors_are_left_as_they_were() -> None:
    with Joined() as joined:
        joined.daemon.close()
        joined.end()
        assert os.get_blocking(joined.stdin) and os.get_blocking(joined.stdout)


def fill(descriptor: int) -> int:
    """Write until nobody takes more for a while; how many bytes that was."""
    os.set_blocking(descriptor, False)
    written = 0
    while select.select([], [descriptor], [], 0.3)[1]:
        written += os.write(descriptor, b"x" * 4096)
    return written


def read_exactly(descriptor: int, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        assert select.select([descriptor], [], [], DEADLINE)[0], f"only {len(read)} of {count} bytes came"
        data = os.read(descriptor, count - len(read))
        assert data, f"the stream ended after {len(read)} of {count} bytes"
        read += data
    return bytes(read)
