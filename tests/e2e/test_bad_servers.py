"""Servers that are wrong, each in its own way, beside a healthy one: one bad server is one bad server (invariant 7)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.faulty import AT_START, BEFORE, LISTS, LONG_NAME, MANY, TRIGGERS, TWICE
from tests.polling import eventually

from .entries import faulty, fixture
from .harness import UP, Daemon
from .processes import memory_kib, process
from .wire import Message, Wire

MODES = (*TRIGGERS, *BEFORE, TWICE, *AT_START, *LISTS)
CALL_TIMEOUT = 1.5
NEVER_UP = {
    "mute": "start_timeout",
    "exits-at-once": "exit",
    "exits-127": "exit",
    "tools-string": "protocol",
    "tools-missing": "protocol",
    "list-string": "protocol",
}
"""Modes with which a server cannot be used at all, and the reason that is given."""
COMES_UP = [mode for mode in MODES if mode not in NEVER_UP]
CURSORS = ("same-cursor", "new-cursor", "cursor-number")
"""Modes in which the list of tools ends where its cursor leads nowhere."""
HARMLESS = (*BEFORE, TWICE, "junk-first", "stderr-first", "many-tools", "long-name", "bad-names", "twins", *CURSORS)
"""Modes in which `trigger` is answered as if nothing were wrong."""
MAY_PASS = ("deep", "lone-surrogate", "nan", "both", "bottomless")
"""Answers that may be passed on or refused, as long as the client gets one message that it can read."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    settings: dict[str, Any] = {"timeout": CALL_TIMEOUT, "startTimeout": 4, "stopTimeout": 0.5, "hold": 0.5}
    servers = {"healthy": fixture("healthy")} | {mode: faulty(mode, **settings) for mode in MODES}
    with Daemon(servers, settings={"naming": "qualified"}) as running:
        yield running.await_up("healthy", *COMES_UP, within=40)


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    """A client that the healthy server goes on serving at once, whatever the others do meanwhile."""
    with daemon.legacy() as made:
        yield made
        begun = time.monotonic()
        assert made.call("healthy__echo")["structuredContent"]["server"] == "healthy"
        assert time.monotonic() - begun < CALL_TIMEOUT, "it waited for another"
    healthy = daemon.server("healthy")
    assert (healthy["state"], healthy["restarts"]) == ("ready", 0)


def trigger(mode: str) -> Message:
    return {"name": f"{mode}__trigger", "arguments": {}}


def assert_names_the_server(error: Message, mode: str) -> None:
    assert isinstance(error["code"], int)
    assert mode in error["message"]
    assert error["data"]["server"] == mode
    assert set(error["data"]) >= {"state", "reason", "retryAt"}


@pytest.mark.parametrize("mode", HARMLESS)
def test_what_comes_beside_an_answer_does_not_spoil_it(mode: str, wire: Wire) -> None:
    response = wire.request("tools/call", trigger(mode))
    assert response["result"]["content"][0]["text"] == "worked"
    assert wire.call(f"{mode}__work")["content"][0]["text"] == "worked"


@pytest.mark.parametrize("mode", [mode for mode in TRIGGERS if mode not in MAY_PASS])
def test_an_answer_that_is_none_becomes_an_error_that_names_the_server(mode: str, wire: Wire) -> None:
    begun = time.monotonic()
    assert_names_the_server(wire.error("tools/call", trigger(mode)), mode)
    assert time.monotonic() - begun < CALL_TIMEOUT + 5


@pytest.mark.parametrize("mode", MAY_PASS)
def test_an_odd_answer_reaches_the_client_as_a_readable_message(mode: str, wire: Wire) -> None:
    response = wire.request("tools/call", trigger(mode))
    assert ("result" in response) is not ("error" in response)
    if "error" in response and mode != "both":
        assert_names_the_server(response["error"], mode)


def test_deep_nesting_passes_as_it_is(wire: Wire) -> None:
    deep = wire.result("tools/call", trigger("deep"))["deep"]
    assert json.dumps(deep) == "[" * 200 + "]" * 200


def test_an_unreadable_answer_does_not_wait_for_the_deadline(wire: Wire) -> None:
    for mode in ("string-result", "null-result", "bad-utf8", "error-string"):
        begun = time.monotonic()
        wire.error("tools/call", trigger(mode))
        assert time.monotonic() - begun < CALL_TIMEOUT, mode


@pytest.mark.parametrize("mode", COMES_UP)
def test_after_its_fault_a_server_works_again(mode: str, daemon: Daemon, wire: Wire) -> None:
    """Some went on, some were restarted; `hang` is found by its probe, which takes longer than this suite has."""
    if mode in ("hang", "close-stdout", "flood", "long-line", "exit"):
        wire.request("tools/call", trigger(mode))
    if mode == "hang":
        daemon.control("restart", {"server": mode})

    def works() -> bool:
        response = wire.request("tools/call", {"name": f"{mode}__work", "arguments": {}})
        return "result" in response

    eventually(works, within=20, what=f"a working {mode}")


@pytest.mark.parametrize(("mode", "reason"), NEVER_UP.items())
def test_a_server_that_cannot_be_used_says_why(mode: str, reason: str, daemon: Daemon, wire: Wire) -> None:
    def failed() -> bool:
        row.update(daemon.server(mode))
        return row["reason"] is not None

    row: Message = {}
    eventually(failed, within=15, what=f"a failure of {mode}")
    assert row["reason"].partition(":")[0] in (reason, "flapping")
    assert row["state"] not in UP
    assert row["consecutiveFailures"] >= 1
    assert (row["tools"], row["resources"], row["prompts"]) == (0, 0, 0)


def test_a_command_that_never_ran_is_not_tried_again_soon(daemon: Daemon) -> None:
    """Exit 127 is the shell's word for "not found": permanent."""
    eventually(lambda: daemon.server("exits-127")["state"] == "parked", what="a parked server")


def test_a_server_with_thousands_of_tools_lists_all_of_them(wire: Wire) -> None:
    names = [tool["name"] for tool in wire.result("tools/list")["tools"]]
    assert sum(name.startswith("many-tools__") for name in names) == MANY
    assert len(names) == len(set(names))


def test_a_name_that_no_api_takes_is_callable_all_the_same(wire: Wire) -> None:
    assert wire.call(f"long-name__{LONG_NAME}")["content"][0]["text"] == "worked"


def test_tools_without_a_usable_name_are_left_out(wire: Wire) -> None:
    names = [tool["name"] for tool in wire.result("tools/list")["tools"]]
    assert [name for name in names if name.startswith("bad-names__")] == ["bad-names__work", "bad-names__trigger"]


def test_a_name_that_a_server_gives_twice_is_listed_once(wire: Wire) -> None:
    names = [tool["name"] for tool in wire.result("tools/list")["tools"]]
    assert [name for name in names if name.startswith("twins__")] == ["twins__work", "twins__trigger", "twins__twin"]


def test_a_hanging_server_does_not_delay_another_client(daemon: Daemon, wire: Wire) -> None:
    with daemon.legacy() as other:
        waiting = other.post("tools/call", trigger("no-answer"))
        slowest = 0.0
        for _ in range(100):
            begun = time.monotonic()
            wire.call("healthy__echo")
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < CALL_TIMEOUT, "one of them waited for the other client's call"
        assert_names_the_server(other.answer(waiting)["error"], "no-answer")


def test_a_call_that_is_given_up_is_cancelled_at_the_server(daemon: Daemon) -> None:
    """Only the healthy server keeps a record: its calls are given up by a short timeout of their own."""
    with Daemon({"hasty": fixture("hasty", timeout=0.3)}) as hasty, hasty.await_up().legacy() as wire:
        error = wire.error("tools/call", {"name": "slow", "arguments": {"seconds": 30, "steps": 0, "tag": "late"}})
        assert_names_the_server(error, "hasty")
        found = eventually(lambda: wire.call("cancelled_ids")["structuredContent"]["cancelled"])
        assert [one["tag"] for one in found] == ["late"]


def test_no_fault_makes_the_daemon_grow_or_leave_children(daemon: Daemon, wire: Wire) -> None:
    """A 20 MiB line is refused without being kept; whoever was replaced is gone."""
    before = memory_kib(daemon.pid)
    for _ in range(3):
        wire.request("tools/call", trigger("long-line"))
        daemon.control("restart", {"server": "long-line"})  # at once: what it would wait for grows with each loss
    assert memory_kib(daemon.pid) - before < 24 * 1024
    living = {server["pid"] for server in daemon.status()["servers"]} - {None}
    assert all(process(pid) is not None for pid in living)


def test_the_log_names_the_server_and_keeps_the_payload_out(daemon: Daemon) -> None:
    assert "Listening on port 8080" not in daemon.log
    assert "no json at all" not in daemon.log
    assert '"server":"junk-lines"' in daemon.log.replace(" ", "")


def test_stderr_explains_an_exit(daemon: Daemon, wire: Wire) -> None:
    daemon.await_up("exit")
    wire.request("tools/call", trigger("exit"))
    eventually(lambda: "out of ideas" in daemon.control("logs", {"server": "exit", "lines": 50})["lines"])
    assert "out of ideas" in daemon.log
