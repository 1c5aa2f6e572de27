"""The children of the running daemon, written down beside its lock for the one that starts after it was killed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable

import msgspec

from ..core.processes import Identity, Record
from . import procfs

SUFFIX = ".children"
SIZE_CAP = 1024 * 1024


class Doubtful(Exception):
    """What is there was not written by a daemon of ours, or is damaged; the message says what is wrong with it."""


class ChildrenFile:
    """The file of one daemon, which holds the socket's lock: nobody else writes it. `doubt` is told what goes wrong."""

    def __init__(self, socket: str, doubt: Callable[[str], None]) -> None:
        self.path = socket + SUFFIX
        self._doubt = doubt
        self._run = ""
        self._failing = False

    def take_over(self, run: str) -> Record | None:
        """What the daemon before left, if it was killed; from now on the file is about `run`."""
        left = None
        try:
            left = read(self.path)
        except Doubtful as doubtful:
            self._doubt(f"{self.path} is ignored: {doubtful}")
        self._run = run
        return left

    def note(self, children: Iterable[Identity]) -> None:
        """Write the file anew. Where that fails the old one stays, which names the run; the first failure is told."""
        record = Record(procfs.boot_id(), self._run, tuple((each.pid, each.started) for each in children))
        try:
            _replace(self.path, msgspec.json.encode(record))
        except OSError as failure:
            if not self._failing:
                self._doubt(f"{self.path} cannot be written: {os.strerror(failure.errno or 0)}")
            self._failing = True
        else:
            self._failing = False

    def remove(self) -> None:
        """Nothing is left to write down."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def read(path: str) -> Record | None:
    """What the file says; None where there is none. Raises Doubtful."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise Doubtful(os.strerror(failure.errno or 0)) from None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Doubtful("it is no plain file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Doubtful("others than this user could have written it")
        if found.st_size > SIZE_CAP:
            raise Doubtful(f"it has {found.st_size} bytes")
        try:
            return msgspec.json.decode(file.read(SIZE_CAP), type=Record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Doubtful("it is damaged") from None


def _replace(path: str, content: bytes) -> None:
    """Never half a file, never one that others can read, and nothing is written through a link."""
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
