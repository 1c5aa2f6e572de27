"""Reads an object of the config file: its JSON, known keys, variables and values. Finds all that is wrong at once.

Problems and notes name a place in the file and hold no values: values can be secrets.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from .errors import ConfigError, Problem
from .settings import Settings
from .variables import Lookup, Unexpandable, expand

UNKNOWN_KEY = "unknown key, ignored"
TWICE = "given twice"

_BOM = b"\xef\xbb\xbf"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$-]+")
_MUST_BE = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "greater than {gt:.0f}",
    "greater_than_equal": "at least {ge:.0f}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le:.0f}",
    "literal_error": "{expected}",
    "mapping_type": "an object",
    "model_type": "an object",
    "string_too_short": "at least one character long",
    "string_type": "a string",
    "string_unicode": "valid text",
    "tuple_type": "a list",
}
"""What a value must be, for each of pydantic's types of error. Its own messages are not shown: some quote the value."""

M = TypeVar("M", bound=Settings)


class JsonObject(dict[str, object]):
    """A JSON object that knows which of its keys were given more than once."""

    twice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the config file, as a JSON path; `server` names the entry that the place is in."""

    path: str
    server: str | None = None

    def at(self, key: str | int) -> Place:
        """The place of a member or item: `.name`, `["na me"]` or `[1]`."""
        if isinstance(key, int):
            return Place(f"{self.path}[{key}]", self.server)
        if _PLAIN_KEY.fullmatch(key):
            return Place(f"{self.path}.{key}" if self.path else key, self.server)
        return Place(f"{self.path}[{json.dumps(key)}]", self.server)

    def problem(self, message: str) -> Problem:
        """A problem at this place."""
        return Problem(self.path, message, self.server)


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """The result of `read_object`. With problems the object is unusable and `made` is None; notes change nothing."""

    made: M | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()


def decode(data: bytes) -> JsonObject:
    """The JSON object in a config file. Raises ConfigError with the line and column of what is wrong."""
    try:
        # Some editors put a byte order mark in front.
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as failure:
        line = data.removeprefix(_BOM).count(b"\n", 0, failure.start) + 1
        raise _refused(f"line {line}: not UTF-8 text") from None
    if not text.strip():
        raise _refused("the file is empty")
    try:
        # Not msgspec: the hook sees keys that are given twice, and errors have a position.
        found = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as failure:
        position, why = _why_no_json(text, failure)
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        raise _refused(f"line {line}, column {column}: {why}") from None
    except ValueError:  # Python refuses whole numbers of more than 4,300 digits
        raise _refused("holds a number of too many digits") from None
    if not isinstance(found, JsonObject):
        raise _refused("must be a JSON object")
    return found


def read_object(model: type[M], given: JsonObject, place: Place, lookup: Lookup) -> Reading[M]:
    """Read `given` as a `model`, and find everything that is wrong with it in one pass."""
    notes: list[Problem] = []
    problems: list[Problem] = []
    known = _known(model, given, place, notes)
    expanded = _expanded(known, place, lookup, problems)
    # A string with a variable that has no value stays as it is. What pydantic says of it would be a second problem at
    # the same place, about text that the user did not mean.
    spoiled = {problem.field for problem in problems}
    made: M | None = None
    try:
        made = model.model_validate(expanded)
    except ValidationError as failure:
        problems += (problem for problem in _explained(failure, expanded, place) if problem.field not in spoiled)
    return Reading(None if problems else made, tuple(problems), tuple(notes))


def repeated(found: JsonObject, place: Place) -> Iterator[Problem]:
    """A problem for each key that an object has more than once: by itself, JSON would silently take the last one."""
    for key in found.twice:
        yield place.at(key).problem(TWICE)


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    made = JsonObject(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        made.twice = tuple(key for key, count in counts.items() if count > 1)
    return made


def _why_no_json(text: str, failure: json.JSONDecodeError) -> tuple[int, str]:
    """Where the text stops being JSON, and why. Python 3.13 points at a comma too many, 3.11 behind it."""
    comma = text.rfind(",", 0, failure.pos + 1)
    closes = text[comma + 1 :].lstrip()[:1] in ("}", "]")
    if comma >= 0 and closes and not text[comma + 1 : failure.pos].strip():
        return comma, "a comma before a closing bracket is not JSON"
    if text.startswith(("//", "/*"), failure.pos):
        return failure.pos, "comments are not JSON"
    return failure.pos, f"not JSON: {failure.msg[:1].lower()}{failure.msg[1:].removesuffix(' at')}"


def _refused(message: str) -> ConfigError:
    return ConfigError((Problem("", message),))


def _known(model: type[Settings], given: JsonObject, place: Place, notes: list[Problem]) -> JsonObject:
    """The members of `given` that the model knows. null counts as absent. A field under both its names counts twice."""
    fields = _fields_by_key(model)
    kept = JsonObject()
    seen: set[str] = set()
    for key, member in given.items():
        if key not in fields:
            notes.append(place.at(key).problem(UNKNOWN_KEY))
            continue
        name, inner = fields[key]
        if key in given.twice or name in seen:
            kept.twice += (key,)
        seen.add(name)
        if member is None:
            continue
        if inner is not None and isinstance(member, JsonObject):
            member = _known(inner, member, place.at(key), notes)
        kept[key] = member
    return kept


def _fields_by_key(model: type[Settings]) -> Mapping[str, tuple[str, type[Settings] | None]]:
    """For each key the name of its field, and the model of its members if it is an object of settings."""
    found: dict[str, tuple[str, type[Settings] | None]] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = kind if isinstance(kind, type) and issubclass(kind, Settings) else None
        found[name] = found[field.alias or name] = (name, inner)
    return found


def _expanded(found: object, place: Place, lookup: Lookup, problems: list[Problem]) -> object:
    """`found` with the variables in its strings replaced; keys stay as they are."""
    if isinstance(found, str):
        try:
            return expand(found, lookup)
        except Unexpandable as failure:
            problems += map(place.problem, failure.messages)
            return found
    if isinstance(found, JsonObject):
        problems += repeated(found, place)
        return {key: _expanded(member, place.at(key), lookup, problems) for key, member in found.items()}
    if isinstance(found, list):
        return [_expanded(item, place.at(index), lookup, problems) for index, item in enumerate(found)]
    return found


def _explained(failure: ValidationError, given: object, place: Place) -> Iterable[Problem]:
    """What pydantic found, in our words. If a value may have one of several forms, one problem names them all."""
    wanted: dict[Place, list[str]] = {}
    for error in failure.errors(include_url=False, include_input=False):
        words = _MUST_BE.get(error["type"], "").format_map(error.get("ctx", {}))
        # A value_error is raised by a check of ours, whose message holds no value.
        own = str(error["ctx"]["error"]) if error["type"] == "value_error" else "is not valid"
        wanted.setdefault(_place_of(error["loc"], given, place), []).append(f"must be {words}" if words else own)
    for where, messages in wanted.items():
        alternatives = [message.removeprefix("must be ") for message in dict.fromkeys(messages[1:])]
        yield where.problem(" or ".join((messages[0], *alternatives)))


def _place_of(location: tuple[str | int, ...], given: Any, place: Place) -> Place:
    """The place of an error. Pydantic's locations also name alternatives and keys of mappings; these are left out."""
    for part in location:
        if part in given if isinstance(given, dict) else isinstance(given, list) and isinstance(part, int):
            given, place = given[part], place.at(part)
    return place
