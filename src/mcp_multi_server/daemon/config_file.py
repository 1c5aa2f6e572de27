"""The config on the disk: where it is, whether it can be trusted, and what the variables in it stand for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace

from .. import files
from ..core import paths
from ..core.config.config import Config, Lookup, Source, parse
from ..core.errors import ConfigError, Problem
from ..files import UnusableFile

MAX_BYTES = 1 << 20
"""Of the config, and of a file that a `${file:…}` names."""
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
NO_CREDENTIALS = f"there are none, {CREDENTIALS_VARIABLE} is not set"
"""The end of what is said of a credential outside of a unit of systemd's."""


def find(explicit: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The path of the config: the one that was named, else the first that exists.

    Raises ConfigError with the places looked at where there is none.
    """
    if explicit:
        return os.path.abspath(explicit)
    candidates = paths.config_candidates(environ, os.getcwd(), os.path.expanduser("~"))
    for candidate in candidates:
        # lexists: a link that leads nowhere is an error to tell, not a place to pass over.
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
        if name == "HOME":  # not every service manager sets it, but every user has one
            return os.path.expanduser("~")
        raise LookupError(f"environment variable {name} is not set")
    return environ[name]


def _credential(name: str, environ: Mapping[str, str]) -> str:
    """systemd.exec(5): each credential is a file in a directory of the unit's own."""
    directory = environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        raise LookupError(f"credential {name}: {NO_CREDENTIALS}")
    # Such a name would lead out of the directory.
    if "/" in name or name in (".", ".."):
        raise LookupError("the name of a credential holds no slash")
    return os.path.join(directory, name)


def _text_of(path: str, what: str) -> str:
    try:
        return files.read(path, cap=MAX_BYTES)[0].decode()
    except UnusableFile as failure:
        raise LookupError(f"{what}: {failure}") from None
    except UnicodeDecodeError:
        # `from None`: a UnicodeDecodeError holds the bytes, which may be a secret.
        raise LookupError(f"{what}: not UTF-8 text") from None


def _read_config(path: str) -> tuple[bytes, tuple[Problem, ...]]:
    """The bytes, and what is doubtful about the file. Who can write the config decides what runs as our user."""
    try:
        data, status = files.read(path, cap=MAX_BYTES)
        files.check_writers(status, root_may=True, group_may=True)
    except UnusableFile as failure:
        raise ConfigError((Problem("", f"cannot use {path}: {failure}"),)) from None
    if status.st_mode & stat.S_IWGRP:
        return data, (Problem("", f"{path} can be written by its group, which decides what the daemon runs"),)
    return data, ()
