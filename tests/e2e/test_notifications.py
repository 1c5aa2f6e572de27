"""Who is told what: changed lists, progress, cancellations and updates reach the right client in its own era."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.polling import eventually

from .entries import fixture
from .harness import Daemon
from .wire import Message, Wire, subscription

QUIET = 0.8
"""Seconds of silence after which nothing more is expected: debouncing takes 0.25 s at most twice."""
KINDS = ("tools", "prompts", "resources")
SERVERS = ("old", "new")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    servers = {"old": fixture("old", "--era", "legacy"), "new": fixture("new", "--era", "modern")}
    with Daemon(servers, settings={"naming": "qualified"}) as running:
        running.await_up()
        with running.legacy() as wire:
            wire.drain(quiet=QUIET)
        yield running


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Wire]:
    """A client that is not asked about; it makes things happen."""
    with daemon.wire(modern=True) as wire:
        yield wire


def methods(messages: list[Message]) -> Counter[str]:
    return Counter(message["method"] for message in messages)


def names(wire: Wire, kind: str) -> set[str]:
    return {item.get("uri") or item["name"] for item in wire.result(f"{kind}/list")[kind]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_changed_list_is_told_once_to_each_client_in_its_way(
    server: str, kind: str, daemon: Daemon, other: Wire
) -> None:
    with daemon.legacy() as old, daemon.modern() as new, daemon.modern() as deaf:
        listening = new.listen(toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
        deaf.result("tools/list")
        before = names(old, kind)
        other.call(f"{server}__grow", {"kind": kind, "times": 5})
        method = f"notifications/{kind}/list_changed"
        old.notification(method)
        told = new.notification(method)
        assert subscription(told) == listening
        assert len(names(old, kind) - before) == 1
        assert names(new, kind) == names(old, kind)
        assert old.drain(quiet=QUIET) == []
        assert new.drain(quiet=0.05) == []
        assert deaf.drain(quiet=0.05) == []


def test_a_subscription_gets_what_it_asked_for_and_nothing_else(daemon: Daemon, other: Wire) -> None:
    with daemon.modern() as wire:
        tools, prompts = wire.listen(toolsListChanged=True), wire.listen(promptsListChanged=True)
        other.call("new__grow", {"kind": "prompts"})
        other.call("old__grow", {"kind": "tools"})
        seen = wire.drain(quiet=QUIET)
    found = {(message["method"], subscription(message)) for message in seen}
    assert found == {
        ("notifications/tools/list_changed", tools),
        ("notifications/prompts/list_changed", prompts),
    }


def test_the_acknowledgement_names_what_will_be_told(daemon: Daemon) -> None:
    with daemon.modern() as wire:
        wanted = {"toolsListChanged": True, "promptsListChanged": False, "x-unknown": True}
        id = wire.post("subscriptions/listen", {"notifications": wanted}, id="mine")
        first = wire.message()
        assert (first["method"], subscription(first)) == ("notifications/subscriptions/acknowledged", id)
        assert first["params"]["notifications"].get("toolsListChanged") is True
        assert not first["params"]["notifications"].get("promptsListChanged")
        assert "x-unknown" not in first["params"]["notifications"]


def test_a_cancelled_subscription_is_silent(daemon: Daemon, other: Wire) -> None:
    with daemon.modern() as wire:
        ended, kept = wire.listen(toolsListChanged=True), wire.listen(toolsListChanged=True)
        wire.notify("notifications/cancelled", {"requestId": ended})
        other.call("new__grow")
        assert subscription(wire.notification("notifications/tools/list_changed")) == kept
        assert wire.drain(quiet=QUIET) == []


def test_a_change_that_leaves_the_list_as_it_was_is_not_told(daemon: Daemon, other: Wire) -> None:
    with daemon.legacy() as wire:
        other.call("old__grow", {"by": 0, "times": 3})
        assert wire.drain(quiet=QUIET) == []


@pytest.mark.parametrize("server", SERVERS)
def test_equal_progress_tokens_of_two_clients_do_not_mix(server: str, daemon: Daemon) -> None:
    def slow(tag: str) -> Message:
        arguments = {"seconds": 0.3, "steps": 3, "tag": tag}
        return {"name": f"{server}__slow", "arguments": arguments, "_meta": {"progressToken": "same"}}

    with daemon.legacy() as one, daemon.modern() as two:
        first, second = one.post("tools/call", slow("one")), two.post("tools/call", slow("two"))
        for wire, id, tag in ((one, first, "one"), (two, second, "two")):
            assert wire.answer(id)["result"]["structuredContent"]["tag"] == tag
            seen = wire.drain(quiet=0.05)
            assert [message["params"]["progressToken"] for message in seen] == ["same"] * 3
            assert [message["params"]["progress"] for message in seen] == [1, 2, 3]


def test_progress_comes_before_the_result_and_in_order(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        arguments = {"seconds": 0.2, "steps": 40}
        wire.post("tools/call", {"name": "old__slow", "arguments": arguments, "_meta": {"progressToken": 0}}, id=9)
        messages = [wire.message() for _ in range(41)]
    assert [message["params"]["progress"] for message in messages[:-1]] == list(range(1, 41))
    assert messages[-1]["id"] == 9


def test_without_a_token_there_is_no_progress(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        wire.call("old__slow", {"seconds": 0.1, "steps": 3})
        assert wire.drain(quiet=0.05) == []


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("server", SERVERS)
def test_a_cancelled_call_is_cancelled_at_its_server_and_never_answered(
    server: str, modern: bool, daemon: Daemon, other: Wire
) -> None:
    tag = f"{server} by {'modern' if modern else 'legacy'}"

    def calls() -> Any:
        return other.call(f"{server}__cancelled_ids")["structuredContent"]

    with daemon.modern() if modern else daemon.legacy() as wire:
        arguments = {"seconds": 30, "steps": 0, "tag": tag}
        id = wire.post("tools/call", {"name": f"{server}__slow", "arguments": arguments}, id="cancel me")
        eventually(lambda: tag in calls()["running"], what="a running call")
        wire.notify("notifications/cancelled", {"requestId": id, "reason": "changed my mind"})
        found = eventually(lambda: [one for one in calls()["cancelled"] if one["tag"] == tag])
        assert [one["known"] for one in found] == [True]
        assert found[0]["reason"] == "changed my mind"
        assert wire.call(f"{server}__echo", within=5)
        with pytest.raises(TimeoutError):
            wire.answer(id, within=0.2)


def test_only_its_own_client_can_cancel_a_call(daemon: Daemon, other: Wire) -> None:
    with daemon.legacy() as wire, daemon.legacy() as stranger:
        arguments = {"seconds": 0.4, "steps": 0, "tag": "mine alone"}
        id = wire.post("tools/call", {"name": "old__slow", "arguments": arguments}, id=1)
        stranger.notify("notifications/cancelled", {"requestId": 1})
        assert wire.answer(id)["result"]["structuredContent"]["tag"] == "mine alone"


def test_a_cancelled_call_frees_its_id(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        for _ in range(3):
            wire.post("tools/call", {"name": "old__slow", "arguments": {"seconds": 30}}, id="again")
            wire.notify("notifications/cancelled", {"requestId": "again"})
        wire.post("tools/call", {"name": "old__pid"}, id="again")
        assert wire.answer("again")["result"]["content"]


def test_a_restart_and_a_blip_are_invisible_to_clients(daemon: Daemon) -> None:
    with daemon.legacy() as wire, daemon.modern() as listener:
        listener.listen(toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
        grown = names(wire, "tools")
        assert wire.call("new__pid")
        daemon.control("restart", {"server": "new"})
        wire.error("tools/call", {"name": "old__exit", "arguments": {"code": 1}})
        daemon.await_up()
        after = names(wire, "tools")
        assert after <= grown
        lost = {name for name in grown - after if "grown" not in name}
        assert not lost
        told = methods(wire.drain(quiet=QUIET))
        assert set(told) <= {"notifications/tools/list_changed", "notifications/prompts/list_changed"} | {
            "notifications/resources/list_changed"
        }
        wire.error("tools/call", {"name": "old__exit", "arguments": {"code": 1}})
        daemon.await_up()
        assert wire.drain(quiet=QUIET) == []
