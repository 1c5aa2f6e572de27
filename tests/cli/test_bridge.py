"""`stdio`: lines through, back-pressure, a daemon that comes and goes, and who ends what."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mcp_multi_server.cli import bridge
from mcp_multi_server.cli.commands import LINGER
from mcp_multi_server.cli.failures import CommandFailed
from mcp_multi_server.core.bridge.bridge import OWN
from tests.polling import eventually

from .conftest import MakeDaemon
from .wire import COMMAND, DEADLINE, LEFT_TO_THE_DAEMON, Json, Line, environment, imports_of, run, running, serving

MIB = 1 << 20
NOISE = random.Random(7).randbytes(8 * MIB).replace(b"\n", b"")
LINES = b"".join(NOISE[at : at + MIB + 7] + b"\n" for at in range(0, len(NOISE), MIB + 7)) + b'{"x":"\xc3\xa9\\/"}\r\n'
"""Lines of a megabyte and a short one. They are no JSON, which is for the receiver to say."""
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}\n'
SOON = 3.0
"""Seconds within which a process that ends at once has ended, however busy the machine is."""


def greet(lines: Iterator[bytes], connection: socket.socket) -> None:
    """Answer the ping with which a bridge begins."""
    ping = json.loads(next(lines))
    assert ping["id"].startswith(OWN)
    connection.sendall(json.dumps({"jsonrpc": "2.0", "id": ping["id"], "result": {}}).encode() + b"\n")


def greeted(connection: socket.socket) -> socket.socket:
    """The same, for who reads on without `makefile`."""
    got = b""
    while not got.endswith(b"\n"):
        got += connection.recv(1)
    greet(iter([got]), connection)
    return connection


def echo(connection: socket.socket) -> None:
    """Sends back what comes, and closes when nothing more will."""
    with connection, suppress(OSError):
        greeted(connection)
        while data := connection.recv(65536):
            connection.sendall(data)


@contextmanager
def bridged(tmp_path: Path, serve: Callable[[socket.socket], None], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    path = str(tmp_path / "mcp.sock")
    with serving(path, serve), running("stdio", *words, MCP_MULTI_SERVER_SOCKET=path) as process:
        yield process


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    unsent = memoryview(data)
    while unsent:
        unsent = unsent[process.stdin.write(unsent) or 0 :]


def lines_of(process: subprocess.Popen[bytes], count: int = 1) -> list[bytes]:
    assert process.stdout is not None
    got = b""
    while got.count(b"\n") < count:
        assert select.select([process.stdout], [], [], DEADLINE)[0], f"only {got[-200:]!r} came"
        data = os.read(process.stdout.fileno(), 1)
        assert data, f"the stream ended after {got[-200:]!r}"
        got += data
    return got.splitlines()


# --- lines ----------------------------------------------------------------------------------------------------------


def test_lines_go_through_unchanged_in_both_directions(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.stdout is not None
        writer = threading.Thread(target=write, args=(process, LINES))
        writer.start()
        assert read_exactly(process.stdout.fileno(), len(LINES)) == LINES
        writer.join(DEADLINE)
        assert process.communicate(timeout=DEADLINE) == (b"", b"")
        assert process.returncode == 0


def test_a_message_does_not_wait_for_the_next_one(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        for message in (b'{"id":1}', b'{"id":2}'):
            write(process, message + b"\n")
            assert lines_of(process) == [message]


def test_a_client_that_does_not_read_can_still_write(tmp_path: Path) -> None:
    """Neither direction may hold up the other: a host may write a long request before it reads an answer."""
    received = threading.Event()

    def flood_both_ways(connection: socket.socket) -> None:
        greeted(connection)
        sender = threading.Thread(target=connection.sendall, args=(LINES,))
        sender.start()
        left = len(LINES)
        while left:
            left -= len(connection.recv(65536))
        received.set()
        sender.join(DEADLINE)
        connection.close()

    with bridged(tmp_path, flood_both_ways) as process:
        assert process.stdout is not None
        write(process, LINES)
        assert received.wait(DEADLINE)
        assert read_exactly(process.stdout.fileno(), len(LINES)) == LINES


def test_a_daemon_that_does_not_read_can_still_write(tmp_path: Path) -> None:
    finish = threading.Event()

    def write_only(connection: socket.socket) -> None:
        greeted(connection).sendall(b'{"ready":1}\n')
        connection.sendall(LINES)
        finish.wait(DEADLINE)
        connection.close()

    with bridged(tmp_path, write_only) as process:
        assert process.stdin is not None and process.stdout is not None
        lines_of(process)
        fill(process.stdin.fileno(), CALL)
        assert read_exactly(process.stdout.fileno(), len(LINES)) == LINES
        finish.set()


def test_a_line_over_the_cap_is_answered_and_the_next_one_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "HOST_LINE", 1000)
    monkeypatch.setattr(bridge, "DAEMON_LINE", 1000)
    with Joined() as joined, joined.daemon() as daemon:
        long = b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"x":"%b"}}\n' % (b"x" * 5000)
        os.write(joined.write_end, long + CALL)
        assert daemon.readline() == CALL
        told = joined.message()
        assert (told["id"], told["error"]["message"]) == (5, "a message may have at most 1000 bytes")
        daemon.send(b'{"jsonrpc":"2.0","id":1,"result":"%b"}\n{"jsonrpc":"2.0","id":9,"result":1}\n' % (b"x" * 5000))
        assert "more than 1000 bytes" in joined.message()["error"]["message"]
        assert joined.message()["id"] == 9


def test_a_result_is_written_after_the_progress_before_it_has_been_read() -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":1}}}\n'
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n'
    result = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    with Joined() as joined, joined.daemon() as daemon:
        os.write(joined.write_end, call)
        daemon.readline()
        daemon.send(progress + result)
        assert select.select([joined.read_end], [], [], DEADLINE)[0]
        assert os.read(joined.read_end, 65536) == progress
        assert os.read(joined.read_end, 65536) == result


def test_a_host_that_reads_nothing_gets_the_result_all_the_same() -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":1}}}\n'
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n'
    result = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
    with Joined() as joined, joined.daemon() as daemon:
        os.write(joined.write_end, call)
        daemon.readline()
        daemon.send(progress + result)
        eventually(lambda: joined.unread() == len(progress + result), what="both lines in the pipe")


# --- a daemon that comes and goes -----------------------------------------------------------------------------------


def test_a_daemon_that_is_only_starting_is_waited_for_and_people_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "mcp.sock")
    with running("stdio", MCP_MULTI_SERVER_SOCKET=path) as process:
        assert process.stderr is not None
        write(process, b'{"hello":1}\n')
        told = process.stderr.readline().decode()
        assert f"no socket at {path}; start it with `mcp-multi-server serve`; waiting for it" in told
        with serving(path, echo):
            assert lines_of(process) == [b'{"hello":1}']
            assert process.stderr.readline() == b"mcp-multi-server: connected to the daemon\n"


def test_a_daemon_that_is_lost_is_found_again_and_half_lines_are_not_joined() -> None:
    with Joined() as joined:
        with joined.daemon() as first:
            os.write(joined.write_end, CALL)
            assert first.readline() == CALL
            os.write(joined.write_end, b'{"jsonrpc":"2.0","id":2,"method":"a","params":{"x":')
            first.send(b'{"jsonrpc":"2.0","id":1,"res')
        lost = joined.message()
        assert (lost["id"], lost["error"]["data"]["reason"]) == (1, "daemon_lost")
        with joined.daemon() as second:
            second.send(b'{"jsonrpc":"2.0","method":"notifications/fresh"}\n')
            assert joined.message()["method"] == "notifications/fresh"
            os.write(joined.write_end, b"1}}\n")
            assert json.loads(second.readline()) == {"jsonrpc": "2.0", "id": 2, "method": "a", "params": {"x": 1}}
            second.send(b'{"jsonrpc":"2.0","id":2,"result":{}}\n')
            assert joined.message()["id"] == 2
        joined.close_stdin()
        joined.end()
        assert joined.failure is None


def test_requests_that_were_not_written_to_their_end_are_carried_out_by_the_next_daemon() -> None:
    """The first one reads nothing, so that some are in its socket, one in part, and others not at all."""
    calls = [
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":"%b"}\n' % (at, b"x" * 50_000) for at in range(20)
    ]
    with Joined() as joined:
        writer = threading.Thread(target=write_all, args=(joined.write_end, b"".join(calls)))
        with joined.daemon() as first:
            writer.start()
            assert first.readline() == calls[0]
            writer.join(DEADLINE)
        answered = set[int]()
        with joined.daemon() as second:
            os.write(joined.write_end, b'{"jsonrpc":"2.0","method":"notifications/last"}\n')
            sent = list(iter(second.readline, b'{"jsonrpc":"2.0","method":"notifications/last"}\n'))
            for line in sent:
                second.send(b'{"jsonrpc":"2.0","id":%d,"result":0}\n' % json.loads(line)["id"])
            while len(answered) < len(calls):
                answered.add(joined.message()["id"])
        assert 0 < len(sent) < len(calls)
        assert sent == calls[-len(sent) :]


def test_what_a_daemon_said_before_it_left_is_kept_for_a_slow_client() -> None:
    line = b'{"jsonrpc":"2.0","method":"notifications/x"}\n'
    with Joined() as joined:
        with joined.daemon() as daemon:
            sent = fill(daemon.connection.fileno(), line)
        got = read_exactly(joined.read_end, sent // len(line) * len(line))
        assert set(got.splitlines()) == {line.strip()}


def test_a_daemon_that_does_not_let_us_in_is_told_of_and_not_asked_again_and_again(daemon_with: MakeDaemon) -> None:
    def refuse(line: Line, request: Json) -> None:
        error = {"code": -32600, "message": "user 7 may not", "data": {"reason": "access"}}
        line.send({"id": request["id"], "error": error})
        line.hang_up()

    daemon = daemon_with({"ping": refuse})
    with running("stdio", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert process.stderr is not None
        assert b"the daemon refuses this client: user 7 may not; asking again every 30 s" in process.stderr.readline()
        write(process, CALL)
        assert json.loads(lines_of(process)[0])["error"]["message"] == "user 7 may not"
        assert len(daemon.lines) == 1


def test_a_full_backlog_does_not_keep_it_from_noticing_that_the_host_left(tmp_path: Path) -> None:
    path = str(tmp_path / "mcp.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with running("stdio", MCP_MULTI_SERVER_SOCKET=path) as process:
            assert process.stdin is not None and process.stderr is not None
            assert f"{path} took no connection; waiting" in process.stderr.readline().decode()
            process.stdin.close()
            assert process.wait(SOON) == 69


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
def test_a_host_that_leaves_and_waits_for_nothing_is_not_waited_for(tmp_path: Path, there: bool) -> None:
    """Measured from its end of stdin: SDKs kill after two seconds."""
    path = str(tmp_path / "mcp.sock")
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {"notifications": {}}}
    with serving(path if there else path + ".other", echo), running("stdio", MCP_MULTI_SERVER_SOCKET=path) as process:
        assert process.stdin is not None and process.stderr is not None
        if there:
            write(process, json.dumps(listen).encode() + b"\n")
            lines_of(process)
        else:
            process.stderr.readline()
        began = time.monotonic()
        process.stdin.close()
        assert process.wait(DEADLINE) == (0 if there else 69)
        assert time.monotonic() - began < LINGER / 2


def test_what_the_daemon_still_answers_after_the_end_of_stdin_arrives(tmp_path: Path) -> None:
    def answer_late(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            lines = connection.makefile("rb")
            greet(lines, connection)
            request = json.loads(next(lines))
            time.sleep(0.3)
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": 5}).encode() + b"\n")

    with bridged(tmp_path, answer_late) as process:
        out, err = process.communicate(CALL.strip(), timeout=DEADLINE)  # the end of stdin ends the last line, too
        assert (json.loads(out)["result"], err, process.returncode) == (5, b"", 0)


def test_an_answer_that_takes_too_long_is_given_up_aloud_and_cancelled_at_the_daemon(tmp_path: Path) -> None:
    heard: list[Json] = []

    def never(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            lines = connection.makefile("rb")
            greet(lines, connection)
            heard.extend(json.loads(line) for line in lines)

    with bridged(tmp_path, never, "--linger", "0.2") as process:
        out, err = process.communicate(CALL + CALL.replace(b":1,", b":2,"), timeout=DEADLINE)
        assert (out, process.returncode) == (b"", 1)
        assert err == b"error: 2 answers were dropped: the client left before it had come\n"
    assert [message["params"].get("requestId") for message in heard[2:]] == [1, 2]


def test_without_a_daemon_a_request_of_a_host_that_left_is_answered_with_the_reason(tmp_path: Path) -> None:
    done = run("stdio", "--linger", "0.1", stdin=CALL, MCP_MULTI_SERVER_SOCKET=str(tmp_path / "mcp.sock"))
    assert done.returncode == 69
    assert json.loads(done.stdout)["error"]["data"]["reason"] == "daemon_away"
    assert "the daemon is not reachable" in done.stderr


def test_a_client_that_closes_stdout_is_gone(tmp_path: Path) -> None:
    with bridged(tmp_path, echo) as process:
        assert process.stdout is not None
        write(process, b'{"ready":1}\n')
        lines_of(process)
        process.stdout.close()
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    def never(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            greeted(connection).sendall(b'{"ready":1}\n')
            connection.recv(65536)
            connection.recv(65536)

    with bridged(tmp_path, never, "--linger", "60") as process:
        assert process.stdin is not None
        lines_of(process)
        write(process, CALL)
        process.stdin.close()
        process.send_signal(number)
        assert process.wait(SOON) == code


def test_a_person_who_ends_the_input_twice_does_not_wait_for_answers(tmp_path: Path) -> None:
    """On a terminal: Ctrl-D once to say no more, twice to leave."""
    path, asked = str(tmp_path / "mcp.sock"), threading.Event()

    def never(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            lines = connection.makefile("rb")
            greet(lines, connection)
            next(lines)
            asked.set()
            connection.recv(65536)

    master, slave = pty.openpty()
    words = [*COMMAND, "stdio", "--linger", "60"]
    variables = environment(MCP_MULTI_SERVER_SOCKET=path)
    with serving(path, never):
        process = subprocess.Popen(words, stdin=slave, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables)
        os.close(slave)
        os.write(master, CALL)
        assert asked.wait(DEADLINE)
        os.write(master, b"\x04")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        os.write(master, b"\x04")
        _, err = process.communicate(timeout=SOON)
        assert (process.returncode, err) == (1, b"error: 1 answer was dropped: the client left before it had come\n")
    os.close(master)


def test_a_host_that_reads_neither_answers_nor_stderr_does_not_stop_it(tmp_path: Path) -> None:
    """Its stderr is full before the daemon goes away, of which there is something to say."""
    into, out_of = os.pipe()
    os.set_blocking(out_of, False)
    with suppress(BlockingIOError):
        while True:
            os.write(out_of, b"x" * 65536)
    os.set_blocking(out_of, True)
    path = str(tmp_path / "mcp.sock")
    variables = environment(MCP_MULTI_SERVER_SOCKET=path)
    words = [*COMMAND, "stdio"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out_of, env=variables, bufsize=0
    ) as process:
        time.sleep(0.7)  # by then it has had its say
        write(process, b'{"hello":1}\n')
        with serving(path, echo):
            assert lines_of(process) == [b'{"hello":1}']
        process.kill()
    os.close(into)
    os.close(out_of)


def test_it_imports_nothing_heavy(daemon_with: MakeDaemon) -> None:
    code, imported = imports_of("stdio", daemon=daemon_with({"ping": {}}))
    assert code == 0
    assert not imported & (LEFT_TO_THE_DAEMON | {"rich"})


@pytest.mark.parametrize("held_up", ["nothing", "the client", "the daemon", "no daemon"])
def test_waiting_costs_no_cpu(held_up: str) -> None:
    """Each case leaves a descriptor that is ready for what is not wanted of it, for as long as the linger lasts."""
    with Joined(linger=0.5) as joined:
        if held_up == "no daemon":
            os.write(joined.write_end, CALL)
        else:
            with joined.daemon() as daemon:
                os.write(joined.write_end, CALL)
                daemon.readline()
                if held_up == "the client":
                    fill(daemon.connection.fileno(), b'{"jsonrpc":"2.0","method":"x","params":"%b"}\n' % (b"x" * 4000))
                elif held_up == "the daemon":
                    fill(joined.write_end, CALL)
                joined.close_stdin()
                if held_up != "the client":
                    joined.end()
        joined.close_stdin()
        joined.end()
    assert joined.cpu_seconds < 0.2


def test_flags_of_shared_descriptors_are_left_as_they_were() -> None:
    with Joined() as joined:
        joined.close_stdin()
        joined.end()
        assert os.get_blocking(joined.stdin) and os.get_blocking(joined.stdout)


class Daemon:
    """The one that a `Joined` has connected to."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lines = connection.makefile("rb")
        greet(self.lines, connection)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def readline(self) -> bytes:
        return self.lines.readline()


class Joined:
    """`join` in a thread of this process, between a socket and two pipes, to look at it closely."""

    def __init__(self, linger: float = 0.5) -> None:
        self.directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"joined-{os.getpid()}-{id(self)}"
        self.directory.mkdir()
        self.path = str(self.directory / "s")
        self.stdin, self.write_end = os.pipe()
        self.read_end, self.stdout = os.pipe()
        self.failure: CommandFailed | None = None
        self.cpu_seconds = 0.0
        self.linger = linger
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        began = resource.getrusage(resource.RUSAGE_THREAD)
        try:
            bridge.join(self.path, self.stdin, self.stdout, hold=DEADLINE, wait=DEADLINE, linger=self.linger)
        except CommandFailed as failure:
            self.failure = failure
        ended = resource.getrusage(resource.RUSAGE_THREAD)
        self.cpu_seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    def __enter__(self) -> Joined:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close_stdin()
        self.thread.join(DEADLINE)
        for descriptor in (self.stdin, self.stdout, self.read_end):
            os.close(descriptor)
        self.directory.rmdir()
        assert not self.thread.is_alive()

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """A daemon that the bridge has found; it is gone when this is left."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            listener.settimeout(DEADLINE)
            connection, _ = listener.accept()
            os.unlink(self.path)
        connection.settimeout(DEADLINE)
        daemon = Daemon(connection)
        try:
            yield daemon
        finally:
            daemon.lines.close()
            connection.close()

    def message(self) -> Json:
        """The next message that the host reads."""
        got = b""
        while not got.endswith(b"\n"):
            assert select.select([self.read_end], [], [], DEADLINE)[0], f"only {got!r} came"
            got += os.read(self.read_end, 1)
        found: Json = json.loads(got)
        return found

    def unread(self) -> int:
        """Bytes that wait for the host."""
        (count,) = struct.unpack("i", fcntl.ioctl(self.read_end, termios.FIONREAD, b"\0\0\0\0"))
        return int(count)

    def close_stdin(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def end(self) -> None:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


def write_all(descriptor: int, data: bytes) -> None:
    unsent = memoryview(data)
    while unsent:
        unsent = unsent[os.write(descriptor, unsent) :]


def fill(descriptor: int, line: bytes) -> int:
    """Write a line again and again until nobody takes more for a while; how many bytes that was."""
    os.set_blocking(descriptor, False)
    written = 0
    while select.select([], [descriptor], [], 0.3)[1]:
        written += os.write(descriptor, (line * 100)[written % len(line) :])
    return written


def read_exactly(descriptor: int, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        assert select.select([descriptor], [], [], DEADLINE)[0], f"only {len(read)} of {count} bytes came"
        data = os.read(descriptor, count - len(read))
        assert data, f"the stream ended after {len(read)} of {count} bytes"
        read += data
    return bytes(read)
