"""Notes on values that look as if their author meant something else than they say here. No note holds a value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...errors import Problem
from ..text import JsonObject, Place
from ..variables import Scope, bare_names

NO_VARIABLE = "looks like a variable and is none: a variable is written ${NAME}"
UNSET = "looks like a variable that is not set, and is passed on as it is"
NO_HOME = "~ is not replaced here, as there is no shell: write ${userHome}"
COMMAND_LINE = "looks like a whole command line: no shell splits it, so its arguments belong into args"
_WHOLE = re.compile(r"\$[A-Za-z_]\w*|%[A-Za-z_]\w*%", re.ASCII)
_WITHIN = re.compile(r"\$[A-Z][A-Z0-9_]+(?![a-z])|%[A-Z][A-Z0-9_]{2,}%|(?<!\$)\{env:\w+\}", re.ASCII)
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "fish", "cmd", "cmd.exe", "powershell", "pwsh"})
_LINE = re.compile(r"[^\s/~.$][^\s/]*\s+\S.*|\S+\s+-.*", re.DOTALL)
_WHERE = ("command", "args", "env", "cwd", "url", "headers")


def doubts(members: JsonObject, place: Place, scope: Scope, own: Mapping[str, str | None]) -> Iterator[Problem]:
    """What is to be said of the values of an entry in our keys, whose variables are still in place.

    `own`: its `env` with the variables replaced, which all but `env` itself can use.
    """
    for key in _WHERE:
        within = scope if key == "env" else replace(scope, own=own)
        # A shell replaces variables itself.
        if key == "args" and str(members.get("command", "")).rpartition("/")[2] in _SHELLS:
            continue
        for where, text in _texts(members.get(key), place.at(key)):
            yield from (where.problem(said) for said in _of_variables(text, within))
            if (key == "env" and text.startswith("~/")) or (key == "args" and "=~/" in text):
                yield where.problem(NO_HOME)
    command = members.get("command")
    if isinstance(command, str) and _LINE.fullmatch(command.strip()):
        yield place.at("command").problem(COMMAND_LINE)


def _texts(found: object, place: Place) -> Iterator[tuple[Place, str]]:
    """The strings in a value, each with its place."""
    if isinstance(found, str):
        yield place, found
    elif isinstance(found, dict):
        for key, member in found.items():
            yield from _texts(member, place.at(key))
    elif isinstance(found, list):
        for index, item in enumerate(found):
            yield from _texts(item, place.at(index))


def _of_variables(text: str, scope: Scope) -> Iterator[str]:
    if scope.bare and any(_is_unset(name, scope) for name in bare_names(text)):
        yield UNSET
    elif not scope.bare and (_WHOLE.fullmatch(text) or _WITHIN.search(text)):
        yield NO_VARIABLE


def _is_unset(name: str, scope: Scope) -> bool:
    if scope.own.get(name) is not None:
        return False
    try:
        scope.lookup("env", name)
    except LookupError:
        return True
    return False
