"""Calls to a server that is not there: at most once, held for a while, then an error that says when to come back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.polling import eventually

from .entries import fixture
from .harness import UP, Daemon
from .wire import Message, Wire

AWAY = 1.2
"""Seconds that a start of the slow servers takes."""


def calls(journal: Path) -> list[str]:
    """The tags of the calls that reached the server."""
    if not journal.exists():
        return []
    return [line.split()[-1] for line in journal.read_text().splitlines() if line.startswith("call ")]


def call(name: str, tag: str) -> Message:
    return {"name": name, "arguments": {"tag": tag}}


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("how", ["exit", "crash_mid_call"])
def test_a_call_that_loses_its_server_is_never_sent_again(how: str, era: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Daemon({"one": fixture("one", "--era", era, "--journal", journal, hold=60)}) as daemon:
        with daemon.await_up().legacy() as wire:
            begun = time.monotonic()
            error = wire.error("tools/call", call(how, "lost"))
            assert time.monotonic() - begun < 10, "it was held"
            assert error["code"] == -32603
            assert error["data"]["server"] == "one"
            assert error["data"]["reason"] in ("exit", "signal", "closed")
            assert "one" in error["message"]
            daemon.await_up()
            assert wire.call("echo", {"tag": "after"})
        assert calls(journal) == ["lost", "after"]


def test_many_calls_in_flight_all_end_when_the_server_dies(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Daemon({"one": fixture("one", "--journal", journal)}) as daemon, daemon.await_up().legacy() as wire:
        slow = {"name": "slow", "arguments": {"seconds": 60, "tag": "slow"}}
        ids = [wire.post("tools/call", slow) for _ in range(100)]
        ids.append(wire.post("tools/call", call("exit", "end")))
        ids += [wire.post("tools/call", call("echo", "after")) for _ in range(100)]
        answers = [wire.answer(id) for id in ids]
        failed = [answer for answer in answers if "error" in answer]
        assert all(answer["error"]["data"]["server"] == "one" for answer in failed)
        assert len(failed) >= 101
        sent = calls(journal)
        assert sent.count("slow") == 100
        assert sent.count("end") == 1
        assert sent.count("after") == len(answers) - len(failed)


def test_a_call_at_any_moment_of_a_loss_is_answered() -> None:
    """A call every 0.15 ms, from before the server's end to well behind it: there is no instant that loses one."""
    names = [f"one-{number}" for number in range(3)]
    with Daemon({name: fixture(name, hold=5) for name in names}) as daemon, daemon.await_up().legacy() as wire:
        for name in names:
            ids = [wire.post("tools/call", call(f"{name}__exit", "x"))]
            for _ in range(200):
                ids.append(wire.post("tools/call", call(f"{name}__echo", "x")))
                _spin(0.00015)
            lost = _unanswered(wire, ids)
            assert not lost, f"never answered: {len(lost)} of {len(ids)} calls, from number {ids.index(lost[0])} on"


def _spin(seconds: float) -> None:
    """Waits shorter than what a sleep can be trusted with."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _unanswered(wire: Wire, ids: list[int | str]) -> list[int | str]:
    """Which of these requests have no answer after ten seconds."""
    until, lost = time.monotonic() + 10, []
    for id in ids:
        try:
            wire.answer(id, within=max(0.01, until - time.monotonic()))
        except TimeoutError:
            lost.append(id)
    return lost


def test_a_call_is_held_until_its_server_is_back(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    entry = fixture("one", "--delay", AWAY, "--journal", journal, hold=10)
    with Daemon({"one": entry}) as daemon, daemon.await_up().legacy() as wire:
        wire.error("tools/call", call("exit", "first"))
        eventually(lambda: daemon.server("one")["state"] != "ready", what="a server that is away")
        assert wire.call("echo", {"tag": "held"}, within=10)["structuredContent"]["server"] == "one"
        assert calls(journal) == ["first", "held"]


def test_a_held_call_that_is_given_up_never_reaches_the_server(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    entry = fixture("one", "--delay", AWAY, "--journal", journal, hold=0.3)
    with Daemon({"one": entry}) as daemon, daemon.await_up().legacy() as wire:
        wire.error("tools/call", call("exit", "first"))
        eventually(lambda: daemon.server("one")["state"] != "ready", what="a server that is away")
        begun = time.monotonic()
        error = wire.error("tools/call", call("echo", "given up"))
        assert time.monotonic() - begun > 0.2
        assert daemon.server("one")["state"] not in UP
        assert error["code"] == -32603
        assert set(error["data"]) == {"server", "state", "reason", "retryAt"}
        wire.post("tools/call", call("echo", "cancelled"), id="C")
        wire.notify("notifications/cancelled", {"requestId": "C"})
        with daemon.legacy() as leaver:
            leaver.post("tools/call", call("echo", "gone"))
        daemon.await_up()
        assert wire.call("echo", {"tag": "last"})
        assert calls(journal) == ["first", "last"]


def test_hold_never_outlasts_the_timeout_of_the_call() -> None:
    entry = fixture("one", "--delay", 5, hold=30, timeout=0.5, stopTimeout=0.3)
    with Daemon({"one": entry}) as daemon, daemon.legacy() as wire:
        begun = time.monotonic()
        error = wire.error("tools/call", {"name": "one__echo", "arguments": {}})
        assert error["data"]["server"] == "one"
        assert time.monotonic() - begun < 5, "it outlasted the start of the server"


def test_a_server_that_falls_is_started_again_by_itself() -> None:
    with Daemon({"one": fixture("one")}) as daemon, daemon.await_up().legacy() as wire:
        before = daemon.server("one")
        wire.error("tools/call", call("exit", "x"))
        eventually(lambda: daemon.server("one")["restarts"] == before["restarts"] + 1, what="a restart")
        after = daemon.await_up().server("one")
        assert after["pid"] != before["pid"]
        assert after["consecutiveFailures"] == 1


def test_names_outlive_a_blip_and_go_with_one_notice_after_the_grace() -> None:
    entry = fixture("one", "--delay", AWAY + 0.3, grace=0.5, hold=0.1)
    servers = {"one": entry, "two": fixture("two", "--offers", "tools")}
    with Daemon(servers) as daemon, daemon.await_up().legacy() as wire:
        wire.drain(quiet=0.3)
        wire.error("tools/call", call("one__exit", "x"))
        eventually(lambda: daemon.server("one")["state"] == "connecting", what="a server that is away")
        assert any(tool["name"] == "echo" for tool in wire.result("tools/list")["tools"])
        told = wire.notification("notifications/tools/list_changed")
        names = [tool["name"] for tool in wire.result("tools/list")["tools"]]
        assert len(names) == len(set(names)) == 20
        assert "two__echo" not in names
        more = {message["method"] for message in [told, *wire.drain(quiet=0.5)]}
        assert more <= {f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")}
        daemon.await_up()
        assert wire.notification("notifications/tools/list_changed")
        assert len(wire.result("tools/list")["tools"]) == 2 * 20


def test_a_call_to_a_parked_server_fails_fast_with_the_reason() -> None:
    missing = fixture("one") | {"command": "/no/such/program"}
    with Daemon({"one": missing}, settings={"hold": 60}) as daemon, daemon.legacy() as wire:
        daemon.await_states(one="parked")
        begun = time.monotonic()
        error = wire.error("tools/call", {"name": "one__echo", "arguments": {}})
        assert time.monotonic() - begun < 10, "it was held"
        assert (error["data"]["server"], error["data"]["reason"]) == ("one", "spawn")
        assert error["data"]["retryAt"]


def test_a_server_that_always_falls_neither_spins_nor_stops_trying(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    entry = fixture("one", "--era", "dies-on-probe", "--journal", journal, protocol="modern")
    with Daemon({"one": entry}) as daemon:
        eventually(lambda: _starts(journal) >= 3, what="a third start")
        row = daemon.server("one")
        assert row["state"] in ("backoff", "connecting")
        assert row["consecutiveFailures"] >= 2
        assert _starts(journal) < 20


def _starts(journal: Path) -> int:
    return journal.read_text().count("start ") if journal.exists() else 0


def test_an_era_that_was_found_out_is_kept_over_a_restart(tmp_path: Path) -> None:
    """A server that dies when it is probed dies once, not at every start."""
    journal = tmp_path / "journal"
    with Daemon({"one": fixture("one", "--era", "dies-on-probe", "--journal", journal)}) as daemon:
        daemon.await_up()
        assert _starts(journal) == 2
        daemon.control("restart", {"server": "one"})
        assert _starts(journal) == 3


def test_a_server_that_was_slow_to_say_its_era_falls_like_any_other(tmp_path: Path) -> None:
    """One that ignores the probe was asked in two ways at once; its later end is no answer to either."""
    journal = tmp_path / "journal"
    entry = fixture("one", "--era", "silent-on-probe", "--journal", journal)
    with Daemon({"one": entry}) as daemon, daemon.await_up().legacy() as wire:
        wire.error("tools/call", call("exit", "x"))
        eventually(lambda: daemon.server("one")["restarts"] == 1, what="a restart")
        after = daemon.await_up().server("one")
        assert (after["consecutiveFailures"], after["protocolVersion"]) == (1, "2025-11-25")
        assert _starts(journal) == 2


def test_a_wire_that_closes_at_once_after_its_request_cancels_nothing_of_others(tmp_path: Path) -> None:
    with Daemon({"one": fixture("one")}) as daemon:
        daemon.await_up()
        with daemon.legacy() as staying:
            kept = staying.post("tools/call", {"name": "slow", "arguments": {"seconds": 0.5, "tag": "kept"}})
            for _ in range(20):
                leaver = Wire(daemon.socket, modern=True)
                leaver.post("tools/call", {"name": "slow", "arguments": {"seconds": 30, "tag": "left"}})
                leaver.close()
            assert staying.answer(kept)["result"]["structuredContent"]["tag"] == "kept"
            eventually(
                lambda: staying.call("cancelled_ids")["structuredContent"]["running"] == [], what="cancelled calls"
            )
