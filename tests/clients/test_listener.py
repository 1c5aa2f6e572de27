"""The socket as a file: never stolen, never left open to others."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcp_multi_server.clients.listener import Listener, SocketUnusable, listen


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def path(directory: Path) -> str:
    return str(directory / "run" / "mcp.sock")


def is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_is_private_in_a_private_directory_whatever_the_umask(path: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = listen(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert is_alive(path)
    listener.close()
    assert not os.path.exists(path)


def test_a_crowd_gets_a_place_before_anyone_is_accepted(path: str) -> None:
    listener = listen(path)
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with ExitStack() as stack:
        for _ in range(min(512, most)):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            assert client.connect_ex(path) == 0
    listener.close()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_shared_socket_can_be_reached_by_other_users(path: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = listen(path, shared=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    listener.close()


def test_a_second_daemon_is_told_the_pid_of_the_first_and_changes_nothing(path: str) -> None:
    first = listen(path)
    inode = os.stat(path).st_ino
    with pytest.raises(SocketUnusable, match=rf"already running \(pid {os.getpid()}\)"):
        listen(path)
    assert os.stat(path).st_ino == inode
    assert is_alive(path)
    first.close()


def test_the_socket_of_a_dead_daemon_is_replaced(path: str) -> None:
    dead = listen(path)
    dead.socket.close()
    os.close(dead.lock)
    assert os.path.exists(path)
    again = listen(path)
    assert is_alive(path)
    again.close()


def test_a_live_socket_of_another_program_is_never_unlinked(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(SocketUnusable, match="belongs to another program"):
            listen(path)
        assert is_alive(path)


def test_a_file_that_is_no_socket_is_never_unlinked(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text("precious")
    with pytest.raises(SocketUnusable, match="exists and is not a socket"):
        listen(path)
    assert Path(path).read_text() == "precious"


def test_a_path_that_no_socket_can_have_is_named(directory: Path) -> None:
    path = str(directory / ("x" * 120))
    with pytest.raises(SocketUnusable, match=f"at most 107 work: {path}"):
        listen(path)
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(SocketUnusable, match=r"/file is not a directory"):
        listen(str(directory / "file" / "mcp.sock"))


def test_closing_leaves_the_socket_that_took_the_place_of_ours(path: str) -> None:
    ours: Listener = listen(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(path)
        ours.close()
        assert os.path.exists(path)


def test_a_failed_attempt_leaves_no_descriptor_open(path: str) -> None:
    first = listen(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(SocketUnusable):
            listen(path)
    assert len(os.listdir("/proc/self/fd")) == before
    first.close()
