"""Arguments from a command line: one JSON object, or `key=value` pairs that are read as the tool's schema says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import click

from .members import JsonObject, loads, member, optional_objects

MAX_SCHEMA_DEPTH = 8
_NOT_JSON = object()


def parse_object(written: str) -> JsonObject:
    """A JSON object. Raises click.UsageError if it is none."""
    try:
        value = _decode(written)
    except ValueError as problem:
        where = f" (line {problem.lineno} column {problem.colno})" if isinstance(problem, json.JSONDecodeError) else ""
        raise click.UsageError(f"the arguments are no JSON{where}") from None
    if not isinstance(value, dict):
        raise click.UsageError("the arguments are JSON, but no object")
    return value


def split_pairs(written: Sequence[str]) -> dict[str, str]:
    """`key=value` words as a dict. Raises click.UsageError if one has no key, or a key comes twice."""
    pairs: dict[str, str] = {}
    for word in written:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"neither a JSON object nor key=value: {word!r}")
        if key in pairs:
            raise click.UsageError(f"{key!r} is given twice")
        pairs[key] = value
    return pairs


def needs_schema(pairs: dict[str, str]) -> bool:
    """Whether a value can be read as JSON too: then only the schema tells whether it is text."""
    return any(_parse(value) is not _NOT_JSON for value in pairs.values())


def typed(pairs: dict[str, str], schema: JsonObject) -> JsonObject:
    """Each value as JSON if it is JSON, and as text if it is none or the schema wants text there."""
    properties = member(schema, "properties")
    return {key: _typed(value, _types(member(properties, key), schema)) for key, value in pairs.items()}


def _typed(written: str, allowed: set[str]) -> Any:
    value = _parse(written)
    if value is _NOT_JSON:
        return written
    # A value that is allowed as JSON too is JSON: `count=5` means a number, if the tool takes numbers.
    means_text = "string" in allowed and (isinstance(value, str) or not _type_names(value) & allowed)
    return written if means_text else value


def _parse(written: str) -> Any:
    try:
        return _decode(written)
    except ValueError:
        return _NOT_JSON


def _finite(written: str) -> float:
    """A number that can be written as JSON again; Python also reads NaN, Infinity and 1e999."""
    number = float(written)
    if not math.isfinite(number):
        raise ValueError(written)
    return number


def _decode(written: str) -> Any:
    return loads(written, parse_float=_finite, parse_constant=_finite)


def _types(schema: JsonObject, root: JsonObject, depth: int = 0) -> set[str]:
    """The JSON types that a schema allows, as far as it says so plainly; empty if it does not."""
    if depth > MAX_SCHEMA_DEPTH:  # a schema may refer to itself
        return set()
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {item for item in named if isinstance(item, str)}
    if isinstance(values := schema.get("enum"), list):
        return set().union(*map(_type_names, values))
    if isinstance(reference := schema.get("$ref"), str):
        return _types(_resolve(reference, root), root, depth + 1)
    choices = [*optional_objects(schema, "anyOf"), *optional_objects(schema, "oneOf")]
    return set().union(*(_types(choice, root, depth + 1) for choice in choices))


def _resolve(reference: str, root: JsonObject) -> JsonObject:
    """A schema within the same document, as generators of schemas write it: `#/$defs/Name`."""
    found = root
    for name in reference.removeprefix("#/").split("/"):
        found = member(found, name)
    return found


def _type_names(value: Any) -> set[str]:
    """The names that JSON Schema has for a value's type."""
    match value:
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}  # 1.0 is an integer in JSON Schema
        case str():
            return {"string"}
        case None:
            return {"null"}
        case list():
            return {"array"}
        case _:
            return {"object"}
