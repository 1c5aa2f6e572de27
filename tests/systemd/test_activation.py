"""A socket that systemd made, taken over by a real daemon from a real systemd-socket-activate."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.entries import fixture
from tests.e2e.harness import Daemon
from tests.e2e.wire import Wire
from tests.polling import eventually
from tests.systemd.needs import require

EXIT_OK, EXIT_FAILED = 0, 1
WITHIN = 20.0


@pytest.fixture(autouse=True, scope="module")
def socket_activate() -> None:
    require("" if shutil.which("systemd-socket-activate") else "not installed: systemd-socket-activate")


class Activated(Daemon):
    """A daemon that systemd-socket-activate starts for the first client, in the same process."""

    listens: tuple[str, ...] = ()
    names: str = "mcp"
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        sockets = [f"--listen={path}" for path in self.listens or (str(self.socket),)]
        kept = [f"--setenv={name}" for name in self.environment]
        serve = ["-m", "mcp_multi_server", "serve", "--config", str(self.config), *self.options]
        return ["systemd-socket-activate", *sockets, f"--fdname={self.names}", *kept, sys.executable, *serve]

    def await_listening(self) -> None:
        """Until systemd-socket-activate listens; it prints so before."""
        eventually(lambda: self.log.count("Listening on") >= (len(self.listens) or 1), within=WITHIN)

    def refusal(self) -> str:
        """What a daemon that does not want its sockets says as it ends."""
        self.launch()
        self.await_listening()
        first = self.listens[0] if self.listens else str(self.socket)
        family = socket.AF_UNIX if first[0] in "/@" else socket.AF_INET
        with socket.socket(family) as client:
            if family == socket.AF_INET:
                client.connect(("127.0.0.1", int(first.rpartition(":")[2])))
            else:
                client.connect("\0" + first[1:] if first[0] == "@" else first)
            assert self.wait() == EXIT_FAILED
        assert "Traceback" not in self.log
        return self.log


@pytest.fixture
def daemon() -> Iterator[Activated]:
    daemon = Activated({"one": fixture()})
    try:
        yield daemon
    except BaseException as error:
        error.add_note(daemon.log[-3000:])
        raise
    finally:
        daemon.remove()


def test_a_client_that_connects_before_the_daemon_runs_is_served(daemon: Activated) -> None:
    daemon.launch()
    daemon.await_listening()
    with daemon.wire() as wire:
        assert wire.result("daemon/status", {})["pid"] == daemon.pid
    assert "daemon.listening" in daemon.log


def test_the_socket_is_left_to_systemd_and_the_lock_is_not(daemon: Activated) -> None:
    daemon.start().await_up("one")
    lock = daemon.socket.with_name("mcp.sock.lock")
    assert lock.read_text() == f"{daemon.pid}\n"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == EXIT_OK
    assert daemon.socket.is_socket()
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_access_for_others_needs_no_restart_where_the_sockets_mode_is_systemds(daemon: Activated) -> None:
    daemon.start()
    daemon.rewrite({}, settings={"access": {"users": [4321]}})
    daemon.reload()
    assert daemon.await_logged("config.applied")
    assert not daemon.logged("daemon.warning")


def test_who_connects_while_it_stops_waits_for_the_next_daemon(daemon: Activated) -> None:
    """The test holds the listening socket, as systemd does, and passes it on twice."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(16)
        first = _pass_on(daemon, listener)
        eventually(lambda: "server.ready" in daemon.log, within=WITHIN)
        with daemon.legacy() as busy:
            busy.post("tools/call", {"name": "slow", "arguments": {"seconds": 60}})
            eventually(lambda: daemon.server("one")["inFlight"] == 1)
            first.send_signal(signal.SIGTERM)
            eventually(lambda: "daemon.stopping" in daemon.log, within=WITHIN)
            with daemon.wire() as late:
                id = late.post("daemon/status", {})
                assert first.wait(WITHIN) == EXIT_OK
                second = _pass_on(daemon, listener)
                assert late.answer(id)["result"]["pid"] == second.pid
        second.send_signal(signal.SIGTERM)
        assert second.wait(WITHIN) == EXIT_OK


def _pass_on(daemon: Activated, listener: socket.socket) -> subprocess.Popen[bytes]:
    """Start a daemon with a socket as descriptor 3, as systemd would."""
    start = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=whatever exec "$@"'
    serve = [sys.executable, "-m", "mcp_multi_server", "serve", "--config", str(daemon.config)]
    number = listener.fileno()
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            ["bash", "-c", start, "_", str(number), *serve],
            pass_fds=[number],
            stderr=log,
            env=daemon.environment,
            start_new_session=True,
        )
    return daemon.process


def test_no_client_is_refused_or_cut_off_over_many_restarts(daemon: Activated) -> None:
    """Each client connects, asks and is answered, by whichever daemon it meets."""
    daemon.settings = {"drain": 0}
    daemon.rewrite({})
    failures: list[BaseException] = []
    pids: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                with Wire(daemon.socket) as wire:
                    pids.add(wire.result("daemon/status", {})["pid"])
            except BaseException as failure:
                failures.append(failure)
                return

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(128)
        process = _pass_on(daemon, listener)
        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for _ in range(2):
                eventually(lambda: process.pid in pids, within=WITHIN)  # noqa: B023  # called before the next one
                process.send_signal(signal.SIGTERM)
                assert process.wait(WITHIN) == EXIT_OK
                process = _pass_on(daemon, listener)
            eventually(lambda: process.pid in pids, within=WITHIN)
        finally:
            over.set()
            for client in clients:
                client.join(WITHIN)
            process.send_signal(signal.SIGTERM)
            process.wait(WITHIN)
    assert not failures
    assert len(pids) == 3


def test_of_several_sockets_the_one_named_mcp_is_taken(daemon: Activated) -> None:
    daemon.listens = (str(daemon.socket), str(daemon.directory / "other"))
    daemon.names = "mcp:other"
    daemon.start()
    assert daemon.status()["pid"] == daemon.pid


@pytest.mark.parametrize("names", ["one:other", "mcp:mcp"])
def test_of_several_sockets_without_that_name_none_is_guessed(daemon: Activated, names: str) -> None:
    daemon.listens = (str(daemon.socket), str(daemon.directory / "other"))
    daemon.names = names
    assert "systemd passed 2 sockets; one, or one with FileDescriptorName=mcp, is needed" in daemon.refusal()


def test_another_path_on_the_command_line_is_a_contradiction(daemon: Activated) -> None:
    daemon.options = ("--socket", str(daemon.directory / "else"))
    assert f"systemd passed {daemon.socket}, and {daemon.directory / 'else'} was asked for" in daemon.refusal()


def test_the_same_path_on_the_command_line_is_none(daemon: Activated) -> None:
    daemon.options = ("--socket", os.path.join(daemon.socket.parent, ".", daemon.socket.name))
    daemon.start()


def test_the_lock_of_a_running_daemon_holds_for_a_passed_socket_too(daemon: Activated) -> None:
    with daemon.socket.with_name("mcp.sock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        assert "already running (pid 4711)" in daemon.refusal()


def test_a_socket_that_anybody_could_use_is_not_used(daemon: Activated) -> None:
    daemon.listens = (f"@mms-{os.getpid()}",)
    assert "is an abstract socket" in daemon.refusal()


def test_a_socket_of_another_kind_is_not_used(daemon: Activated) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    daemon.listens = (f"127.0.0.1:{port}",)
    assert "is no listening Unix stream socket" in daemon.refusal()


def test_descriptors_that_were_passed_to_another_process_are_not_touched() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with Daemon({}, environment=environment) as daemon:
        assert daemon.socket.is_socket()
