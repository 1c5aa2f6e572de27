"""Files that decide something: read only where nobody else could have written them, and replaced in one step."""

from __future__ import annotations

import contextlib
import os
import stat
import time

READ_ATTEMPTS = 5
READ_AGAIN_AFTER = 0.05
"""Seconds between two attempts to read a file that changed meanwhile."""
_CHUNK = 1 << 16


class UnusableFile(Exception):
    """A file that cannot be read or must not be trusted. The message says why, as of "it", and does not name it."""


class MissingFile(UnusableFile):
    """There is no such file."""


def read(path: str, *, cap: int, follow_links: bool = True) -> tuple[bytes, os.stat_result]:
    """The bytes and the status of a regular file that did not change while it was read.

    `cap`: the most bytes, in whole MiB. Blocks, at most 0.2 s where somebody keeps writing. Raises UnusableFile.
    """
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            time.sleep(READ_AGAIN_AFTER)
        data, before, after = _read_once(path, cap, 0 if follow_links else os.O_NOFOLLOW)
        if _version(before) == _version(after):
            return data, after
    raise UnusableFile("it kept changing while it was read")


def check_writers(status: os.stat_result, *, root_may: bool = False, group_may: bool = False) -> None:
    """Check that only our own user can have written the file, and root and its group where they may.

    Raises UnusableFile.
    """
    own, others = os.geteuid(), stat.S_IWOTH if group_may else stat.S_IWOTH | stat.S_IWGRP
    if status.st_uid != own and not (root_may and status.st_uid == 0):
        whose = f"neither to root nor to the daemon's user {own}" if root_may else f"not to the daemon's user {own}"
        raise UnusableFile(f"it belongs to user {status.st_uid}, {whose}")
    if status.st_mode & others:
        raise UnusableFile("everyone can write it (chmod o-w)" if group_may else "others can write it (chmod go-w)")


def replace(path: str, data: bytes, *, durable: bool) -> None:
    """Put a file with these bytes, for our user alone, in the place of `path`. Raises OSError.

    Whoever reads meanwhile, or after a crash, finds the old file or the new one whole. `durable`: wait until the disk
    has it, so that this holds after a power failure too. Nothing is written through a link.
    """
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            _write_all(file.fileno(), data)
            if durable:
                os.fsync(descriptor)
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # one write takes 2 GiB at most, and less where the disk is nearly full
        rest = rest[os.write(descriptor, rest) :]


def _read_once(path: str, cap: int, flags: int) -> tuple[bytes, os.stat_result, os.stat_result]:
    """One look at a file: its bytes, and its status before and after. O_NONBLOCK: opening a FIFO must not wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
        try:
            before = os.fstat(descriptor)
            _check_regular(before)
            return _read_all(descriptor, cap), before, os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        kind = MissingFile if isinstance(failure, FileNotFoundError) else UnusableFile
        raise kind(os.strerror(failure.errno) if failure.errno else "cannot be read") from None
    except ValueError:
        raise UnusableFile("its name holds a NUL byte") from None


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnusableFile("it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFile("it is no regular file")


def _read_all(descriptor: int, cap: int) -> bytes:
    parts, size = [], 0
    while part := os.read(descriptor, _CHUNK):
        parts.append(part)
        size += len(part)
        if size > cap:
            raise UnusableFile(f"it is larger than {cap >> 20} MiB")
    return b"".join(parts)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
