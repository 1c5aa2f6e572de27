"""A config file as a value: which servers, with what settings, and what is wrong with which entry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType

from .config_reading import UNKNOWN_KEY, JsonObject, Place, Reading, decode, read_object, repeated
from .errors import ConfigError, Problem
from .settings import AccessConfig, DaemonConfig, LimitsConfig, LogConfig, MetricsConfig, ServerConfig
from .variables import Lookup, Source

__all__ = [
    "AccessConfig",
    "Config",
    "DaemonConfig",
    "LimitsConfig",
    "LogConfig",
    "Lookup",
    "MetricsConfig",
    "ServerConfig",
    "Source",
    "default_prefix",
    "parse",
]

LOOKS_LIKE_MILLISECONDS = 5000.0
GIVEN_BY_DAEMON = ("timeout", "hang")
"""Fields of an entry whose default is the field of `daemon` with the same name."""
_TOP_KEYS = frozenset({"$schema", "mcpServers", "servers", "daemon"})
_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Config:
    """A config that can be applied; `parse` makes it. An entry that is broken disables only itself."""

    order: tuple[str, ...]
    """The names of all entries, as in the file."""
    servers: Mapping[str, ServerConfig]
    """The usable entries, disabled ones included."""
    broken: Mapping[str, tuple[Problem, ...]]
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    notes: tuple[Problem, ...] = ()
    """What was ignored or looks like a mistake."""
    sha256: str = ""
    """Of the bytes of the file. The values of its variables can change while it stays the same."""

    def prefix_of(self, server: str) -> str:
        """What stands for `server` in qualified names."""
        known = self.servers.get(server)
        return (known and known.prefix) or default_prefix(server)

    def keeping(self, previous: Config | None) -> Config:
        """The same config, but entries that are broken now are those of `previous`: their servers go on as they were.

        Such an entry is both in `servers` and in `broken`.
        """
        if previous is None:
            return self
        return self.having({name: previous.servers[name] for name in self.broken if name in previous.servers})

    def having(self, entries: Mapping[str, ServerConfig]) -> Config:
        """The same config, with these entries in place of its own."""
        return replace(self, servers=MappingProxyType({**self.servers, **entries})) if entries else self


def default_prefix(server: str) -> str:
    """The server's name, with `_` for characters that a qualified name cannot have."""
    return _NOT_IN_PREFIX.sub("_", server)


def parse(text: bytes, lookup: Lookup) -> Config:
    """The config in the bytes of a file.

    Raises:
        ConfigError: the config is refused as a whole. It says everything that is wrong, in broken entries too.

    """
    try:
        return _config(decode(text), lookup, sha256(text).hexdigest())
    except RecursionError:
        # Reading JSON, replacing variables and checking values all recurse.
        raise ConfigError((Problem("", "nested too deeply"),)) from None


def _config(top: JsonObject, lookup: Lookup, digest: str) -> Config:
    fatal: list[Problem] = []
    notes: list[Problem] = []
    place, entries = _entries(top, fatal, notes)
    daemon = _daemon(top.get("daemon", JsonObject()), lookup, fatal, notes)
    servers: dict[str, ServerConfig] = {}
    broken: dict[str, tuple[Problem, ...]] = {}
    for name, entry in entries.items():
        read = _server(entry, _place_of(place, name), lookup)
        notes += read.notes
        if read.made is None:
            broken[name] = read.problems
        else:
            servers[name] = _with_defaults(read.made, daemon)
    config = Config(
        order=tuple(entries),
        servers=MappingProxyType(servers),
        broken=MappingProxyType(broken),
        daemon=daemon,
        notes=tuple(notes),
        sha256=digest,
    )
    fatal += _coinciding(config, place)
    if fatal:
        # Everything at once, so that one edit can put it right.
        raise ConfigError((*fatal, *(problem for problems in broken.values() for problem in problems)))
    return config


def _entries(top: JsonObject, fatal: list[Problem], notes: list[Problem]) -> tuple[Place, JsonObject]:
    """The object with the servers and where it stands: `mcpServers`, or `servers` as VS Code has it."""
    root = Place("")
    fatal += (problem for problem in repeated(top, root) if problem.field in _TOP_KEYS)
    notes += (root.at(key).problem(UNKNOWN_KEY) for key in top if key not in _TOP_KEYS)
    key = "mcpServers" if "mcpServers" in top or "servers" not in top else "servers"
    if key == "mcpServers" and "servers" in top:
        notes.append(root.at("servers").problem("ignored, since there is mcpServers"))
    place = root.at(key)
    entries = top.get(key)
    if not isinstance(entries, JsonObject):
        fatal.append(place.problem("must be an object" if key in top else "missing: the object with the servers"))
        return place, JsonObject()
    nameless = [name for name in entries if not name.strip() or not name.isprintable()]
    for name in nameless:
        fatal.append(place.at(name).problem("the name of a server must be printable, and not empty"))
        del entries[name]
    fatal += (_place_of(place, name).problem("two servers of this name") for name in entries.twice if name in entries)
    return place, entries


def _place_of(servers: Place, name: str) -> Place:
    return Place(servers.at(name).path, name)


def _daemon(given: object, lookup: Lookup, fatal: list[Problem], notes: list[Problem]) -> DaemonConfig:
    place = Place("daemon")
    if not isinstance(given, JsonObject):
        fatal.append(place.problem("must be an object"))
        return DaemonConfig()
    read = read_object(DaemonConfig, given, place, lookup)
    fatal += read.problems
    notes += read.notes
    return read.made or DaemonConfig()


def _server(entry: object, place: Place, lookup: Lookup) -> Reading[ServerConfig]:
    """Read one entry. What is wrong with a disabled one is only noted."""
    if not isinstance(entry, JsonObject):
        return Reading(None, (place.problem("must be an object"),))
    read = read_object(ServerConfig, entry, place, lookup)
    if read.made is not None:
        return Reading(read.made, (), (*read.notes, *_doubts(read.made, place)))
    # It is broken, but it is off: nobody has to repair what is not used.
    if entry.get("disabled") is True:
        return Reading(ServerConfig(disabled=True), (), (*read.notes, *read.problems))
    return read


def _with_defaults(server: ServerConfig, daemon: DaemonConfig) -> ServerConfig:
    """The entry with the daemon's values where it gives none; so a plan sees it where one of them changes."""
    missing = {key: getattr(daemon, key) for key in GIVEN_BY_DAEMON if key not in server.model_fields_set}
    return server.model_copy(update=missing)


def _doubts(server: ServerConfig, place: Place) -> Iterator[Problem]:
    if server.timeout >= LOOKS_LIKE_MILLISECONDS:
        yield place.at("timeout").problem("is in seconds; so large a number looks like milliseconds")


def _coinciding(config: Config, place: Place) -> Iterator[Problem]:
    """A problem for each server whose qualified names are those of another. Disabled and broken ones have none."""
    owners: dict[str, str] = {}
    for name, server in config.servers.items():
        # A disabled server claims no prefix.
        owner = name if server.disabled else owners.setdefault(config.prefix_of(name), name)
        if owner != name:
            message = f"its qualified names are those of {owner!r}: give one of the two another prefix"
            yield _place_of(place, name).problem(message)
