"""Arguments as people write them."""

from __future__ import annotations

from typing import Any

import click
import pytest

from mcp_multi_server.cli.arguments import needs_schema, parse_object, split_pairs, typed

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("written", "schema", "value"),
    [
        ("5", INTEGER, 5),
        ("5", {}, 5),
        ("5", STRING, "5"),
        ("true", STRING, "true"),
        ('"quoted"', STRING, '"quoted"'),
        ('"quoted"', {}, "quoted"),
        ("plain words", {}, "plain words"),
        ("plain words", INTEGER, "plain words"),
        ("", {}, ""),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("123456789012345678901234567890", INTEGER, 123456789012345678901234567890),
        ("NaN", {"type": "number"}, "NaN"),
        ("1e999", {"type": "number"}, "1e999"),
        ("5", {"anyOf": [STRING, NULL]}, "5"),
        ("null", {"anyOf": [STRING, NULL]}, None),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "integer"]}, 5),
        ("5", {"enum": ["5", "6"]}, "5"),
        ("5", {"$ref": "#/$defs/Size"}, "5"),
        ("5", {"$ref": "#/$defs/Loop"}, 5),
        ("5", {"$ref": "#/nowhere"}, 5),
        ("2.0", {"oneOf": [STRING, INTEGER]}, 2.0),
        ("2.5", {"oneOf": [STRING, INTEGER]}, "2.5"),
    ],
)
def test_a_value_is_json_unless_the_tool_wants_text(written: str, schema: dict[str, Any], value: object) -> None:
    definitions = {"Size": {"enum": ["5"]}, "Loop": {"$ref": "#/$defs/Loop"}}
    found = typed({"x": written}, {"properties": {"x": schema}, "$defs": definitions})
    assert found == {"x": value}
    assert type(found["x"]) is type(value)


@pytest.mark.parametrize(
    "schema", [{}, {"properties": 5}, {"properties": {"x": True}}, {"properties": {"x": {"type": 5}}}]
)
def test_an_odd_schema_says_nothing(schema: dict[str, Any]) -> None:
    assert typed({"x": "5"}, schema) == {"x": 5}


def test_only_the_first_equals_sign_divides() -> None:
    assert split_pairs(["query=a=b", "empty="]) == {"query": "a=b", "empty": ""}


@pytest.mark.parametrize("words", [["nothing"], ["=value"], ["x=1", "x=2"], ["x=1", "{}"]])
def test_what_is_no_pair_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        split_pairs(words)


@pytest.mark.parametrize("written", ["{", "[1]", "5", '{"x": NaN}', '{"x": 1e999}', "{" * 100_000])
def test_what_is_no_json_object_is_a_usage_error(written: str) -> None:
    with pytest.raises(click.UsageError):
        parse_object(written)


@pytest.mark.parametrize(("value", "needed"), [("text", False), ("", False), ("5", True), ("null", True), ("{}", True)])
def test_a_schema_is_asked_for_only_where_a_value_could_be_json(value: str, needed: bool) -> None:
    assert needs_schema({"a": "text", "x": value}) is needed
