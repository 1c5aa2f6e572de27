"""Mends the items of lists that a client could not read, as one such item costs it the whole list, everybody's tools.

What has one harmless reading is read so: a member of the wrong type is left out, a schema that is no object's is made
one. An item that has no usable name is left out. What needs no mending keeps its bytes, down to spaces and escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import msgspec

from ..jsonrpc import Members, Raw, decoder, encode, is_object, members, text, value
from .output_schemas import is_compilable

Notes: TypeAlias = list[str]
Mend: TypeAlias = Callable[[Raw, str, Notes], Raw | None]
"""Takes a value, where it stands, and notes for its owner. Returns the value itself where it is fine, another one where
it was mended, and None where it is to be left out."""

LARGEST_SIZE = 2**53
"""JavaScript counts no further, and reads a number of 400 digits as infinity."""

_TRUE, _FALSE, _NULL = b"true", b"false", b"null"
_OBJECT = Raw(b'"object"')
_ANYTHING, _NOTHING = Raw(b"{}"), Raw(b'{"not":{}}')
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_URIS = ("uri", "uriTemplate")
_AUTHORITY = re.compile(r"[\t\r\n]*/[\t\r\n]*/")
"""What follows would be read as a host's name, with a server's name in front of it, and may be none (RFC 3986 §3.2).
Parsers of URLs skip tabs and line ends."""
_decode_list = decoder(list[Raw])


class Unmendable(Exception):
    """Raised if an item cannot be listed at all. The message says why; `name` is its name, where it has one."""

    def __init__(self, why: str, name: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.name = name


@dataclass(frozen=True, slots=True)
class Mended:
    """An item as it can be listed. `legacy`: its form for legacy clients, where that is another.

    `notes`: what was done; `legacy_notes`: what was done for legacy clients alone, and is no fault of a modern server.
    """

    name: str
    raw: bytes
    legacy: bytes | None = None
    notes: tuple[str, ...] = ()
    legacy_notes: tuple[str, ...] = ()


def mended(raw: bytes, key: str, shape: Mapping[str, Mend]) -> Mended:
    """The item in `raw`, mended as its kind's shape says. `key`: the member that names it.

    Raises Unmendable where it is no object, or has no usable name.
    """
    if not is_object(raw):
        raise Unmendable("it is no object")
    body, notes = members(raw), list[str]()
    name = text(body.get(key))
    if not name:
        raise Unmendable(_unnamed(body, key))
    if key in _URIS and _AUTHORITY.match(name):
        raise Unmendable(f"its {key} begins with // and has no scheme", name)
    changed = _mend_members(body, shape, "", notes)
    if text(body.get("name")) is None:  # a resource is read by its URI, and clients want a name beside it
        notes.append(f"name is {_kind_of(body.get('name'), 'string')}: listed with its {key} for one")
        body["name"], changed = Raw(encode(name)), True
    if "inputSchema" in shape and "inputSchema" not in body:
        notes.append("inputSchema is missing: listed as one without properties")
        body["inputSchema"], changed = Raw(encode({"type": "object"})), True
    legacy_notes = list[str]()
    legacy = _for_legacy(body, legacy_notes)
    return Mended(name, encode(body) if changed else raw, legacy, tuple(notes), tuple(legacy_notes))


def _unnamed(body: Members, key: str) -> str:
    if key not in body:
        return f"it has no {key}"
    return f"its {key} is empty" if text(body[key]) == "" else f"its {key} is no string"


def _mend_members(body: Members, shape: Mapping[str, Mend], path: str, notes: Notes) -> bool:
    """Mend the members that a shape speaks of; whether anything was changed."""
    changed = False
    for name, mend in shape.items():
        if (raw := body.get(name)) is None:
            continue
        kept = mend(raw, f"{path}.{name}" if path else name, notes)
        if kept is raw:
            continue
        changed = True
        if kept is None:
            del body[name]
        else:
            body[name] = kept
    return changed


def _left_out(raw: Raw, path: str, wanted: str, notes: Notes) -> Raw | None:
    notes.append(f"{path} is {_kind_of(raw, wanted)}: left out")
    return None


def _kind_of(raw: Raw | None, wanted: str) -> str:
    if raw is None:
        return "missing"
    return "null" if bytes(raw) == _NULL else f"no {wanted}"


# -- values ----------------------------------------------------------------------------------------------------------


def _string(raw: Raw, path: str, notes: Notes) -> Raw | None:
    return raw if text(raw) is not None else _left_out(raw, path, "string", notes)


def _flag(raw: Raw, path: str, notes: Notes) -> Raw | None:
    return raw if bytes(raw) in (_TRUE, _FALSE) else _left_out(raw, path, "boolean", notes)


def _one_of(*words: str) -> Mend:
    def mend(raw: Raw, path: str, notes: Notes) -> Raw | None:
        return raw if text(raw) in words else _left_out(raw, path, f"word of {', '.join(words)}", notes)

    return mend


def _size(raw: Raw, path: str, notes: Notes) -> Raw | None:
    number = _number(raw)
    is_whole = number is not None and abs(number) <= LARGEST_SIZE and number == int(number)
    return raw if is_whole else _left_out(raw, path, f"whole number up to {LARGEST_SIZE}", notes)


def _share(raw: Raw, path: str, notes: Notes) -> Raw | None:
    number = _number(raw)
    return raw if number is not None and 0 <= number <= 1 else _left_out(raw, path, "number from 0 to 1", notes)


def _number(raw: Raw) -> float | None:
    try:
        found = value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a number that Python cannot hold is no number here
        return None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _moment(raw: Raw, path: str, notes: Notes) -> Raw | None:
    found = _MOMENT.fullmatch(text(raw) or "")
    if found is not None:
        try:
            date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            return _left_out(raw, path, "date", notes)
        return raw
    return _left_out(raw, path, "time with its offset (ISO 8601)", notes)


def _list_of(mend: Mend) -> Mend:
    """Mends a list by leaving out of it what cannot be used."""

    def mend_list(raw: Raw, path: str, notes: Notes) -> Raw | None:
        if bytes(memoryview(raw)[:1]) != b"[":
            return _left_out(raw, path, "list", notes)
        found = _decode_list(raw)
        kept = [mend(each, f"{path}[]", notes) for each in found]
        if all(new is old for new, old in zip(kept, found, strict=True)):
            return raw
        return Raw(encode([each for each in kept if each is not None]))

    return mend_list


def _object(shape: Mapping[str, Mend], *, required: Sequence[str] = ()) -> Mend:
    """Mends an object's members; one that lacks what is required is left out itself."""

    def mend(raw: Raw, path: str, notes: Notes) -> Raw | None:
        if not is_object(raw):
            return _left_out(raw, path, "object", notes)
        body = members(raw)
        changed = _mend_members(body, shape, path, notes)
        for name in required:
            if name not in body:
                notes.append(f"{path} has no usable {name}: left out")
                return None
        return Raw(encode(body)) if changed else raw

    return mend


# -- schemas ---------------------------------------------------------------------------------------------------------


def _input_schema(raw: Raw, path: str, notes: Notes) -> Raw:
    """The schema of a tool's arguments, which are always an object."""
    if not is_object(raw):
        notes.append(f"{path} is {_kind_of(raw, 'object')}: listed as one without properties")
        return Raw(encode({"type": "object"}))
    return _object_schema(raw, path, notes)


def _object_schema(raw: Raw, path: str, notes: Notes) -> Raw:
    """A schema as revisions before 2026-07-28 want it: of an object, each property's schema an object."""
    body = members(raw)
    changed = _mend_members(body, _SCHEMA, path, notes)
    if text(body.get("type")) != "object":
        notes.append(f'{path} is not of "type": "object": listed as if it were')
        body, changed = {**body, "type": _OBJECT}, True
    return Raw(encode(body)) if changed else raw


def _properties(raw: Raw, path: str, notes: Notes) -> Raw | None:
    if not is_object(raw):
        return _left_out(raw, path, "object", notes)
    found = members(raw)
    kept = {name: _property(schema, path, notes) for name, schema in found.items()}
    return raw if all(kept[name] is found[name] for name in found) else Raw(encode(kept))


def _property(raw: Raw, path: str, notes: Notes) -> Raw:
    """The schema of a property; a boolean, which newer revisions allow, has an object that says the same."""
    if is_object(raw):
        return raw
    if bytes(raw) not in (_TRUE, _FALSE):
        notes.append(f"{path} has one whose schema is no object: listed as if anything could be in it")
    return _NOTHING if bytes(raw) == _FALSE else _ANYTHING


def _output_schema(raw: Raw, path: str, notes: Notes) -> Raw | None:
    """The schema of a tool's results as modern clients want it: any object, of whatever it is the schema."""
    kept = _object({"$schema": _string})(raw, path, notes)
    if kept is None or is_compilable(kept):
        return kept
    notes.append(f"{path} is no schema that clients can compile: left out")
    return None


def _for_legacy(body: Members, notes: Notes) -> bytes | None:
    """The item for legacy clients, whose schema of results has to be an object's; None where it is the same.

    Results without a schema are fine for every client, results against their schema for none: a schema that is
    something else is left out.
    """
    raw = body.get("outputSchema")
    if raw is None:
        return None
    kept = _object_schema(raw, "outputSchema", notes) if _means_objects(raw) else None
    if kept is raw:
        return None
    if kept is None:
        notes.append("outputSchema is not of an object: left out")
    rest = {name: each for name, each in body.items() if name != "outputSchema"}
    return encode(rest if kept is None else body | {"outputSchema": kept})


def _means_objects(schema: Raw) -> bool:
    """Whether a schema says anything, and lets objects pass as far as its type tells."""
    body = members(schema)
    kinds = body.get("type")
    if kinds is None:
        return any(name in body for name in _SAYS_WHAT)
    if text(kinds) is not None:
        return text(kinds) == "object"
    try:
        return any(text(each) == "object" for each in _decode_list(kinds))
    except msgspec.ValidationError:
        return False


_SAYS_WHAT = ("properties", "anyOf", "oneOf", "allOf", "$ref", "required", "additionalProperties", "patternProperties")
_SCHEMA: dict[str, Mend] = {"$schema": _string, "properties": _properties, "required": _list_of(_string)}

# -- the kinds -------------------------------------------------------------------------------------------------------

_ICON = _object(
    {"src": _string, "mimeType": _string, "sizes": _list_of(_string), "theme": _one_of("light", "dark")},
    required=("src",),
)
_DESCRIBED: dict[str, Mend] = {
    "title": _string,
    "description": _string,
    "icons": _list_of(_ICON),
    "_meta": _object({}),
}
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
TOOL: dict[str, Mend] = _DESCRIBED | {
    "inputSchema": _input_schema,
    "outputSchema": _output_schema,
    "annotations": _object({"title": _string, **dict.fromkeys(_HINTS, _flag)}),
    "execution": _object({"taskSupport": _one_of("forbidden", "optional", "required")}),
}
_ARGUMENT = _object({"name": _string, "title": _string, "description": _string, "required": _flag}, required=("name",))
PROMPT: dict[str, Mend] = _DESCRIBED | {"arguments": _list_of(_ARGUMENT)}
_AUDIENCE = _list_of(_one_of("user", "assistant"))
TEMPLATE: dict[str, Mend] = _DESCRIBED | {
    "mimeType": _string,
    "annotations": _object({"audience": _AUDIENCE, "priority": _share, "lastModified": _moment}),
}
RESOURCE: dict[str, Mend] = TEMPLATE | {"size": _size}
