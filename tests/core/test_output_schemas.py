"""Which schemas of results clients can compile: never more than the TypeScript SDK's compiler can."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.catalog.catalog import Kind, read_page
from mcp_multi_server.core.catalog.item_shapes import look_at_tool
from mcp_multi_server.core.catalog.output_schemas import is_compilable, is_pattern
from mcp_multi_server.core.jsonrpc import Raw

from .test_mending import anything, paths
from .typescript_sdk import TypeScriptSdk, typescript_sdk

RICH: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/rich",
    "type": "object",
    "title": "Rich",
    "properties": {
        "text": {"type": ["string", "null"], "minLength": 1, "pattern": r"^[a-z]+(?:-\d{1,3})?$", "format": "uri"},
        "number": {"anyOf": [{"type": "integer", "minimum": 0, "multipleOf": 2}, {"const": None}], "default": None},
        "list": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "minItems": 1, "uniqueItems": True},
        "choice": {"enum": ["a", 1, None]},
        "any": {"type": "array", "items": True},
        "old": {"type": "string", "nullable": True},
    },
    "patternProperties": {"^x-": {"not": {"type": "null"}}},
    "additionalProperties": {"oneOf": [{"if": {"required": ["a"]}, "then": {"maxProperties": 3}}]},
    "required": ["text"],
    "$defs": {"Item": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Item"}}}},
}


@pytest.fixture(scope="module")
def sdk() -> Iterator[TypeScriptSdk]:
    with typescript_sdk() as running:
        assert running.complaint(Kind.TOOL, b'{"tools":[]}') is None
        yield running


def tool(schema: Any) -> bytes:
    return json.dumps({"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}).encode()


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    schema = copy.deepcopy(RICH)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(paths(schema)))
        holder: Any = schema
        for step in way:
            holder = holder[step]
        holder[last] = copy.deepcopy(
            draw(anything | st.sampled_from(["#", "#/$defs/Item", "#/$defs/No", "(", "string"]))
        )
    return schema | {"$schema": "x", "type": "object"}


@given(mutations())
def test_what_is_listed_is_compiled_by_the_sdk(sdk: TypeScriptSdk, schema: dict[str, Any]) -> None:
    (listed,) = read_page(Kind.TOOL, b'{"tools":[%b]}' % tool(schema)).items
    assert sdk.complaint(Kind.TOOL, b'{"tools":[%b]}' % (listed.legacy or listed.raw)) is None
    assert is_compilable(Raw(json.dumps(schema).encode())) is (b"outputSchema" in listed.raw)


@given(mutations())
def test_what_passes_the_quick_look_passes_this_one(schema: dict[str, Any]) -> None:
    plain = {name: each for name, each in schema.items() if name not in ("$id", "$defs", "patternProperties")}
    try:
        look_at_tool(tool(plain))
    except (ValueError, RecursionError):
        return
    assert is_compilable(Raw(json.dumps(plain).encode()))


COMPILABLE: list[dict[str, Any]] = [
    RICH,
    {"type": "object"},
    {"type": "object", "properties": {"id": {"type": "string"}, "$ref": {"type": "string"}}},
    {"type": "object", "definitions": {"a/b": {}}, "properties": {"x": {"$ref": "#/definitions/a~1b"}}},
    {"type": "object", "x-vendor": {"type": "nonsense"}, "properties": {"x": {"$ref": "#"}}},
]
OTHERS: list[dict[str, Any]] = [
    {"type": "nonsense"},
    {"type": None},
    {"properties": None},
    {"properties": {"a": None}},
    {"properties": {"a": {"$ref": "#/$defs/No"}}},
    {"properties": {"a": {"$ref": "https://example.com/other.json"}}},
    {"properties": {"a": {"pattern": "("}}},
    {"properties": {"a": {"pattern": r"(?P<name>x)"}}},
    {"properties": {"a": {"enum": []}}},
    {"properties": {"a": {"minimum": None}}},
    {"properties": {"a": {"exclusiveMinimum": True}}},
    {"properties": {"a": {"required": True}}},
    {"properties": {"a": {"nullable": True}}},
    {"properties": {"a": {"id": "x"}}},
    {"$id": 7},
]


@pytest.mark.parametrize("schema", COMPILABLE)
def test_schemas_as_servers_write_them_pass(sdk: TypeScriptSdk, schema: dict[str, Any]) -> None:
    assert is_compilable(Raw(json.dumps(schema).encode()))
    assert sdk.complaint(Kind.TOOL, b'{"tools":[%b]}' % tool(schema)) is None


@pytest.mark.parametrize("schema", OTHERS)
def test_schemas_that_break_a_clients_list_do_not_pass(sdk: TypeScriptSdk, schema: dict[str, Any]) -> None:
    assert not is_compilable(Raw(json.dumps(schema).encode()))
    assert sdk.complaint(Kind.TOOL, b'{"tools":[%b]}' % tool({"type": "object"} | schema)) is not None


PATTERNS = [
    r"^[a-z_]+$",
    r"\d{4}-\d\d",
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
    r"[\w.-]+@x",
    "é|ü",
    r"a/b\/c",
    r"a{2,}?",
    "",
]
ODD_PATTERNS = ["(", "[z-a]", r"a{2,1}", r"\Z", r"(?i)x", r"a++", "a{", r"\-", r"(?=a)*", r"[\w-z]", "]", "}", "*"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_plain_patterns_pass(sdk: TypeScriptSdk, pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert is_pattern(pattern)
    assert sdk.complaint(Kind.TOOL, b'{"tools":[%b]}' % tool(schema)) is None


@pytest.mark.parametrize("pattern", ODD_PATTERNS)
def test_patterns_that_javascript_refuses_do_not_pass(sdk: TypeScriptSdk, pattern: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert sdk.complaint(Kind.TOOL, b'{"tools":[%b]}' % tool(schema)) is not None
    assert not is_pattern(pattern)
