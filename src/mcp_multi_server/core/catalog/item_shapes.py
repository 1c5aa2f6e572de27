"""What an item of a list must look like so that the clients of every revision can read the list that it is in.

Nearly every item does, so this is the quick look; `mending` takes over where it fails. It must never let anything pass
that a client refuses, and may refuse what is fine: the second look is the one that decides.
Sources: the schemas of the revisions 2024-11-05 to 2026-07-28, each rule in its strictest form, and what the public
SDKs require beyond them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Uri: TypeAlias = Annotated[str, Meta(min_length=1, pattern=r"^[^/\t\r\n]")]
"""What begins otherwise is looked at more closely."""
Text: TypeAlias = str | UnsetType
Flag: TypeAlias = bool | UnsetType
Number: TypeAlias = float | UnsetType
JsonType: TypeAlias = Literal["string", "number", "integer", "boolean", "object", "array", "null"]
Moment: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z\Z")
]
"""A date that exists in every month, with a time: all of that form are right, and others need a calendar."""


class AnyObject(msgspec.Struct, gc=False, rename="camel"):
    """An object whose members do not matter."""


class ObjectSchema(msgspec.Struct, gc=False, rename="camel"):
    """A JSON Schema of an object: the only kind that a revision before 2026-07-28 has for arguments and results."""

    type: Literal["object"]
    properties: dict[str, AnyObject] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    dialect: Text = msgspec.field(default=UNSET, name="$schema")


class Compilable(msgspec.Struct, gc=False, rename="camel"):
    """A schema of the plainest kind, which every client can compile; `output_schemas` looks at all others."""

    type: JsonType | Annotated[list[JsonType], Meta(min_length=1)] | UnsetType = UNSET
    properties: Mapping[str, bool | Compilable] | UnsetType = UNSET
    additional_properties: bool | Compilable | UnsetType = UNSET
    items: bool | Compilable | UnsetType = UNSET
    any_of: Annotated[list[bool | Compilable], Meta(min_length=1)] | UnsetType = UNSET
    one_of: Annotated[list[bool | Compilable], Meta(min_length=1)] | UnsetType = UNSET
    all_of: Annotated[list[bool | Compilable], Meta(min_length=1)] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    enum: Annotated[list[msgspec.Raw], Meta(min_length=1)] | UnsetType = UNSET
    format: Text = UNSET
    minimum: Number = UNSET
    maximum: Number = UNSET
    exclusive_minimum: Number = UNSET
    exclusive_maximum: Number = UNSET
    multiple_of: Number = UNSET
    min_length: Number = UNSET
    max_length: Number = UNSET
    min_items: Number = UNSET
    max_items: Number = UNSET
    min_properties: Number = UNSET
    max_properties: Number = UNSET
    unique_items: Flag = UNSET
    # What has to be looked at with more care: a schema that has one of these does not pass here.
    _pattern: UnsetType = msgspec.field(default=UNSET, name="pattern")
    _pattern_properties: UnsetType = msgspec.field(default=UNSET, name="patternProperties")
    _ref: UnsetType = msgspec.field(default=UNSET, name="$ref")
    _id: UnsetType = msgspec.field(default=UNSET, name="$id")
    _old_id: UnsetType = msgspec.field(default=UNSET, name="id")
    _anchor: UnsetType = msgspec.field(default=UNSET, name="$anchor")
    _dynamic_anchor: UnsetType = msgspec.field(default=UNSET, name="$dynamicAnchor")
    _recursive_anchor: UnsetType = msgspec.field(default=UNSET, name="$recursiveAnchor")
    _defs: UnsetType = msgspec.field(default=UNSET, name="$defs")
    _definitions: UnsetType = msgspec.field(default=UNSET, name="definitions")
    _dependencies: UnsetType = msgspec.field(default=UNSET, name="dependencies")
    _dependent_schemas: UnsetType = msgspec.field(default=UNSET, name="dependentSchemas")
    _prefix_items: UnsetType = msgspec.field(default=UNSET, name="prefixItems")
    _additional_items: UnsetType = msgspec.field(default=UNSET, name="additionalItems")
    _contains: UnsetType = msgspec.field(default=UNSET, name="contains")
    _min_contains: UnsetType = msgspec.field(default=UNSET, name="minContains")
    _max_contains: UnsetType = msgspec.field(default=UNSET, name="maxContains")
    _property_names: UnsetType = msgspec.field(default=UNSET, name="propertyNames")
    _not: UnsetType = msgspec.field(default=UNSET, name="not")
    _if: UnsetType = msgspec.field(default=UNSET, name="if")
    _then: UnsetType = msgspec.field(default=UNSET, name="then")
    _else: UnsetType = msgspec.field(default=UNSET, name="else")
    _nullable: UnsetType = msgspec.field(default=UNSET, name="nullable")


class OutputSchema(Compilable, gc=False, kw_only=True, rename="camel"):
    """The schema of a tool's results, in the form of every revision: of an object."""

    type: Literal["object"]
    properties: Mapping[str, Compilable] | UnsetType = UNSET
    dialect: Text = msgspec.field(default=UNSET, name="$schema")


class Icon(msgspec.Struct, gc=False, rename="camel"):
    """A picture of an item."""

    src: str
    mime_type: Text = UNSET
    sizes: list[str] | UnsetType = UNSET
    theme: Literal["light", "dark"] | UnsetType = UNSET


class Annotations(msgspec.Struct, gc=False, rename="camel"):
    """For whom a resource is, and how important and how new."""

    audience: list[Literal["user", "assistant"]] | UnsetType = UNSET
    priority: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    last_modified: Moment | UnsetType = UNSET


class ToolAnnotations(msgspec.Struct, gc=False, rename="camel"):
    """What a tool says of its effects."""

    title: Text = UNSET
    read_only_hint: Flag = UNSET
    destructive_hint: Flag = UNSET
    idempotent_hint: Flag = UNSET
    open_world_hint: Flag = UNSET


class Execution(msgspec.Struct, gc=False, rename="camel"):
    """Whether a tool can be called as a task."""

    task_support: Literal["forbidden", "optional", "required"] | UnsetType = UNSET


class Argument(msgspec.Struct, gc=False, rename="camel"):
    """An argument of a prompt."""

    name: str
    title: Text = UNSET
    description: Text = UNSET
    required: Flag = UNSET


class _Described(msgspec.Struct, gc=False, rename="camel"):
    """What items of every kind can have."""

    name: Name
    title: Text = UNSET
    description: Text = UNSET
    icons: list[Icon] | UnsetType = UNSET
    meta: AnyObject | UnsetType = msgspec.field(default=UNSET, name="_meta")


class Tool(_Described, gc=False, kw_only=True, rename="camel"):
    """A tool."""

    input_schema: ObjectSchema
    output_schema: OutputSchema | UnsetType = UNSET
    annotations: ToolAnnotations | UnsetType = UNSET
    execution: Execution | UnsetType = UNSET


class Prompt(_Described, gc=False, rename="camel"):
    """A prompt."""

    arguments: list[Argument] | UnsetType = UNSET


class _OfResource(_Described, gc=False, rename="camel"):
    mime_type: Text = UNSET
    annotations: Annotations | UnsetType = UNSET


class Resource(_OfResource, gc=False, kw_only=True, rename="camel"):
    """A resource. Its size has a bound because JavaScript reads a number of 400 digits as infinity."""

    uri: Uri
    size: Annotated[int, Meta(ge=-(2**53), le=2**53)] | UnsetType = UNSET


class ResourceTemplate(_OfResource, gc=False, kw_only=True, rename="camel"):
    """A resource template."""

    uri_template: Uri


Look: TypeAlias = Callable[[bytes], str]
"""Returns the name of an item that every client can read. Raises msgspec.DecodeError, UnicodeDecodeError or
RecursionError where it may be another."""


def _look(shape: type[msgspec.Struct], key: str) -> Look:
    decode, name = msgspec.json.Decoder(shape).decode, attrgetter(key)
    return lambda raw: name(decode(raw))


look_at_tool = _look(Tool, "name")
look_at_prompt = _look(Prompt, "name")
look_at_resource = _look(Resource, "uri")
look_at_template = _look(ResourceTemplate, "uri_template")
