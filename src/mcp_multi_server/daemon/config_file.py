"""The config on the disk: where it is, whether it can be trusted, and what the variables in it stand for."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import replace

from ..core import paths
from ..core.config import Config, Lookup, Source, parse
from ..core.errors import ConfigError, Problem

MAX_BYTES = 1 << 20
"""Of the config, and of a file that a `${file:…}` names."""
READ_ATTEMPTS = 5
READ_AGAIN_AFTER = 0.05
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
NO_CREDENTIALS = f"there are none, {CREDENTIALS_VARIABLE} is not set"
"""The end of what is said of a credential outside of a unit of systemd's."""

_CHUNK = 1 << 16


class _Unreadable(Exception):
    """A file that cannot be read, or is not to be trusted. The message does not name it."""


def find(explicit: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The path of the config: the one that was named, else the first that exists.

    Raises ConfigError with the places looked at where there is none.
    """
    if explicit:
        return os.path.abspath(explicit)
    candidates = paths.config_candidates(environ, os.getcwd(), os.path.expanduser("~"))
    for candidate in candidates:
        if len(candidates) == 1 or os.path.lexists(candidate):
            return candidate
    raise ConfigError((Problem("", f"no config found; looked for {', '.join(candidates)}"),))


def read(path: str) -> bytes:
    """The bytes of a config that nobody but us, root and its group can write. Raises ConfigError."""
    return _read_config(path)[0]


def load(path: str, environ: Mapping[str, str] = os.environ) -> Config:
    """The config in this file, its variables replaced. Raises ConfigError where it is refused as a whole."""
    data, notes = _read_config(path)
    config = parse(data, lookup_in(os.path.dirname(os.path.abspath(path)), environ))
    return replace(config, notes=(*notes, *config.notes))


def lookup_in(directory: str, environ: Mapping[str, str] = os.environ) -> Lookup:
    """What variables stand for: in `environ`, in files (relative ones in `directory`), in systemd's credentials."""

    def look(source: Source, name: str) -> str:
        match source:
            case "env":
                return _variable(name, environ)
            case "file":
                return _text_of(os.path.join(directory, os.path.expanduser(name)), f"file {name}")
            case "cred":
                return _text_of(_credential(name, environ), f"credential {name}")

    return look


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise LookupError(f"environment variable {name} is not set")
    return environ[name]


def _credential(name: str, environ: Mapping[str, str]) -> str:
    """systemd.exec(5): each credential is a file in a directory of the unit's own."""
    directory = environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        raise LookupError(f"credential {name}: {NO_CREDENTIALS}")
    if "/" in name or name in (".", ".."):
        raise LookupError("the name of a credential holds no slash")
    return os.path.join(directory, name)


def _text_of(path: str, what: str) -> str:
    try:
        return _read_stable(path)[0].decode()
    except _Unreadable as failure:
        raise LookupError(f"{what}: {failure}") from None
    except UnicodeDecodeError:
        raise LookupError(f"{what}: not UTF-8 text") from None


def _read_config(path: str) -> tuple[bytes, tuple[Problem, ...]]:
    """The bytes, and what is doubtful about the file."""
    try:
        data, status = _read_stable(path)
        _check_trusted(status)
    except _Unreadable as failure:
        raise ConfigError((Problem("", f"cannot use {path}: {failure}"),)) from None
    if status.st_mode & stat.S_IWGRP:
        return data, (Problem("", f"{path} can be written by its group, which decides what the daemon runs"),)
    return data, ()


def _check_trusted(status: os.stat_result) -> None:
    """Who can write the config decides what runs as our user."""
    if status.st_uid not in (0, os.geteuid()):
        raise _Unreadable(
            f"it belongs to user {status.st_uid}, neither to root nor to the daemon's user {os.geteuid()}"
        )
    if status.st_mode & stat.S_IWOTH:
        raise _Unreadable("everyone can write it (chmod o-w)")


def _read_stable(path: str) -> tuple[bytes, os.stat_result]:
    """The bytes and the status of a regular file that did not change while it was read. Raises _Unreadable."""
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            time.sleep(READ_AGAIN_AFTER)
        data, before, after = _read_once(path)
        if _version(before) == _version(after):
            return data, after
    raise _Unreadable("it kept changing while it was read")


def _read_once(path: str) -> tuple[bytes, os.stat_result, os.stat_result]:
    """One look at a file: its bytes, and its status before and after. O_NONBLOCK: opening a FIFO must not wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            _check_regular(before)
            return _read_all(descriptor), before, os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise _Unreadable(os.strerror(failure.errno) if failure.errno else "cannot be read") from None
    except ValueError:
        raise _Unreadable("its name holds a NUL byte") from None


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Unreadable("it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable("it is no regular file")


def _read_all(descriptor: int) -> bytes:
    parts = []
    size = 0
    while part := os.read(descriptor, _CHUNK):
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise _Unreadable(f"it is larger than {MAX_BYTES} bytes")
    return b"".join(parts)


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
