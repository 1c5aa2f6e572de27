"""Connecting to the daemon's socket, and the errors if that cannot be done."""

from __future__ import annotations

import errno
import os
import socket
import struct

import click

from ..core import paths
from .failures import NotThere, Unreachable

CONNECT_TIMEOUT = 5.0
RETRY_EVERY = 0.1
"""Seconds."""
_START = "start it with `mcp-multi-server serve`"


def connect(explicit: str | None, *, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """A connection to the daemon: at `explicit`, else at the first usual place where one listens.

    `timeout`: seconds that a daemon which listens has for taking it; with 0 nothing is waited for.

    Raises:
        NotThere: nothing listens anywhere.
        Unreachable: something does, but it does not respond or does not let us in.
        click.UsageError: the path is none that a socket can have.

    """
    refusals: list[str] = []
    for path in _candidates(explicit):
        if not paths.fits_socket_address(path):
            refusals.append(f"too long for a socket: {path}")
            continue
        try:
            return _open(path, timeout)
        except FileNotFoundError:
            refusals.append(f"no socket at {path}")
        except ConnectionRefusedError:
            refusals.append(f"nothing listens at {path}")
        except BlockingIOError:
            within = f" within {timeout:g} s" if timeout else ""
            raise Unreachable(f"the daemon does not respond: {path} took no connection{within}") from None
        except PermissionError:
            raise Unreachable(f"the daemon is not reachable: permission denied for {path}") from None
        except OSError as failure:
            refusals.append(f"{path}: {os.strerror(failure.errno or errno.EIO)}")
    raise NotThere(f"the daemon is not reachable: {', '.join(refusals)}; {_START}")


def check_socket_path(path: str) -> str:
    """`path`, if it is short enough for a socket. Raises click.UsageError."""
    if not paths.fits_socket_address(path):
        raise click.UsageError(f"the path of a socket has at most {paths.SOCKET_PATH_BYTES} bytes: {path}")
    return path


def _candidates(explicit: str | None) -> tuple[str, ...]:
    if named := explicit or os.environ.get(paths.SOCKET_VARIABLE):
        return (check_socket_path(named),)
    uid, tmpdir = os.getuid(), paths.temporary_directory(os.environ)
    found = paths.socket_candidates(os.environ, uid, tmpdir)
    # Anybody may make this one in the temporary directory, under the name that ours would have.
    shared = paths.temporary_socket(uid, tmpdir)
    return tuple(path for path in found if path != shared or not _is_foreign(os.path.dirname(path), uid))


def _is_foreign(directory: str, uid: int) -> bool:
    """Whether another user made the directory: then what listens there is not our daemon."""
    try:
        return os.lstat(directory).st_uid != uid
    except OSError:
        return False


def _open(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # In Python's own timeout mode a full backlog is EAGAIN at once; the kernel's timer waits for a place in it.
        if timeout:
            _set_send_timeout(connection, timeout)
        else:
            connection.setblocking(False)
        connection.connect(path)
        _set_send_timeout(connection, 0.0)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_send_timeout(connection: socket.socket, seconds: float) -> None:
    whole, rest = divmod(seconds, 1.0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(whole), int(rest * 1e6)))
