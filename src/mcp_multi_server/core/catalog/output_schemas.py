"""Whether clients can compile the schema of a tool's results.

The TypeScript SDK's client compiles these schemas when it lists tools, and throws the whole list away where one cannot
be compiled. What is found here may be stricter than its compiler (Ajv), never laxer: a tool without such a schema
works, and its results are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from ..jsonrpc import Raw, value

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_NUMBERS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"),
)
_SCHEMAS = ("additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else")
_UNSUPPORTED = ("id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "dependencies")
"""Keywords that the compiler refuses, or that it takes in few of their forms."""

_TOKEN = re.compile(
    r"""
    \((?:\?(?:[:=!]|<[=!]))? | [|^$]                           # an opening bracket; what cannot be repeated
    | (?: \) | \. | [^\\()\[\]{}|^$.*+?]                       # a closing one, any character, a character
        | \\[dDwWsSbBfnrtv^$\\.*+?()\[\]{}|/] | \\x[0-9a-fA-F]{2} | \\u[0-9a-fA-F]{4}
        | \[\^?(?:[^\]\[\\]|\\[dDwWsSfnrtv^$\\.*+?()\[\]{}|/-])*\]
      ) (?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})?\??                   # how often it may come
    """,
    re.VERBOSE,
)
_LOOK_AROUND = re.compile(r"\(\?[=!<]")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")


def is_compilable(schema: Raw) -> bool:
    """Whether clients can compile the schema; an object that is nested too deeply, or no JSON to Python, is none."""
    try:
        root = value(schema)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    if not isinstance(root, dict) or not isinstance(root.get("$id", ""), str) or "#" in root.get("$id", ""):
        return False
    return _Compilation(root).is_schema(root)


class _Compilation:
    """One look at a schema and at all that it holds or refers to."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def is_schema(self, schema: Any) -> bool:
        if isinstance(schema, bool):
            return True
        if not isinstance(schema, dict) or any(keyword in schema for keyword in _UNSUPPORTED):
            return False
        if "$id" in schema and schema is not self._root:
            return False
        return _is_typed(schema) and all(self._checks[name](self, each) for name, each in _checked(self, schema))

    def is_map(self, found: Any) -> bool:
        return isinstance(found, dict) and all(map(self.is_schema, found.values()))

    def is_pattern_map(self, found: Any) -> bool:
        return self.is_map(found) and all(map(is_pattern, found))

    def is_list(self, found: Any) -> bool:
        return isinstance(found, list) and bool(found) and all(map(self.is_schema, found))

    def is_schema_or_list(self, found: Any) -> bool:
        return self.is_list(found) if isinstance(found, list) else self.is_schema(found)

    def is_reference(self, found: Any) -> bool:
        """Whether it leads to a schema in the same document; what is there is looked at in its own place."""
        if not isinstance(found, str) or not (found == "#" or found.startswith("#/")):
            return False
        place: Any = self._root
        for part in unquote(found[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, dict) or name not in place:
                return False
            place = place[name]
        return isinstance(place, dict | bool) and _is_place_of_schemas(found)

    _checks: Mapping[str, Callable[[_Compilation, Any], bool]] = {
        **dict.fromkeys(_NUMBERS, lambda _, found: _is_number(found)),
        **dict.fromkeys(_SCHEMAS, is_schema),
        **dict.fromkeys(("properties", "$defs", "definitions", "dependentSchemas"), is_map),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), is_list),
        "items": is_schema_or_list,
        "patternProperties": is_pattern_map,
        "pattern": lambda _, found: is_pattern(found),
        "format": lambda _, found: isinstance(found, str),
        "uniqueItems": lambda _, found: isinstance(found, bool),
        "enum": lambda _, found: isinstance(found, list) and bool(found),
        "required": lambda _, found: isinstance(found, list) and all(isinstance(each, str) for each in found),
        "$ref": is_reference,
    }


def _checked(compilation: _Compilation, schema: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, each) for name, each in schema.items() if name in compilation._checks]


def _is_place_of_schemas(reference: str) -> bool:
    """Whether all that can be there was looked at: the members of an unknown keyword were not."""
    parts = reference.split("/")
    return reference == "#" or (len(parts) == 3 and parts[1] in ("$defs", "definitions", "properties"))


def _is_typed(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not all(kind in TYPES for kind in kinds) or ("type" in schema and not kinds):
        return False
    if "nullable" not in schema:
        return True
    return schema["nullable"] is True and bool(kinds)


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def is_pattern(found: Any) -> bool:
    """Whether it is a regular expression to JavaScript, with its flag `u`; Python's own checks ranges and brackets."""
    if not isinstance(found, str):
        return False
    position = 0
    while position < len(found):
        token = _TOKEN.match(found, position)
        if token is None:
            return False
        position = token.end()
    # JavaScript repeats no look ahead or behind; which of the groups is one takes a parser to tell.
    if _LOOK_AROUND.search(found) and _REPEATED_GROUP.search(found):
        return False
    try:
        re.compile(found)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
