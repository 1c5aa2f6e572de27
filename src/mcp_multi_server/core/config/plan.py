"""What to do with the servers that run when a new config is applied: start, stop, replace, update or keep each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from .config import Config, ServerConfig

DEFINES_THE_SERVER = frozenset(
    {"command", "args", "env", "cwd", "inherit_env", "url", "headers", "type", "protocol", "may_ask"}
)
"""Fields that cannot be changed for a running process or session: the server is replaced."""
APPLIES_AT_ONCE = frozenset(
    {
        "timeout",
        "hang",
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
"""Fields that change only what the daemon does with the server: it goes on running."""
Change: TypeAlias = Literal["replace", "update", "keep"]
"""What to do with a running server whose entry may have changed."""
assert DEFINES_THE_SERVER | APPLIES_AT_ONCE | {"disabled"} == set(ServerConfig.model_fields), "a field without its step"


@dataclass(frozen=True, slots=True)
class Plan:
    """The difference between two configs, server by server. A server that runs in neither is in none of the lists.

    The names are in the new config's order; those that it lacks come last.
    """

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    update: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Config | None, new: Config) -> Plan:
        """The plan from `old` to `new`.

        `old` is the config in force, in which `Config.keeping` has put earlier entries in place of broken ones.
        """
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
    if name in new.broken:  # no edit takes down what runs: the old entry stays in force
        return "keep"
    if after is None:
        return "stop"
    return change_between(before, after)


def change_between(before: ServerConfig, after: ServerConfig) -> Change:
    """What to do with a running server to get from one entry to the other."""
    changed = {key for key in ServerConfig.model_fields if getattr(before, key) != getattr(after, key)}
    # One such field is enough, whatever else changed.
    if changed & DEFINES_THE_SERVER:
        return "replace"
    return "update" if changed else "keep"


def allows_two(before: ServerConfig, after: ServerConfig) -> bool:
    """Whether the new server may run beside the old one: neither entry says that it holds a lock or a port."""
    return "stop-first" not in (before.replace, after.replace)


def _running(config: Config | None, name: str) -> ServerConfig | None:
    server = config.servers.get(name) if config else None
    return None if server is None or server.disabled else server
