"""How names and URIs look to clients: bare, qualified, prefixed, filtered, and odd ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.fixture import TOOLS

from .entries import fixture
from .harness import Daemon
from .wire import Wire

COUNT = len(TOOLS)
SERVERS = {
    "plain": fixture("plain"),
    "with.dots and spaces": fixture("dotted"),
    "Ünïcode": fixture("unicode"),
    "short": fixture("short", prefix="s"),
    "few": fixture("few", include=["e*", "greet", "note://one"], exclude=["*t"]),
    "note": fixture("note"),
    "none": fixture("none", "--offers", ""),
    "tools-only": fixture("tools-only", "--offers", "tools"),
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(SERVERS, settings={"naming": "qualified"}) as running:
        yield running.await_up()


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    with daemon.legacy() as made:
        yield made


def tools(wire: Wire) -> set[str]:
    return {tool["name"] for tool in wire.result("tools/list")["tools"]}


def test_qualified_naming_lists_qualified_names_alone(wire: Wire) -> None:
    assert all("__" in name for name in tools(wire))
    assert wire.error("tools/call", {"name": "echo", "arguments": {}})["code"] == -32602


@pytest.mark.parametrize(
    ("prefix", "server"),
    [("plain", "plain"), ("with_dots_and_spaces", "dotted"), ("Unicode_00b24be8", "unicode"), ("s", "short")],
)
def test_a_prefix_holds_what_apis_accept(prefix: str, server: str, wire: Wire) -> None:
    assert {f"{prefix}__{tool}" for tool in TOOLS} <= tools(wire)
    assert wire.call(f"{prefix}__echo")["structuredContent"]["server"] == server


def test_a_prefix_replaces_the_servers_own_name(wire: Wire) -> None:
    assert not [name for name in tools(wire) if name.startswith("short__")]
    assert wire.error("tools/call", {"name": "short__echo", "arguments": {}})["code"] == -32602


def test_include_and_exclude_decide_what_is_offered(wire: Wire) -> None:
    """`e*` lets in echo, environment and exit; `*t` keeps out environment and exit, and the prompt greet."""
    assert {name for name in tools(wire) if name.startswith("few__")} == {"few__echo"}
    assert wire.error("tools/call", {"name": "few__exit", "arguments": {}})["code"] == -32602
    prompts = {prompt["name"] for prompt in wire.result("prompts/list")["prompts"]}
    assert "few__greet" not in prompts
    resources = {one["uri"] for one in wire.result("resources/list")["resources"]}
    assert {uri for uri in resources if uri.startswith("few:")} == {"few:note://one"}


def test_a_server_without_an_offer_is_up_and_lists_nothing(daemon: Daemon) -> None:
    row = daemon.server("none")
    assert (row["state"], row["tools"], row["prompts"], row["resources"]) == ("ready", 0, 0, 0)
    row = daemon.server("tools-only")
    assert (row["state"], row["tools"], row["prompts"], row["resources"]) == ("ready", COUNT, 0, 0)


def test_templates_carry_their_server_and_are_read_both_ways(wire: Wire) -> None:
    templates = {one["uriTemplate"] for one in wire.result("resources/templates/list")["resourceTemplates"]}
    assert "plain:note://plain/{path}" in templates
    for uri in ("plain:note://plain/x", "note://plain/x"):
        content = wire.result("resources/read", {"uri": uri})["contents"][0]
        assert (content["uri"], content["text"]) == (uri, "note://plain/x of plain")


def test_a_servers_name_may_be_a_scheme(wire: Wire) -> None:
    """`note:note://one` names the server; `note://one` does not, although it begins with that server's name."""
    assert wire.result("resources/read", {"uri": "note:note://one"})["contents"][0]["text"].endswith(" of note")
    assert "plain:note://one" in str(wire.error("resources/read", {"uri": "note://one"}))


def test_a_uri_with_a_servers_odd_name_works(wire: Wire) -> None:
    for name, server in (("with.dots and spaces", "dotted"), ("Ünïcode", "unicode")):
        content = wire.result("resources/read", {"uri": f"{name}:note://one"})["contents"][0]
        assert content["text"] == f"note://one of {server}"


def test_bare_naming_lists_bare_names_and_takes_qualified_ones() -> None:
    with Daemon({"one": fixture("one")}) as daemon, daemon.await_up().legacy() as wire:
        assert tools(wire) == set(TOOLS)
        assert wire.call("echo") == wire.call("one__echo")


def test_the_separator_can_be_another() -> None:
    settings = {"separator": ".", "naming": "qualified"}
    with Daemon({"one": fixture("one")}, settings=settings) as daemon, daemon.await_up().legacy() as wire:
        assert wire.call("one.echo")["structuredContent"]["server"] == "one"
        assert "one.echo" in tools(wire)
        assert wire.error("tools/call", {"name": "one__echo", "arguments": {}})["code"] == -32602
