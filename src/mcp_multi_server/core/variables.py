"""Variables in the strings of a config: `${NAME}`, `${NAME:-default}`, `${env:…}`, `${file:PATH}`, `${cred:NAME}`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

Source: TypeAlias = Literal["env", "file", "cred"]
Lookup: TypeAlias = Callable[[Source, str], str]
"""Returns the value of a variable. Raises LookupError(message) if it is undefined or cannot be read."""

_PLACE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_FROM_ENVIRONMENT = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_FROM_FILE = re.compile(r"(file|cred):(.+)", re.DOTALL)
_FROM_ELSEWHERE = re.compile(r"([A-Za-z]+):.*", re.DOTALL)


class Unexpandable(Exception):
    """Raised if variables in a string have no value. Each message says what is wrong; none holds a value."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def expand(text: str, lookup: Lookup) -> str:
    """`text` with its variables replaced by their values, in which variables are not replaced again.

    `$$` stands for a dollar sign; a `$` before anything but `{` stays. Raises Unexpandable with all that is wrong.
    """
    messages: list[str] = []

    def replaced(place: re.Match[str]) -> str:
        if place[0] == "$$":
            return "$"
        try:
            return _value(place[1], closed=bool(place[2]), lookup=lookup)
        except LookupError as failure:
            messages.append(str(failure.args[0]))  # look at the others too: all that is wrong is said at once
            return ""

    expanded = _PLACE.sub(replaced, text)
    if messages:
        raise Unexpandable(tuple(dict.fromkeys(messages)))
    return expanded


def _value(body: str, *, closed: bool, lookup: Lookup) -> str:
    """The value for the inside of `${…}`. Raises LookupError(message)."""
    if not closed:
        raise LookupError("${ without its }")
    if "${" in body:
        raise LookupError("a variable cannot stand inside another one")
    if found := _FROM_ENVIRONMENT.fullmatch(body):
        return _environment_value(found[1], found[2], lookup)
    if found := _FROM_FILE.fullmatch(body):
        source: Source = "file" if found[1] == "file" else "cred"
        return _without_newline(lookup(source, found[2]))
    raise LookupError(_why_not(body))


def _environment_value(name: str, default: str | None, lookup: Lookup) -> str:
    """The value of an environment variable. As in a shell, the default also replaces an empty value."""
    if default is None:
        return lookup("env", name)
    try:
        return lookup("env", name) or default
    except LookupError:
        return default


def _without_newline(text: str) -> str:
    """`text` without its last newline: editors and `echo` add one, and it is no part of a secret in the file."""
    return text.removesuffix("\n").removesuffix("\r")


def _why_not(body: str) -> str:
    found = _FROM_ELSEWHERE.fullmatch(body)
    if found is None:
        return "${…} holds no variable's name"
    if found[1] == "input":
        return "${input:…} asks a person, and a daemon has none to ask: use ${env:NAME} or ${file:PATH}"
    if found[1] in ("env", "file", "cred"):
        return "${%s:…} holds no name" % found[1]  # noqa: UP031  # braces of its own make the other forms unreadable
    return "${…} from an unknown source: there are env, file and cred"
