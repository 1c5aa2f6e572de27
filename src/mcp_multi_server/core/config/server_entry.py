"""Reads the entry of one server, as we or another host write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import Problem
from .hosts.doubts import doubts
from .hosts.entries import translate
from .hosts.env_file import read_env_file
from .hosts.translation import MILLISECONDS_FROM, Translation
from .reading import Reading, expanded, known, validated
from .settings import ServerConfig
from .text import JsonObject, Place
from .variables import Scope, Unexpandable, expand

LOOKS_LIKE_MILLISECONDS = 5000.0


def read_server(
    entry: object, place: Place, scope: Scope, *, braces: bool = False, off: bool = False
) -> Reading[ServerConfig]:
    """Read one entry. What is wrong with a disabled one is only noted.

    `braces`: `{env:NAME}` is a variable in it. `off`: the file turns it off elsewhere.
    """
    if not isinstance(entry, JsonObject):
        return Reading(None, (place.problem("must be an object"),))
    given = translate(entry, place, braces=braces, bare=scope.bare, off=off)
    scope = replace(scope, bare=given.bare)
    notes: list[Problem] = []
    problems: list[Problem] = [*given.problems]
    members = known(ServerConfig, given.members, place, notes)
    filled = _filled(members, given, place, scope, problems)
    seconds = _in_seconds(filled, given, place, notes)
    made = validated(ServerConfig, seconds, place, problems)
    if made is not None and not made.disabled:
        notes += doubts(members, place, scope, made.env)
        notes += _of_the_timeout(made, place)
    # What the translation said itself names places in the file already.
    notes = [*given.notes, *map(given.written, notes)]
    problems = [*given.problems, *map(given.written, problems[len(given.problems) :])]
    # It is broken, but it is off: nobody has to repair what is not used.
    if made is None and given.members.get("disabled") is True:
        return Reading(ServerConfig(disabled=True), (), (*notes, *problems))
    warnings = () if made is not None and made.disabled else tuple(given.warnings)
    return Reading(made, tuple(problems), tuple(notes), warnings)


def _filled(
    members: JsonObject, given: Translation, place: Place, scope: Scope, problems: list[Problem]
) -> dict[str, object]:
    """The members with their variables replaced: `${NAME}` means the entry's own `env` first.

    In `env` itself it means the daemon's environment alone: an entry says `"PATH": "/opt/bin:${PATH}"`.
    """
    env = members.get("env", JsonObject())
    if not isinstance(env, JsonObject):
        return expanded(members, place, scope, problems)
    own = _variables_of_file(given, place, scope, problems) | expanded(env, place.at("env"), scope, problems)
    texts = {name: value for name, value in own.items() if isinstance(value, str | None)}
    inside = replace(scope, own=texts)
    filled = expanded(members, place, inside, problems, verbatim=("env",))
    return filled | {"env": own} if own else filled


def _variables_of_file(given: Translation, place: Place, scope: Scope, problems: list[Problem]) -> dict[str, object]:
    """What `envFile` names, read where `${file:…}` is."""
    if given.env_file is None:
        return {}
    where = place.at("envFile")
    if not isinstance(given.env_file, str):
        problems.append(where.problem("must be a string"))
        return {}
    try:
        return dict(read_env_file(scope.lookup("file", expand(given.env_file, scope))))
    except Unexpandable as failure:
        problems += map(where.problem, failure.messages)
    except LookupError as failure:
        problems.append(where.problem(str(failure.args[0])))
    return {}


def _in_seconds(
    filled: Mapping[str, object], given: Translation, place: Place, notes: list[Problem]
) -> dict[str, object]:
    """The values, a `timeout` that another host would take for milliseconds in seconds."""
    timeout = _number(filled.get("timeout"))
    if not given.milliseconds or timeout < MILLISECONDS_FROM:
        return dict(filled)
    seconds = timeout / 1000
    said = f"is taken for milliseconds, as other hosts count: {seconds:g} s. Beside a key of our own it is in seconds"
    notes.append(place.at("timeout").problem(said))
    return {**filled, "timeout": seconds}


def _number(value: object) -> float:
    """The number that a value is or says; 0 where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        return float(value)
    except (ValueError, OverflowError):
        return 0.0


def _of_the_timeout(server: ServerConfig, place: Place) -> list[Problem]:
    if server.timeout < LOOKS_LIKE_MILLISECONDS:
        return []
    return [place.at("timeout").problem("is in seconds; so large a number looks like milliseconds")]
