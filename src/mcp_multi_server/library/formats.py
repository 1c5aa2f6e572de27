"""MCP tools in the formats of LLM APIs, and a client's lists as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO, TypeAlias

from ..core.printable import one_line

if TYPE_CHECKING:
    from mcp_types import Tool

    from .capabilities import ServerCapabilities

    AnyTool: TypeAlias = Tool | Mapping[str, Any]

Schema: TypeAlias = dict[str, Any]

WIDTH = 80
NAMES_SHOWN = 8
LENGTH_SHOWN = 140

_ANTHROPIC_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_GEMINI_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")

_UNIONS = ("allOf", "anyOf", "oneOf")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "dependentSchemas")
_SCHEMAS = (
    *_UNIONS,
    "prefixItems",
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)


class HasCapabilities(Protocol):
    """What can be summarized: the two clients of this package, or anything else with their `capabilities`."""

    @property
    def capabilities(self) -> Mapping[str, ServerCapabilities]:
        """By server's name."""
        ...


def mcp_tools_to_openai_format(tools: Iterable[AnyTool]) -> list[dict[str, Any]]:
    """`tools` of OpenAI's chat completions, and of the many APIs made after them.

    Names are passed on as they are: those other APIs differ in what they take.

    Args:
        tools: models, as `list_tools().tools` has them, or dicts of MCP.

    Returns:
        For each tool a dict: `type`, and in `function` its `name`, `description` and `parameters`, a JSON Schema.

    Raises:
        ValueError: a dict is no tool.

    >>> mcp_tools_to_openai_format([{"name": "now", "description": "The time.", "inputSchema": {"type": "object"}}])
    [{'type': 'function', 'function': {'name': 'now', 'description': 'The time.', \
'parameters': {'type': 'object', 'properties': {}}}}]
    """
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
        }
        for tool in map(_function, tools)
    ]


def mcp_tools_to_anthropic_format(tools: Iterable[AnyTool]) -> list[dict[str, Any]]:
    """`tools` of Anthropic's messages.

    Args:
        tools: models, as `list_tools().tools` has them, or dicts of MCP.

    Returns:
        For each tool a dict: `name`, `description` where it has one, and `input_schema`, a JSON Schema.

    Raises:
        ValueError: there are tools whose names the API refuses, and with them the whole request; or a dict is no tool.

    """
    return [
        {"name": tool.name, **_described(tool), "input_schema": tool.schema}
        for tool in _fit("Anthropic", _ANTHROPIC_NAME, tools)
    ]


def mcp_tools_to_gemini_format(tools: Iterable[AnyTool]) -> list[dict[str, Any]]:
    """Function declarations of Gemini: `"tools": [{"functionDeclarations": …}]`.

    Parameters go as JSON Schema (`parametersJsonSchema`), which keeps what the older `parameters` would refuse.

    Args:
        tools: models, as `list_tools().tools` has them, or dicts of MCP.

    Returns:
        For each tool a dict: `name`, `description` where it has one, and `parametersJsonSchema`.

    Raises:
        ValueError: there are tools whose names the API refuses, and with them the whole request; or a dict is no tool.

    """
    return [
        {"name": tool.name, **_described(tool), "parametersJsonSchema": _for_gemini(tool.schema)}
        for tool in _fit("Gemini", _GEMINI_NAME, tools)
    ]


def print_capabilities_summary(client: HasCapabilities, file: TextIO | None = None) -> None:
    """Write what each server of a client offers, a line each of at most 80 characters.

    Args:
        client: a client that is connected, or anything with such `capabilities`.
        file: where to. Default: `sys.stdout`.

    """
    lines = ["", "=" * WIDTH, "CAPABILITIES SUMMARY", "=" * WIDTH]
    for server, offered in client.capabilities.items():
        lines += ["", f"[{one_line(server)}]", *_summary(offered)]
    (file or sys.stdout).write("\n".join([*lines, "", "=" * WIDTH, "", ""]))


class _Function(NamedTuple):
    """What every format needs of a tool. The schema is a copy of its own."""

    name: str
    description: str | None
    schema: Schema


def _function(tool: AnyTool) -> _Function:
    if not isinstance(tool, Mapping):
        return _Function(tool.name, tool.description, _rooted_in_an_object(tool.input_schema))
    name, schema = tool.get("name"), tool.get("inputSchema", tool.get("input_schema"))
    if not isinstance(name, str) or not isinstance(schema, Mapping):
        raise ValueError(f"not a tool: {_shown(str(name))} (a name and an inputSchema are wanted)")
    return _Function(name, tool.get("description"), _rooted_in_an_object(schema))


def _described(tool: _Function) -> dict[str, str]:
    return {} if tool.description is None else {"description": tool.description}


def _fit(api: str, accepted: re.Pattern[str], tools: Iterable[AnyTool]) -> list[_Function]:
    functions = [_function(tool) for tool in tools]
    refused = [_shown(tool.name) for tool in functions if not accepted.fullmatch(tool.name)]
    if not refused:
        return functions
    more = f" and {len(refused) - NAMES_SHOWN} more" if len(refused) > NAMES_SHOWN else ""
    names = ", ".join(refused[:NAMES_SHOWN]) + more
    raise ValueError(f"{api} takes tool names of the form {accepted.pattern}; leave out or rename {names}")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= LENGTH_SHOWN else f"{name[:LENGTH_SHOWN]}…")


def _rooted_in_an_object(schema: Mapping[str, Any]) -> Schema:
    """The schema with an object that lists its properties at the top, as the APIs demand and MCP does not.

    OpenAI refuses an object without `properties`; it and Anthropic refuse unions at the top. What the alternatives
    allow is allowed one by one then; which of them go together is for the server to check.
    """
    root = deepcopy(dict(schema))
    certain, possible = _taken_from(root)
    own = _object(root.get("properties"))
    # What stands at the top already says most about a property, so it is kept where there is any.
    for name, alternatives in _alternatives([*certain, *possible]).items():
        own.setdefault(name, alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})
    # Of the alternatives nothing is required: an argument of one may be forbidden by another.
    required = dict.fromkeys(name for part in (root, *certain) for name in part.get("required") or ())
    return {**root, "type": "object", "properties": own, **({"required": list(required)} if required else {})}


def _taken_from(root: Schema) -> tuple[list[Schema], list[Schema]]:
    """Takes from the top what may not stand there: the schemas that hold for all arguments, and those for some."""
    document = dict(root)  # references lead into the document as it was
    for keyword in ("not", "enum"):
        root.pop(keyword, None)
    reference = {"$ref": root.pop("$ref", None)}
    everywhere, *elsewhere = [root.pop(keyword, None) or [] for keyword in _UNIONS]
    return (
        [_resolved(document, branch) for branch in (reference, *everywhere)],
        [_resolved(document, branch) for branches in elsewhere for branch in branches],
    )


def _resolved(document: Schema, branch: object) -> Schema:
    return _target(document, _object(branch).get("$ref")) or _object(branch)


def _alternatives(branches: Iterable[Schema]) -> dict[str, list[Any]]:
    """The schemas that objects have for each property, equal ones once."""
    found: dict[str, list[Any]] = {}
    for branch in branches:
        for name, schema in _object(branch.get("properties")).items():
            alternatives = found.setdefault(name, [])
            if schema not in alternatives:
                alternatives.append(schema)
    return found


def _target(document: Schema, reference: object) -> Schema:
    """What a reference into the document points to; empty where that is nothing."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return {}
    found: Schema = document
    for step in reference[2:].split("/"):
        # JSON Pointer (RFC 6901, section 4): in this order, or "~01" would become "/".
        found = _object(found.get(step.replace("~1", "/").replace("~0", "~")))
    return deepcopy(found)


def _object(value: object) -> Schema:
    return value if isinstance(value, dict) else {}


def _for_gemini(schema: Any) -> Any:
    """A schema in what Gemini takes of JSON Schema: no dialect, `$defs` only, nothing beside a `$ref`.

    The rules are those that Gemini's API reference has for `responseJsonSchema`.
    """
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in {"$schema", "definitions"}}
    definitions = {**_object(schema.get("definitions")), **_object(schema.get("$defs"))}
    if definitions:
        kept["$defs"] = definitions
    return _alone({key: _inside(key, value) for key, value in kept.items()})


def _inside(key: str, value: Any) -> Any:
    """The value of a keyword with the schemas in it rewritten; what is data, such as an `enum`, stays."""
    if key == "$ref" and isinstance(value, str):
        return value.replace("#/definitions/", "#/$defs/", 1)
    if key in _NAMED_SCHEMAS:
        return {name: _for_gemini(schema) for name, schema in _object(value).items()}
    if key not in _SCHEMAS:
        return value
    return [_for_gemini(schema) for schema in value] if isinstance(value, list) else _for_gemini(value)


def _alone(schema: Schema) -> Schema:
    """The schema with its `$ref`, where something stands beside it, as a union of one."""
    if "$ref" not in schema or all(key.startswith("$") for key in schema):
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {**rest, "anyOf": [{"$ref": schema["$ref"]}]}


def _summary(offered: ServerCapabilities) -> Iterator[str]:
    if offered.tools:
        # With a dash, as version 1 has it for tools alone: programs may compare what is printed.
        yield from _section("Tools", [(tool.name, tool.description) for tool in offered.tools.tools], mark="- ")
    if offered.resources:
        yield from _section("Resources", [(resource.name, resource.uri) for resource in offered.resources.resources])
    if offered.resource_templates:
        templates = offered.resource_templates.resource_templates
        yield from _section("Resource Templates", [(template.name, template.uri_template) for template in templates])
    if offered.prompts:
        yield from _section("Prompts", [(prompt.name, prompt.description) for prompt in offered.prompts.prompts])


def _section(title: str, entries: Sequence[tuple[str, str | None]], mark: str = "") -> Iterator[str]:
    if entries:
        yield f"  {title} ({len(entries)}):"
    for number, (name, about) in enumerate(entries, start=1):
        first_line = next((line for line in (about or "").splitlines() if line.strip()), "")
        text = f"    {mark}{number}) {one_line(name)}" + (f": {one_line(first_line.strip())}" if first_line else "")
        yield text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
