"""What has to happen to the servers that run when one config takes the place of another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from .config import Config, ServerConfig

DEFINES_THE_SERVER = frozenset(
    {"command", "args", "env", "cwd", "inherit_env", "url", "headers", "type", "protocol", "may_ask"}
)
"""Fields that a running process or connection cannot change."""
APPLIES_AT_ONCE = frozenset(
    {
        "timeout",
        "start_timeout",
        "stop_timeout",
        "refresh_interval",
        "include",
        "exclude",
        "prefix",
        "replace",
        "hold",
        "grace",
    }
)
"""Fields that change what we do with it."""
Change: TypeAlias = Literal["replace", "update", "keep"]
"""What a changed entry asks of the server that runs."""
assert DEFINES_THE_SERVER | APPLIES_AT_ONCE | {"disabled"} == set(ServerConfig.model_fields), "a field without its step"


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between two configs, by server; what neither config runs is in none of the lists.

    The names are in the new config's order; those that it lacks come last.
    """

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Config | None, new: Config) -> Plan:
        """How to get from `old` to `new`. `old` is what was applied: see `Config.keeping` for its broken entries."""
        names = dict.fromkeys((*new.order, *(old.order if old else ())))
        steps = {name: _step(old, new, name) for name in names}
        return cls(**{step: tuple(name for name in names if steps[name] == step) for step in STEPS})

    def to_dict(self) -> dict[str, list[str]]:
        """The plan as `daemon/plan` and `daemon/reload` show it."""
        return {step: list(getattr(self, step)) for step in STEPS}


STEPS = tuple(field.name for field in fields(Plan))


def _step(old: Config | None, new: Config, name: str) -> str:
    """The list that `name` belongs in, or "" for none."""
    before, after = _running(old, name), _running(new, name)
    if before is None:
        return "start" if after is not None and name not in new.broken else ""
    if name in new.broken:
        return "keep"
    if after is None:
        return "stop"
    return change_between(before, after)


def change_between(before: ServerConfig, after: ServerConfig) -> Change:
    """What it takes to get from one entry of a server that runs to another."""
    changed = {key for key in ServerConfig.model_fields if getattr(before, key) != getattr(after, key)}
    if changed & DEFINES_THE_SERVER:
        return "replace"
    return "update" if changed else "keep"


def allows_two(before: ServerConfig, after: ServerConfig) -> bool:
    """Whether the new server may run beside the old one: neither entry says that it holds a lock or a port."""
    return "stop-first" not in (before.replace, after.replace)


def _running(config: Config | None, name: str) -> ServerConfig | None:
    server = config.servers.get(name) if config else None
    return None if server is None or server.disabled else server
