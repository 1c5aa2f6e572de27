"""Variables in the strings of a config: `${NAME}`, `${NAME:-default}`, `${env:…}`, `${file:PATH}`, `${input:ID}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Source: TypeAlias = Literal["env", "file", "cred"]
Lookup: TypeAlias = Callable[[Source, str], str]
"""Returns the value of a variable. Raises LookupError(message) if it is undefined or cannot be read."""

_PLACE = re.compile(
    r"\$(?P<escaped>\$\{)|\$\{(?P<body>[^}]*)(?P<closed>\}?)|\$(?P<bare>[A-Za-z_][A-Za-z0-9_]*)", re.ASCII
)
_FROM_ENVIRONMENT = re.compile(r"(?P<host>env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<or>:-(?P<default>.*))?", re.DOTALL)
_FROM_FILE = re.compile(r"(file|cred):(.+)", re.DOTALL)
_FROM_INPUT = re.compile(r"input:(.+)", re.DOTALL)
_FROM_ELSEWHERE = re.compile(r"([A-Za-z]+):.*", re.DOTALL)
_OF_A_PROJECT = re.compile(r"(workspaceFolder|workspaceFolderBasename|workspaceRoot)(?::.*)?", re.DOTALL)
_FIXED = {"/": "/", "pathSeparator": "/"}
"""What editors call the character between directories; it is this one wherever the daemon runs."""


class Unexpandable(Exception):
    """Raised if variables in a string have no value. Each message says what is wrong; none holds a value."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def no_input(name: str) -> str:
    """Where there are no inputs. Raises LookupError(message)."""
    raise LookupError("${input:…} has no meaning here")


@dataclass(frozen=True, slots=True)
class Scope:
    """What variables stand for in one entry of a config, or in its `daemon` object."""

    lookup: Lookup
    own: Mapping[str, str | None] = field(default_factory=dict)
    """The entry's `env`, which `${NAME}` means before the daemon's environment; `${env:NAME}` means only the latter."""
    input_value: Callable[[str], str] = no_input
    """Returns the value of an input. Raises LookupError(message)."""
    bare: bool = False
    """Whether `$NAME` is a variable too, as Gemini CLI has it; one without a value stays as it is."""


def expand(text: str, scope: Scope) -> str:
    """`text` with its variables replaced by their values, in which variables are not replaced again.

    `$${` stands for `${`; any other dollar sign stays, since passwords hold them. Raises Unexpandable with all that is
    wrong.
    """
    messages: list[str] = []

    def replaced(place: re.Match[str]) -> str:
        if place["escaped"]:
            return "${"
        try:
            if place["bare"]:
                return _bare_value(place["bare"], scope)
            return _value(place["body"], closed=bool(place["closed"]), scope=scope)
        except LookupError as failure:
            messages.append(str(failure.args[0]))  # look at the others too: all that is wrong is said at once
            return ""

    expanded = _PLACE.sub(replaced, text)
    if messages:
        raise Unexpandable(tuple(dict.fromkeys(messages)))
    return expanded


def bare_names(text: str) -> tuple[str, ...]:
    """The names in `text` that would be variables where `$NAME` is one."""
    return tuple(place["bare"] for place in _PLACE.finditer(text) if place["bare"])


def _bare_value(name: str, scope: Scope) -> str:
    if not scope.bare:
        return f"${name}"
    try:
        return _environment_value(name, None, scope)
    except LookupError:
        return f"${name}"


def _value(body: str, *, closed: bool, scope: Scope) -> str:
    """The value for the inside of `${…}`. Raises LookupError(message)."""
    if not closed:
        raise LookupError("${ without its }")
    if "${" in body:
        raise LookupError("a variable cannot stand inside another one")
    if body in _FIXED:
        return _FIXED[body]
    if body == "userHome":
        return scope.lookup("env", "HOME")
    if found := _FROM_ENVIRONMENT.fullmatch(body):
        return _or_default(found, scope)
    if found := _FROM_FILE.fullmatch(body):
        source: Source = "file" if found[1] == "file" else "cred"
        return _without_newline(scope.lookup(source, found[2]))
    if found := _FROM_INPUT.fullmatch(body):
        return scope.input_value(found[1])
    raise LookupError(_why_not(body))


def _or_default(found: re.Match[str], scope: Scope) -> str:
    """The value of an environment variable. As in a shell, the default also replaces an empty value."""
    if found["or"] is None:
        return _environment_value(found["name"], found["host"], scope)
    try:
        return _environment_value(found["name"], found["host"], scope) or found["default"]
    except LookupError:
        return found["default"]


def _environment_value(name: str, host: str | None, scope: Scope) -> str:
    """The value that `name` has in the entry's own `env`, unless `host` is given, else in the daemon's environment."""
    if name in scope.own and not host:
        own = scope.own[name]
        if own is None:
            raise LookupError(f"{name} is null in env")
        return own
    try:
        return scope.lookup("env", name)
    except LookupError as failure:
        if host and name in scope.own:
            raise LookupError(f"{failure.args[0]}; ${{{name}}} means the one in env") from None
        if _OF_A_PROJECT.fullmatch(name):
            raise LookupError(_of_a_project(name)) from None
        raise


def _without_newline(text: str) -> str:
    """`text` without its last newline: editors and `echo` add one, and it is no part of a secret in the file."""
    return text.removesuffix("\n").removesuffix("\r")


def _of_a_project(name: str) -> str:
    return f"${{{name}}} is the directory of a project, and the daemon serves them all: write the path itself"


def _why_not(body: str) -> str:
    if found := _OF_A_PROJECT.fullmatch(body):
        return _of_a_project(found[1])
    found = _FROM_ELSEWHERE.fullmatch(body)
    if found is None:
        return "${…} holds no variable's name"
    if found[1] in ("env", "file", "cred", "input"):
        return "${%s:…} holds no name" % found[1]  # noqa: UP031  # braces of its own make the other forms unreadable
    return "${…} from an unknown source: there are env, file, cred and input"
