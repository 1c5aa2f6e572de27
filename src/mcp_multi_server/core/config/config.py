"""A config file as a value: which servers, with what settings, and what is wrong with which entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType

from ..errors import ConfigError, Problem
from ..printable import OBEYED
from .hosts.layout import Layout, locate
from .prefixes import default_prefix
from .reading import Reading, read_object
from .server_entry import read_server
from .settings import AccessConfig, DaemonConfig, LimitsConfig, LogConfig, MetricsConfig, ServerConfig
from .text import JsonObject, Place, decode, is_comment, quoted
from .variables import Lookup, Scope, Source, Unexpandable, expand

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


GIVEN_BY_DAEMON = ("timeout", "hang", "inherit_env")
"""Fields of an entry whose default is the field of `daemon` with the same name."""
_ANOTHER_PREFIX = "give one of the two another prefix"


@dataclass(frozen=True, slots=True)
class Config:
    """A config that can be applied; `parse` makes it. An entry that is broken disables only itself."""

    order: tuple[str, ...]
    """The names of all entries, as in the file."""
    servers: Mapping[str, ServerConfig]
    """The usable entries, disabled ones included."""
    broken: Mapping[str, tuple[Problem, ...]]
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    warnings: tuple[Problem, ...] = ()
    """What will probably keep a server from working."""
    notes: tuple[Problem, ...] = ()
    """What was ignored or looks like a mistake."""
    sha256: str = ""
    """Of the bytes of the file. The values of its variables can change while it stays the same."""
    place: str = "mcpServers"
    """The path of the object with the servers."""

    def problem(self, server: str, message: str) -> Problem:
        """A problem of one entry as a whole."""
        return Problem(Place(self.place).at(server).path, message, server)

    def prefix_of(self, server: str) -> str:
        """What stands for `server` in qualified names."""
        known = self.servers.get(server)
        return (known and known.prefix) or default_prefix(server)

    def keeping(self, previous: Config | None) -> Config:
        """The same config, but entries that are broken now are those of `previous`: their servers go on as they were.

        Such an entry is both in `servers` and in `broken`. Their names stay theirs: an entry that was changed, or is
        new, and claims them is broken too.
        """
        if previous is None:
            return self
        kept = {name: previous.servers[name] for name in self.broken if name in previous.servers}
        config = self.having(kept)
        taken = {config.prefix_of(name): name for name, server in kept.items() if not server.disabled}
        claims = [
            (name, taken[config.prefix_of(name)])
            for name, server in self.servers.items()
            if not server.disabled and server != previous.servers.get(name) and config.prefix_of(name) in taken
        ]
        return config._refusing(claims).keeping(previous) if claims else config

    def _refusing(self, claims: Sequence[tuple[str, str]]) -> Config:
        """The same config without the entries that claim the names of a server that runs, each with that server."""
        refused = {
            name: (self.problem(name, f"{_coincides(owner)}, which runs: {_ANOTHER_PREFIX}"),) for name, owner in claims
        }
        servers = {name: server for name, server in self.servers.items() if name not in refused}
        return replace(self, servers=MappingProxyType(servers), broken=MappingProxyType({**self.broken, **refused}))

    def having(self, entries: Mapping[str, ServerConfig]) -> Config:
        """The same config, with these entries in place of its own."""
        return replace(self, servers=MappingProxyType({**self.servers, **entries})) if entries else self


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
    layout = locate(top)
    daemon = _daemon(top.get("daemon", JsonObject()), lookup)
    settings = daemon.made or DaemonConfig()
    inputs = _Inputs(settings.inputs, layout.inputs, lookup)
    readings = dict(_readings(layout, Scope(lookup, input_value=inputs, bare=layout.bare)))
    servers = {name: _with_defaults(read.made, settings) for name, read in readings.items() if read.made is not None}
    broken = {name: read.problems for name, read in readings.items() if read.made is None}
    for name, problem in _coinciding(servers, layout.place):
        del servers[name]
        broken[name] = (problem,)
    if fatal := (*layout.problems, *daemon.problems):
        # Everything at once, so that one edit can put it right.
        raise ConfigError((*fatal, *(problem for problems in broken.values() for problem in problems)))
    return Config(
        order=tuple(readings),
        servers=MappingProxyType(servers),
        broken=MappingProxyType(broken),
        daemon=settings,
        warnings=(*layout.warnings, *(each for read in readings.values() for each in read.warnings)),
        notes=(*layout.notes, *daemon.notes, *inputs.notes(), *(each for r in readings.values() for each in r.notes)),
        sha256=digest,
        place=layout.place.path,
    )


def _daemon(given: object, lookup: Lookup) -> Reading[DaemonConfig]:
    place = Place("daemon")
    if not isinstance(given, JsonObject):
        return Reading(None, (place.problem("must be an object"),))
    # An input that has no value breaks the entries that use it, not the daemon.
    return read_object(DaemonConfig, given, place, Scope(lookup), verbatim=("inputs",))


def _readings(layout: Layout, scope: Scope) -> Iterator[tuple[str, Reading[ServerConfig]]]:
    """Each entry by its name. One whose name cannot be shown is broken, under a name that can."""
    for name, entry in layout.entries.items():
        place = Place(layout.place.at(name).path, name)
        if is_comment(name, entry) or (name == "$schema" and isinstance(entry, str)):
            continue
        if name in layout.entries.twice:
            layout.problems.append(place.problem("two servers of this name"))
        if not _is_printable(name):
            shown = quoted(name)
            said = "the name of a server must be printable, and not empty"
            yield shown, Reading(None, (Problem(place.path, said, shown),))
        else:
            yield name, read_server(entry, place, scope, braces=layout.braces, off=name in layout.off)


def _is_printable(name: str) -> bool:
    return bool(name.strip()) and not OBEYED.search(name)


def _with_defaults(server: ServerConfig, daemon: DaemonConfig) -> ServerConfig:
    """The entry with the daemon's values where it gives none; so a plan sees it where one of them changes."""
    missing = {key: getattr(daemon, key) for key in GIVEN_BY_DAEMON if key not in server.model_fields_set}
    return server.model_copy(update=missing)


def _coinciding(servers: Mapping[str, ServerConfig], place: Place) -> list[tuple[str, Problem]]:
    """Each server whose qualified names are those of an earlier one. A disabled one claims none."""
    owners: dict[str, str] = {}
    found = []
    for name, server in servers.items():
        owner = name if server.disabled else owners.setdefault(server.prefix or default_prefix(name), name)
        if owner != name:
            found.append((name, Problem(place.at(name).path, f"{_coincides(owner)}: {_ANOTHER_PREFIX}", name)))
    return found


def _coincides(owner: str) -> str:
    return f"its qualified names are those of {quoted(owner)}"


class _Inputs:
    """The values of `${input:ID}`: what `daemon.inputs` says, else what VS Code would suggest to the person it asks."""

    def __init__(self, given: Mapping[str, str], suggested: Mapping[str, str], lookup: Lookup) -> None:
        self._given = given
        self._suggested = suggested
        self._scope = Scope(lookup)
        self._taken: dict[str, None] = {}

    def __call__(self, name: str) -> str:
        """The value of one input. Raises LookupError(message)."""
        if name in self._given:
            return self._expanded(name)
        if name in self._suggested:
            self._taken[name] = None
            return self._suggested[name]
        wanted = Place("daemon.inputs").at(name).path
        raise LookupError(
            f"${{input:{name}}} asks a person, and a daemon has none to ask: "
            f'give {wanted} a value, for example "${{file:PATH}}" or "${{env:NAME}}"'
        )

    def notes(self) -> Iterator[Problem]:
        """A note for each input whose suggestion was taken: nobody confirmed it."""
        for name in self._taken:
            wanted = Place("daemon.inputs").at(name).path
            yield Problem("inputs", f"nobody is asked for {quoted(name)}, its default is taken: {wanted} gives another")

    def _expanded(self, name: str) -> str:
        try:
            return expand(self._given[name], self._scope)
        except Unexpandable as failure:
            raise LookupError(f"input {name}: {failure}") from None
