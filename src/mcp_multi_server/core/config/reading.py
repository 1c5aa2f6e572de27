"""Reads an object of the config: known keys, variables and values. Finds all that is wrong at once.

Problems and notes name a place in the file and hold no values: values can be secrets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from ..errors import Problem
from .settings import Settings
from .text import JsonObject, Place, is_comment, repeated
from .variables import Scope, Unexpandable, expand

UNKNOWN_KEY = "unknown key, ignored"

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
    "list_type": "a list",
}
"""What a value must be, for each of pydantic's types of error. Its own messages are not shown: some quote the value."""

M = TypeVar("M", bound=Settings)


@dataclass(frozen=True, slots=True)
class Reading(Generic[M]):
    """One object read. With problems it is unusable and `made` is None.

    A warning says that the server will probably not work, a note what was ignored or looks like a mistake.
    """

    made: M | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def read_object(
    model: type[M], given: JsonObject, place: Place, scope: Scope, *, verbatim: Collection[str] = ()
) -> Reading[M]:
    """Read `given` as a `model`, and find everything that is wrong with it in one pass.

    Variables in the members `verbatim` stay.
    """
    notes: list[Problem] = []
    problems: list[Problem] = []
    found = known(model, given, place, notes)
    filled = expanded(found, place, scope, problems, verbatim=verbatim)
    made = validated(model, filled, place, problems)
    return Reading(made, tuple(problems), tuple(notes))


def known(model: type[Settings], given: JsonObject, place: Place, notes: list[Problem]) -> JsonObject:
    """The members of `given` that the model knows. null counts as absent. A field under both its names counts twice."""
    fields = _fields_by_key(model)
    kept = JsonObject()
    seen: set[str] = set()
    for key, member in given.items():
        if key not in fields:
            if not is_comment(key, member):
                notes.append(place.at(key).problem(UNKNOWN_KEY))
            continue
        name, inner = fields[key]
        if key in given.twice or name in seen:
            kept.twice += (key,)
        seen.add(name)
        if member is None:
            continue
        if inner is not None and isinstance(member, JsonObject):
            member = known(inner, member, place.at(key), notes)
        kept[key] = member
    return kept


def expanded(
    found: JsonObject, place: Place, scope: Scope, problems: list[Problem], *, verbatim: Collection[str] = ()
) -> dict[str, object]:
    """`found` with the variables in its strings replaced, but for the members `verbatim`; keys stay as they are."""
    problems += repeated(found, place)
    return {
        key: member if key in verbatim else _filled(member, place.at(key), scope, problems)
        for key, member in found.items()
    }


def validated(model: type[M], filled: dict[str, object], place: Place, problems: list[Problem]) -> M | None:
    """The model made of these values, unless there are problems; what is wrong with them is added to `problems`."""
    # A string with a variable that has no value stays as it is. What pydantic says of it would be a second problem at
    # the same place, about text that the user did not mean.
    spoiled = {problem.field for problem in problems}
    try:
        made = model.model_validate(filled)
    except ValidationError as failure:
        problems += (problem for problem in _explained(failure, filled, place) if problem.field not in spoiled)
        return None
    return None if problems else made


def _fields_by_key(model: type[Settings]) -> Mapping[str, tuple[str, type[Settings] | None]]:
    """For each key the name of its field, and the model of its members if it is an object of settings."""
    found: dict[str, tuple[str, type[Settings] | None]] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = kind if isinstance(kind, type) and issubclass(kind, Settings) else None
        found[name] = found[field.alias or name] = (name, inner)
    return found


def _filled(found: object, place: Place, scope: Scope, problems: list[Problem]) -> object:
    if isinstance(found, str):
        try:
            return expand(found, scope)
        except Unexpandable as failure:
            problems += map(place.problem, failure.messages)
            return found
    if isinstance(found, JsonObject):
        return expanded(found, place, scope, problems)
    if isinstance(found, list):
        return [_filled(item, place.at(index), scope, problems) for index, item in enumerate(found)]
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
