"""What a fleet listed, as the models that programs get."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from mcp_multi_server.core.catalog.catalog import Catalog, Item, Kind, ListPage
from mcp_multi_server.library.capabilities import ServerCapabilities
from mcp_multi_server.library.listing import Listing

ITEMS: dict[Kind, list[dict[str, Any]]] = {
    Kind.TOOL: [
        {
            "name": "find",
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
            "annotations": {"title": "Find"},
            "icons": [{"src": "data:,", "sizes": ["any"]}],
            "_meta": {"serverName": "shop", "theirs": {"deep": [1]}},
        },
        {
            "name": "depot__find",
            "inputSchema": {"type": "object"},
            "_meta": {"serverName": "depot", "mcp-multi-server/name": "find", "mcp-multi-server/state": "backoff"},
        },
    ],
    Kind.PROMPT: [{"name": "greet", "arguments": [{"name": "who"}], "_meta": {"serverName": "shop"}}],
    Kind.RESOURCE: [{"name": "n", "uri": "shop:note://1", "_meta": {"serverName": "shop"}}],
    Kind.TEMPLATE: [{"name": "t", "uriTemplate": "shop:note://{id}", "_meta": {"serverName": "shop"}}],
}


def row(name: str, **more: object) -> dict[str, Any]:
    """A server's row in the status."""
    lists = {"tools": 1, "prompts": 0, "offers": ["tools"]}
    known = {"state": "ready", "reason": None, "prefix": f"{name}__", "refreshedAt": "then", "nextAttemptAt": None}
    return {"name": name, **lists, **known, **more}


def listing(items: dict[Kind, list[dict[str, Any]]] = ITEMS, *rows: dict[str, Any]) -> Listing:
    pages = {
        kind: [ListPage(tuple(Item(item.get(kind.key, "?"), json.dumps(item).encode()) for item in some))]
        for kind, some in items.items()
    }
    return Listing(Catalog.of(pages), {"servers": [*rows] or [row("shop"), row("depot")]})


def spoil(value: object) -> None:
    """Change everything that can be changed inside a value that a program got."""
    if isinstance(value, BaseModel):
        for name, inner in list(value):
            spoil(inner)
            setattr(value, name, None)
    elif isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value.clear()
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.clear()


READINGS: dict[str, Callable[[Listing], Any]] = {
    "tools": lambda it: it.tools(),
    "prompts": lambda it: it.prompts(),
    "resources": lambda it: it.resources(True),
    "resources with own URIs": lambda it: it.resources(False),
    "templates": lambda it: it.templates(True),
    "templates with own URIs": lambda it: it.templates(False),
    "capabilities": lambda it: it.capabilities(),
    "servers of tools": lambda it: it.servers_of(Kind.TOOL),
    "servers of prompts": lambda it: it.servers_of(Kind.PROMPT),
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS.keys())
def test_whatever_a_program_does_to_what_it_got_everything_reads_as_before(read: Callable[[Listing], Any]) -> None:
    listed = listing()
    before = {name: repr(reading(listed)) for name, reading in READINGS.items()}
    spoil(read(listed))
    assert {name: repr(reading(listed)) for name, reading in READINGS.items()} == before
    assert listed.refusal(Kind.TOOL, "depot", "find") is None


def offered(**more: object) -> ServerCapabilities | None:
    return listing({}, row("shop", tools=0, **more)).capabilities().get("shop")


def test_a_list_is_empty_where_a_server_supports_it_and_missing_where_it_does_not() -> None:
    found = offered(offers=["tools", "resources"])
    assert found is not None
    assert (found.tools is not None, found.prompts) == (True, None)
    assert found.resources is not None
    assert found.resource_templates is not None
    assert [*found.resources.resources, *found.resource_templates.resource_templates] == []


@pytest.mark.parametrize("state", ["connecting", "backoff", "parked", "disabled"])
def test_a_server_whose_lists_were_never_read_has_no_capabilities(state: str) -> None:
    assert offered(state=state, refreshedAt=None, offers=[]) is None


def test_a_server_that_is_away_keeps_the_capabilities_that_it_had() -> None:
    assert offered(state="backoff", offers=["prompts"]) is not None


def test_capabilities_are_in_the_order_of_the_config_with_the_servers_own_words() -> None:
    found = listing(ITEMS, row("depot"), row("none", refreshedAt=None), row("shop")).capabilities()
    assert list(found) == ["depot", "shop"]
    assert found["depot"].tools is not None
    assert [(tool.name, tool.meta) for tool in found["depot"].tools.tools] == [("find", None)]
    assert found["shop"].tools is not None
    assert found["shop"].tools.tools[0].meta == {"theirs": {"deep": [1]}}
    assert found["shop"].resources is not None
    assert found["shop"].resources.resources[0].uri == "note://1"


def test_a_server_with_lists_and_no_row_is_there_too() -> None:
    assert list(listing(ITEMS, row("depot")).capabilities()) == ["depot", "shop"]


def test_a_malformed_item_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wrong = {"name": "wrong", "inputSchema": 7, "_meta": {"serverName": "shop"}}
    listed = listing({Kind.TOOL: [wrong, ITEMS[Kind.TOOL][0]]})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [tool.name for tool in listed.tools()] == ["find"]
    assert [record.message for record in caplog.records] == [
        "a Tool is left out of the lists, as it is malformed: inputSchema"
    ]


def test_what_a_server_writes_in_place_of_our_marks_keeps_nobody_from_being_called() -> None:
    odd = {
        "name": "odd",
        "inputSchema": {"type": "object"},
        "_meta": {"serverName": "shop", "mcp-multi-server/name": 7},
    }
    listed = listing({Kind.TOOL: [odd]})
    assert listed.refusal(Kind.TOOL, "shop", "odd") is None
    assert listed.servers_of(Kind.TOOL) == {"odd": "shop"}
