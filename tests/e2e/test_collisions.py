"""One name claimed by several servers: who owns it, and that nothing but the config's order decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.polling import eventually

from .entries import Entry, fixture
from .harness import Daemon
from .wire import Message, Wire

ALL = ("first", "second", "third")


def servers(*names: str, **settings: Any) -> dict[str, Entry]:
    """The first in the file is the last to connect."""
    delays = {name: 0.5 - 0.2 * position for position, name in enumerate(names)}
    return {name: fixture(name, "--delay", round(delay, 1), **settings) for name, delay in delays.items()}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(servers(*ALL, grace=0.3, hold=0.2)) as running:
        yield running.await_up()


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    daemon.await_up()
    with daemon.legacy() as made:
        yield made


def owner(wire: Wire, name: str = "echo") -> str:
    found: str = wire.call(name)["structuredContent"]["server"]
    return found


def tools(wire: Wire) -> list[str]:
    return [tool["name"] for tool in wire.result("tools/list")["tools"]]


def test_the_first_in_the_file_owns_a_name_though_it_connected_last(daemon: Daemon, wire: Wire) -> None:
    since = {server["name"]: server["since"] for server in daemon.status()["servers"]}
    assert since["first"] > since["second"] > since["third"]
    assert owner(wire) == "first"


def test_later_claimants_are_listed_under_their_qualified_names(wire: Wire) -> None:
    listed = tools(wire)
    assert [name for name in listed if name.endswith("echo")] == ["echo", "second__echo", "third__echo"]
    assert len(listed) == len(set(listed)) == 3 * 20


def test_every_claimant_is_callable_by_its_qualified_name(wire: Wire) -> None:
    for name in ALL:
        assert owner(wire, f"{name}__echo") == name


def test_prompts_collide_as_tools_do(wire: Wire) -> None:
    listed = [prompt["name"] for prompt in wire.result("prompts/list")["prompts"]]
    assert listed == ["greet", "second__greet", "third__greet"]
    for name, server in (("greet", "first"), ("second__greet", "second"), ("first__greet", "first")):
        messages = wire.result("prompts/get", {"name": name, "arguments": {"language": "x"}})["messages"]
        assert messages[0]["content"]["text"] == f"Greet in x, says {server}"


def test_uris_do_not_collide_because_each_carries_its_server(wire: Wire) -> None:
    listed = [one["uri"] for one in wire.result("resources/list")["resources"]]
    assert listed == [f"{name}:note://{which}" for name in ALL for which in ("one", "blob")]
    for name in ALL:
        content = wire.result("resources/read", {"uri": f"{name}:note://one"})["contents"][0]
        assert (content["uri"], content["text"]) == (f"{name}:note://one", f"note://one of {name}")


def test_a_bare_uri_that_several_list_is_an_error_that_names_them(wire: Wire) -> None:
    error = wire.error("resources/read", {"uri": "note://one"})
    for name in ALL:
        assert f"{name}:note://one" in str(error)


def test_a_bare_uri_that_one_template_matches_goes_there(wire: Wire) -> None:
    content = wire.result("resources/read", {"uri": "note://second/any"})["contents"][0]
    assert (content["uri"], content["text"]) == ("note://second/any", "note://second/any of second")


def test_links_in_results_lead_back_to_the_server_that_wrote_them(wire: Wire) -> None:
    for name in ALL:
        for part in wire.call(f"{name}__link")["content"]:
            uri = part["uri"] if part["type"] == "resource_link" else part["resource"]["uri"]
            if uri == "note://hidden":  # no resource that its server lists: a link like any other
                continue
            text = wire.result("resources/read", {"uri": uri})["contents"][0]["text"]
            assert text.endswith(f" of {name}")


def test_links_in_prompts_lead_back_as_well(wire: Wire) -> None:
    messages = wire.result("prompts/get", {"name": "third__greet", "arguments": {"language": "x"}})["messages"]
    uri = messages[1]["content"]["uri"]
    assert wire.result("resources/read", {"uri": uri})["contents"][0]["text"].endswith(" of third")


def test_a_collision_is_in_the_status_and_in_one_line_of_the_log(daemon: Daemon) -> None:
    found = {(one["kind"], one["name"]): one for one in daemon.status()["collisions"]}
    echo = found["tool", "echo"]
    assert (echo["owner"], echo["shadowed"]) == ("first", ["second", "third"])
    assert ("prompt", "greet") in found


def test_a_name_passes_on_when_its_owner_is_withdrawn_and_returns_with_it(daemon: Daemon, wire: Wire) -> None:
    """`exit` again and again keeps the owner away for longer than its grace."""

    def kick() -> str:
        wire.request("tools/call", {"name": "first__exit", "arguments": {}})
        return owner_now(wire)

    assert eventually(lambda: kick() == "second", within=30, what="the next claimant in config order")
    eventually(lambda: owner_now(wire) == "first", within=30, what="the return of the owner")
    assert tools(wire)[0] == "echo"


def owner_now(wire: Wire) -> str:
    response = wire.request("tools/call", {"name": "echo", "arguments": {}})
    found: str = response.get("result", {}).get("structuredContent", {}).get("server", "")
    return found


def test_while_its_owner_is_away_a_name_is_not_given_to_another() -> None:
    """Within the grace a call waits for its owner and then fails; it never lands at somebody else's tool."""
    first = fixture("first", "--delay", 1.5, hold=0.3, stopTimeout=0.3)
    with Daemon({"first": first, "second": fixture("second")}) as daemon, daemon.await_up().legacy() as wire:
        wire.error("tools/call", {"name": "first__exit", "arguments": {}})
        error: Message = wire.error("tools/call", {"name": "echo", "arguments": {}})
        assert error["code"] == -32603
        assert error["data"]["server"] == "first"
        assert error["data"]["state"] in ("backoff", "connecting")
        shown = {tool["name"]: tool for tool in wire.result("tools/list")["tools"]}
        assert shown["echo"]["_meta"]["mcp-multi-server/state"] in ("backoff", "connecting")
        assert "mcp-multi-server/state" not in shown["second__echo"].get("_meta", {})
        assert owner(wire, "second__echo") == "second"


def test_the_last_wins_where_the_config_says_so(daemon: Daemon) -> None:
    with Daemon(servers(*ALL), settings={"collisions": "last"}) as other, other.await_up().legacy() as wire:
        assert owner(wire) == "third"
        listed = [name for name in tools(wire) if name.endswith("echo")]
        assert sorted(listed) == ["echo", "first__echo", "second__echo"]


def test_a_server_that_is_added_before_others_takes_the_name_and_says_so(daemon: Daemon) -> None:
    with Daemon({"second": fixture("second")}) as other, other.await_up().legacy() as wire:
        assert owner(wire) == "second"
        other.rewrite({"second": fixture("second"), "third": fixture("third")})
        other.await_up("third")
        assert owner(wire) == "second"
        other.rewrite({"first": fixture("first"), "second": fixture("second"), "third": fixture("third")})
        other.await_up("first")
        assert owner(wire) == "first"
        wire.notification("notifications/tools/list_changed")
