"""Tools as LLM APIs take them, and the summary of what servers offer."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    Prompt,
    Resource,
    ResourceTemplate,
    Tool,
)

from mcp_multi_server.library.capabilities import ServerCapabilities
from mcp_multi_server.library.formats import (
    mcp_tools_to_anthropic_format,
    mcp_tools_to_gemini_format,
    mcp_tools_to_openai_format,
    print_capabilities_summary,
)

Format = Callable[[list[Tool | dict[str, Any]]], list[dict[str, Any]]]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where."}},
    "required": ["city"],
}
WEATHER = Tool(name="weather", description="Of today.", input_schema=SCHEMA)
FORMATS: list[Format] = [mcp_tools_to_openai_format, mcp_tools_to_anthropic_format, mcp_tools_to_gemini_format]
every_format = pytest.mark.parametrize("convert", FORMATS, ids=["openai", "anthropic", "gemini"])


def tool(schema: dict[str, Any], name: str = "tool") -> Tool | dict[str, Any]:
    return Tool(name=name, input_schema=schema)


def parameters(declared: dict[str, Any]) -> dict[str, Any]:
    """The schema in a tool of any format."""
    flat = declared.get("function", declared)
    (schema,) = (flat[key] for key in ("parameters", "input_schema", "parametersJsonSchema") if key in flat)
    assert isinstance(schema, dict)
    return schema


def test_openai_gets_functions() -> None:
    assert mcp_tools_to_openai_format([WEATHER]) == [
        {"type": "function", "function": {"name": "weather", "description": "Of today.", "parameters": SCHEMA}}
    ]


def test_anthropic_gets_an_input_schema() -> None:
    assert mcp_tools_to_anthropic_format([WEATHER]) == [
        {"name": "weather", "description": "Of today.", "input_schema": SCHEMA}
    ]


def test_gemini_gets_parameters_as_json_schema() -> None:
    assert mcp_tools_to_gemini_format([WEATHER]) == [
        {"name": "weather", "description": "Of today.", "parametersJsonSchema": SCHEMA}
    ]


def test_a_missing_description_is_null_for_openai_as_in_version_1_and_left_out_for_the_others() -> None:
    bare = tool(SCHEMA)
    assert mcp_tools_to_openai_format([bare])[0]["function"]["description"] is None
    assert "description" not in mcp_tools_to_anthropic_format([bare])[0]
    assert "description" not in mcp_tools_to_gemini_format([bare])[0]


@every_format
def test_tools_keep_their_order_and_no_tools_are_an_empty_list(convert: Format) -> None:
    assert convert([]) == []
    assert [parameters(one) for one in convert([WEATHER, tool({})])] == [SCHEMA, {"type": "object", "properties": {}}]


@every_format
def test_dicts_are_taken_with_names_of_the_wire_and_of_python(convert: Format) -> None:
    for key in ("inputSchema", "input_schema"):
        assert convert([{"name": "weather", "description": "Of today.", key: SCHEMA}]) == convert([WEATHER])


@every_format
@pytest.mark.parametrize("wrong", [{}, {"name": "x"}, {"inputSchema": {}}, {"name": "x", "inputSchema": None}])
def test_a_dict_that_is_no_tool_is_refused(convert: Format, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a tool"):
        convert([wrong])


@every_format
def test_what_is_converted_can_be_changed_without_changing_the_tool(convert: Format) -> None:
    own = deepcopy(SCHEMA)
    schema = parameters(convert([tool(own)])[0])
    schema["properties"]["city"]["type"] = "number"
    schema["required"].append("more")
    assert own == SCHEMA


@every_format
@pytest.mark.parametrize(
    ("given_schema", "schema"),
    [
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": ["object", "null"], "properties": None}, {"type": "object", "properties": {}}),
        (
            {**SCHEMA, "anyOf": [{"required": ["city"]}, {"required": ["zip"]}], "not": {"required": ["x"]}},
            SCHEMA,
        ),
        (
            {
                "oneOf": [
                    {"properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}, "required": ["kind", "n"]},
                    {"properties": {"kind": {"const": "b"}, "n": {"type": "integer"}}, "required": ["kind"]},
                    True,
                ]
            },
            {
                "type": "object",
                "properties": {"kind": {"anyOf": [{"const": "a"}, {"const": "b"}]}, "n": {"type": "integer"}},
            },
        ),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a"], "allOf": [SCHEMA]},
            {"type": "object", "properties": {"a": {}, **SCHEMA["properties"]}, "required": ["a", "city"]},
        ),
        ({"$ref": "#/$defs/In", "$defs": {"In": SCHEMA}}, {**SCHEMA, "$defs": {"In": SCHEMA}}),
        (
            {"anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/gone"}, {"$ref": 1}], "$defs": {"a/b": SCHEMA}},
            {"type": "object", "properties": SCHEMA["properties"], "$defs": {"a/b": SCHEMA}},
        ),
    ],
)
def test_the_top_is_an_object_with_properties_and_no_union(
    convert: Format, given_schema: dict[str, Any], schema: dict[str, Any]
) -> None:
    assert parameters(convert([tool(given_schema)])[0]) == schema


@pytest.mark.parametrize("convert", [mcp_tools_to_openai_format, mcp_tools_to_anthropic_format])
def test_all_else_in_a_schema_stays_as_it_is(convert: Format) -> None:
    rich = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "In",
        **SCHEMA,
        "additionalProperties": False,
        "definitions": {"D": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/D"}]}},
    }
    assert parameters(convert([tool(rich)])[0]) == rich


@pytest.mark.parametrize(
    ("inner", "sent"),
    [
        ({"$schema": "x", "type": "string"}, {"type": "string"}),
        ({"$ref": "#/$defs/D"}, {"$ref": "#/$defs/D"}),
        ({"$ref": "#/definitions/D", "description": "d"}, {"description": "d", "anyOf": [{"$ref": "#/$defs/D"}]}),
        ({"items": {"$schema": "x", "$ref": "#/$defs/D"}}, {"items": {"$ref": "#/$defs/D"}}),
        ({"items": [{"$schema": "x"}, True]}, {"items": [{}, True]}),
        ({"anyOf": [{"$schema": "x"}, {"type": "null"}]}, {"anyOf": [{}, {"type": "null"}]}),
        ({"additionalProperties": False}, {"additionalProperties": False}),
        ({"properties": {"$schema": {}, "$ref": {"type": "string"}, "definitions": {}}},) * 2,
        ({"enum": [{"$schema": "x"}], "default": {"definitions": 1, "$ref": 2}},) * 2,
    ],
)
def test_gemini_gets_no_dialect_and_nothing_beside_a_reference(inner: dict[str, Any], sent: dict[str, Any]) -> None:
    definition = {"type": "string"}
    whole = {
        "$schema": "https://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"inner": inner},
        "definitions": {"D": definition},
    }
    assert parameters(mcp_tools_to_gemini_format([tool(whole)])[0]) == {
        "type": "object",
        "properties": {"inner": sent},
        "$defs": {"D": definition},
    }


@pytest.mark.parametrize("name", ["a", "get-user_2", "x" * 64, "x" * 128])
@every_format
def test_names_that_the_apis_take_are_passed_on(convert: Format, name: str) -> None:
    assert name in json.dumps(convert([tool({}, name)]))


@pytest.mark.parametrize("name", ["", "my tool", "user/get", "é", "x" * 129, "a\n"])
def test_names_that_an_api_refuses_are_told_before_it_does(name: str) -> None:
    for convert, api in ((mcp_tools_to_anthropic_format, "Anthropic"), (mcp_tools_to_gemini_format, "Gemini")):
        with pytest.raises(ValueError, match=api) as caught:
            convert([WEATHER, tool({}, name), tool({}, "other tool")])
        assert ascii(name) in str(caught.value)
        assert "'other tool'" in str(caught.value)
        assert "weather" not in str(caught.value)


def test_gemini_takes_dots_and_colons_but_not_at_the_start() -> None:
    assert mcp_tools_to_gemini_format([tool({}, "a.b:c")])[0]["name"] == "a.b:c"
    for name in (".a", "1a"):
        with pytest.raises(ValueError, match="Gemini"):
            mcp_tools_to_gemini_format([tool({}, name)])
    with pytest.raises(ValueError, match="Anthropic"):
        mcp_tools_to_anthropic_format([tool({}, "a.b:c")])


def test_openai_names_are_passed_on_as_version_1_did() -> None:
    names = ["my tool", "x" * 200, "a.b"]
    assert [one["function"]["name"] for one in mcp_tools_to_openai_format([tool({}, name) for name in names])] == names


def test_a_thousand_refused_names_make_a_short_error() -> None:
    with pytest.raises(ValueError, match="and 992 more") as caught:
        mcp_tools_to_anthropic_format([tool({}, f"{number} {'x' * 1000}") for number in range(1000)])
    assert len(str(caught.value)) < 2000


simple = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["string", "integer"]), "description": st.text()})
objects = st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abcd"), simple, max_size=3)})
unions = st.fixed_dictionaries(
    {}, optional={keyword: st.lists(objects, min_size=1, max_size=3) for keyword in ("anyOf", "oneOf")}
)
arguments = st.dictionaries(st.sampled_from("abcde"), st.integers() | st.text(max_size=3), max_size=4)


@given(objects, unions, arguments)
def test_what_a_tool_takes_its_converted_schema_takes(
    top: dict[str, Any], union: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Conversion may only loosen; a union ignores properties that the chosen branch does not name, so those are cut."""
    schema = {"type": "object", "additionalProperties": True, **top, **union}
    named = [set(part["properties"]) for part in (top, *(b for branches in union.values() for b in branches))]
    sent = {name: value for name, value in sent.items() if all(name in names for names in named)}
    if jsonschema.Draft202012Validator(schema).is_valid(sent):
        for convert in FORMATS:
            jsonschema.Draft202012Validator(parameters(convert([tool(schema)])[0])).validate(sent)


FULL = ServerCapabilities(
    name="full",
    tools=ListToolsResult(
        tools=[
            Tool(name="now", description="The time.\nIn UTC.", input_schema={}),
            Tool(name="bare", input_schema={}),
            Tool(name="late", description="\n\n  Begins late.", input_schema={}),
            Tool(name="long", description="x" * 100, input_schema={}),
            Tool(name="rude\x1b[2J", description="Red \x1b[31m.", input_schema={}),
        ]
    ),
    resources=ListResourcesResult(resources=[Resource(name="log", uri="file:///log")]),
    resource_templates=ListResourceTemplatesResult(
        resource_templates=[ResourceTemplate(name="row", uri_template="db://{table}/{id}")]
    ),
    prompts=ListPromptsResult(prompts=[Prompt(name="review", description="Reviews.")]),
)
SUMMARY = f"""
{"=" * 80}
CAPABILITIES SUMMARY
{"=" * 80}

[full]
  Tools (5):
    - 1) now: The time.
    - 2) bare
    - 3) late: Begins late.
    - 4) long: {"x" * 64}…
    - 5) rude: Red .
  Resources (1):
    1) log: file:///log
  Resource Templates (1):
    1) row: db://{{table}}/{{id}}
  Prompts (1):
    1) review: Reviews.

[nothing]

[empty]

{"=" * 80}

"""


def test_a_summary_lists_what_each_server_offers(capsys: pytest.CaptureFixture[str]) -> None:
    client = SimpleNamespace(
        capabilities={
            "full": FULL,
            "nothing": ServerCapabilities(name="nothing"),
            "empty": ServerCapabilities(name="empty", tools=ListToolsResult(tools=[])),
        }
    )
    print_capabilities_summary(client)
    assert capsys.readouterr().out == SUMMARY
    print_capabilities_summary(client, file=(file := io.StringIO()))
    assert file.getvalue() == SUMMARY
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("module", ["formats", "uris", "logs"])
def test_importing_costs_no_model(module: str) -> None:
    heavy = "'mcp_types' in sys.modules or 'pydantic' in sys.modules"
    program = f"import sys, mcp_multi_server.library.{module}; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
