"""The daemon's Unix socket: made so that nobody else gets in and no living daemon loses its own, or systemd's."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.paths import SOCKET_PATH_BYTES, fits_socket_address
from ..core.systemd import passed_descriptors

BACKLOG = 4096
"""Clients that may wait to be accepted: most programs take a full backlog (EAGAIN) for a daemon that is not there."""
PASSED_NAME = "mcp"
"""`FileDescriptorName=` of our socket, where a unit passes several."""


class SocketUnusable(Exception):
    """The socket cannot be had; the message says why, for the person who starts the daemon."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the lock that makes it ours."""

    path: str
    socket: socket.socket
    lock: int
    inode: tuple[int, int] | None
    """Of the file that we made; None where systemd made it and keeps it."""

    @property
    def is_passed(self) -> bool:
        """Whether it is systemd's, and queues clients while no daemon runs."""
        return self.inode is None

    def close(self) -> None:
        """Stop listening; the socket's file goes where it is still the one we made. The lock's file stays."""
        self.socket.close()
        with contextlib.suppress(OSError):
            # Another daemon may have made a socket of its own there, after somebody removed ours.
            if self.inode is not None and _inode(self.path) == self.inode:
                os.unlink(self.path)
        os.close(self.lock)


def listen(path: str, *, shared: bool = False) -> Listener:
    """Listen on `path`; `shared`: other users may connect, and are judged by who they are. Raises SocketUnusable."""
    if not fits_socket_address(path):
        size = len(os.fsencode(path))
        raise SocketUnusable(f"the socket path has {size} bytes, at most {SOCKET_PATH_BYTES} work: {path}")
    lock = -1
    try:
        # Others need to pass through the directory, and are judged when they connect.
        _make_directory(os.path.dirname(path) or ".", 0o711 if shared else 0o700)
        lock = _lock(path + ".lock")
        _remove_leftover(path)
        # Only with the lock held: nobody else makes or removes this socket meanwhile.
        return _bind(path, 0o666 if shared else 0o600, lock)
    except (OSError, SocketUnusable) as failure:
        if lock >= 0:
            os.close(lock)
        if isinstance(failure, OSError):
            raise SocketUnusable(f"cannot listen on {path}: {os.strerror(failure.errno or 0)}") from None
        raise


def inherit(environ: Mapping[str, str], named: str | None = None) -> Listener | None:
    """The socket that systemd passed to this process, if it did; whoever says by name which one it is must mean that.

    Raises SocketUnusable.
    """
    passed = passed_descriptors(environ, os.getpid())
    if not passed:
        return None
    ours = [at for at, name in passed.items() if name == PASSED_NAME] or list(passed)
    if len(ours) != 1:
        wanted = f"one, or one with FileDescriptorName={PASSED_NAME}, is needed"
        raise SocketUnusable(f"systemd passed {len(ours)} sockets; {wanted}")
    listener = _passed_socket(ours[0])
    path = listener.getsockname()
    try:
        if named is not None and not _is_same(named, path):
            raise SocketUnusable(f"systemd passed {path}, and {named} was asked for: clients of one of them would wait")
        return Listener(path, listener, _lock(path + ".lock"), None)
    except (OSError, SocketUnusable) as failure:
        listener.close()
        if isinstance(failure, OSError):
            raise SocketUnusable(f"cannot lock {path}.lock: {os.strerror(failure.errno or 0)}") from None
        raise


def _passed_socket(descriptor: int) -> socket.socket:
    """The socket behind a descriptor, if it is one that clients can connect to by a path."""
    what = f"descriptor {descriptor}, which systemd passed,"
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        raise SocketUnusable(f"{what} is no socket") from None
    usable = found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM
    if not usable or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.close()
        raise SocketUnusable(f"{what} is no listening Unix stream socket (ListenStream=PATH, Accept=no)")
    if not isinstance(path := found.getsockname(), str) or not path:
        found.close()
        raise SocketUnusable(f"{what} is an abstract socket, which anybody could use (ListenStream=PATH)")
    found.setblocking(False)
    # A server must not inherit the socket that clients connect to.
    found.set_inheritable(False)
    return found


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.abspath(one) == os.path.abspath(other)


def _make_directory(path: str, mode: int) -> None:
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except FileExistsError:
        raise SocketUnusable(f"{path} is not a directory") from None


def _lock(path: str) -> int:
    """Take the lock file. It is never removed: two daemons could then hold locks of the same name."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise SocketUnusable(f"already running (pid {holder or 'unknown'})") from None
    # The pid of a daemon that was killed may be longer than ours.
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _remove_leftover(path: str) -> None:
    """Remove the socket of a daemon that died. The lock is ours, so none of our kind listens on it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketUnusable(f"{path} exists and is not a socket")
    if found.st_uid not in (os.geteuid(), 0) or _is_listening(path):
        raise SocketUnusable(f"{path} belongs to another program")
    os.unlink(path)


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        # EAGAIN: it listens, and its backlog is full.
        return probe.connect_ex(path) in (0, errno.EAGAIN)


def _bind(path: str, mode: int, lock: int) -> Listener:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), mode)  # before bind: the file is never there with another mode
        listener.bind(path)
        os.chmod(path, mode)  # the umask may have taken more away than was meant
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return Listener(path, listener, lock, _inode(path))


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
