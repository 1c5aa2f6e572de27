"""The children of the running daemon, in a file beside its lock, for the one that starts after it was killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec

from .. import files
from ..core.jsonrpc import decoder
from ..core.processes import Identity, Record
from ..files import MissingFile, UnusableFile
from . import procfs

SUFFIX = ".children"
SIZE_CAP = 1024 * 1024
_decode: Callable[[bytes], Record] = decoder(Record)


class ChildrenFile:
    """The file of children of one daemon, which makes this. `doubt` is told what goes wrong.

    No other process writes the file, since the daemon holds the lock of the socket that the file is named after.
    """

    def __init__(self, socket: str, doubt: Callable[[str], None]) -> None:
        self.path = socket + SUFFIX
        self._doubt = doubt
        self._run = ""
        self._failing = False

    def take_over(self, run: str) -> Record | None:
        """What the last daemon left in the file if it was killed. From now on the file is about `run`."""
        left = None
        try:
            left = read(self.path)
        except UnusableFile as failure:
            self._doubt(f"{self.path} is ignored: {failure}")
        self._run = run
        return left

    def note(self, children: Iterable[Identity]) -> None:
        """Write the file anew. If that fails the old file stays, which names the run too; the first failure is told."""
        record = Record(procfs.boot_id(), self._run, tuple((each.pid, each.started) for each in children))
        try:
            # Not durable: after a restart of the machine nothing in it is true any more.
            files.replace(self.path, msgspec.json.encode(record), durable=False)
        except OSError as failure:
            if not self._failing:
                self._doubt(f"{self.path} cannot be written: {os.strerror(failure.errno or 0)}")
            self._failing = True
        else:
            self._failing = False

    def remove(self) -> None:
        """Remove the file: no child is left."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def read(path: str) -> Record | None:
    """What the file says; None if there is none. Raises UnusableFile."""
    try:
        data, status = files.read(path, cap=SIZE_CAP, follow_links=False)
    except MissingFile:
        return None
    files.check_writers(status)
    if status.st_nlink != 1:
        raise UnusableFile("it has another name, under which others may write it")
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnusableFile("it is damaged") from None
