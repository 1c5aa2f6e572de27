"""What `help()` and the API reference say: every parameter, every result, every error."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

import mcp_multi_server
from mcp_multi_server import (
    MCPServersConfig,
    MultiServerClient,
    ServerCapabilities,
    ServerConfig,
    ServerRequestContext,
    SyncMultiServerClient,
)

CLIENTS = (MultiServerClient, SyncMultiServerClient)
OF_CONFIGS = {"FileNotFoundError", "json.JSONDecodeError", "pydantic.ValidationError", "ConnectionError"}
OF_REQUESTS = {"mcp.MCPError", "pydantic.ValidationError", "RuntimeError"}
OF_TIMES = {"TypeError", "ValueError"}
RAISED: dict[str, set[str]] = {
    "MultiServerClient": OF_CONFIGS | {"RuntimeError", "TypeError"},
    "SyncMultiServerClient": OF_CONFIGS | {"RuntimeError", "TypeError", "ValueError", "TimeoutError"},
    "connect_all": OF_CONFIGS | {"RuntimeError"},
    "from_dict": {"pydantic.ValidationError"},
    "connect": OF_TIMES,
    "call_tool": OF_REQUESTS | OF_TIMES,
    "read_resource": OF_REQUESTS | OF_TIMES,
    "get_prompt": OF_REQUESTS | OF_TIMES,
    "complete": OF_REQUESTS,
    "set_logging_level": {"mcp.MCPError", "RuntimeError", "ValueError"},
    "on_change": {"TypeError"},
    **{f"list_{kind}": {"ValueError"} for kind in ("tools", "prompts", "resources", "resource_templates")},
    "substitute_template_variables": {"TypeError"},
    **{f"mcp_tools_to_{api}_format": {"ValueError"} for api in ("openai", "anthropic", "gemini")},
    "MCPServersConfig": {"pydantic.ValidationError"},
}
WITH_TIMEOUT = {"TimeoutError", "RuntimeError", *OF_TIMES}
"""What each method of the synchronous client that waits may raise, too."""


def public() -> Iterator[tuple[str, Any]]:
    """Every function, class and method that programs call, by its name."""
    for name in mcp_multi_server.__all__:
        yield name, getattr(mcp_multi_server, name)
    for client in CLIENTS:
        for name in dir(client):
            if not name.startswith("_") and not isinstance(inspect.getattr_static(client, name), property):
                yield f"{client.__name__}.{name}", getattr(client, name)


CALLABLES = dict(public())
MODELS = [ServerCapabilities, ServerRequestContext, MCPServersConfig]
"""Their parameters are their attributes. Those of `ServerConfig` are the keys of the config, explained with them."""


def section(documented: Any, title: str) -> str:
    """A section of a docstring: what stands indented below its title; "" if it has none."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", (inspect.getdoc(documented) or "") + "\n", re.MULTILINE)
    return found[1] if found else ""


def explained(text: str) -> set[str]:
    """The names that a section explains, several of them before one colon included."""
    return {name for line in re.findall(r"^    ([\w*][\w.*, ]*): \S", text, re.MULTILINE) for name in line.split(", ")}


@pytest.mark.parametrize("name", [name for name, found in CALLABLES.items() if found not in (*MODELS, ServerConfig)])
def test_every_parameter_is_explained(name: str) -> None:
    taken = inspect.signature(CALLABLES[name]).parameters.values()
    wanted = {("**" if one.kind is one.VAR_KEYWORD else "") + one.name for one in taken if one.name != "self"}
    assert explained(section(CALLABLES[name], "Args")) == wanted


@pytest.mark.parametrize("name", [name for name, found in CALLABLES.items() if not inspect.isclass(found)])
def test_every_result_is_explained(name: str) -> None:
    returned = str(inspect.signature(CALLABLES[name]).return_annotation)
    assert bool(section(CALLABLES[name], "Returns")) == (returned not in ("None", "Self"))


@pytest.mark.parametrize("name", CALLABLES)
def test_every_error_is_named(name: str) -> None:
    short, found = name.rpartition(".")[2], CALLABLES[name]
    expected = RAISED.get(short, set())
    if name.startswith("SyncMultiServerClient.") and "timeout" in inspect.signature(found).parameters:
        expected |= WITH_TIMEOUT - ({"TimeoutError", "RuntimeError"} if short == "connect" else set())
    assert expected <= explained(section(found, "Raises"))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_attribute_of_a_model_is_explained(model: type[Any]) -> None:
    fields = {one.name for one in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else model.model_fields
    assert explained(section(model, "Attributes")) == set(fields)


@pytest.mark.parametrize("name", ["call_tool", "read_resource", "get_prompt", "complete", "set_logging_level"])
def test_both_clients_say_the_same_of_what_they_share(name: str) -> None:
    """What differs is where a callback runs, who waits, and `timeout`."""
    asynchronous, synchronous = (section(getattr(client, name), "Returns") for client in CLIENTS)
    assert asynchronous == synchronous
    assert (
        get_type_hints(getattr(MultiServerClient, name))["return"]
        == get_type_hints(getattr(SyncMultiServerClient, name))["return"]
    )
