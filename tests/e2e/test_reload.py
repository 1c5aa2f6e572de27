"""Rewriting the config while everything runs: what did not change is not touched, what is wrong changes nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.polling import eventually

from .entries import SERVERS, Entry, fixture, python
from .harness import Daemon
from .processes import is_alive, process
from .wire import Message, Wire


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    with Daemon(servers()) as made:
        yield made.await_up()


@pytest.fixture
def daemon(running: Daemon) -> Daemon:
    """The daemon of this module, back at the config that every test here begins with."""
    running.rewrite(servers())
    running.reload()
    eventually(lambda: set(pids(running)) == {"one", "two"}, what="the two servers of the beginning")
    return running.await_up()


def servers(**changes: Entry | None) -> dict[str, Entry]:
    """Two servers, with entries added, changed or (None) taken away."""
    both: dict[str, Entry | None] = {"one": fixture("one"), "two": fixture("two")}
    return {name: entry for name, entry in (both | changes).items() if entry is not None}


def pids(daemon: Daemon) -> dict[str, int]:
    return {server["name"]: server["pid"] for server in daemon.status()["servers"]}


def applied(daemon: Daemon, change: Callable[[], Any]) -> Message:
    """Make a change to the file and have the daemon look at it, unless it was faster; what came of it."""
    before = daemon.last_reload()["at"]
    change()
    daemon.reload()
    eventually(lambda: daemon.last_reload()["at"] != before, what="a reload")
    return daemon.last_reload()


def test_an_entry_that_is_added_starts_and_the_others_keep_their_processes(daemon: Daemon) -> None:
    before = pids(daemon)
    assert applied(daemon, lambda: daemon.rewrite(servers(three=fixture("three"))))["outcome"] == "applied"
    daemon.await_up("three")
    after = pids(daemon)
    assert {name: after[name] for name in before} == before
    with daemon.legacy() as wire:
        assert wire.call("three__echo")["structuredContent"]["server"] == "three"


def test_a_changed_command_replaces_the_process(daemon: Daemon) -> None:
    before = pids(daemon)
    daemon.rewrite(servers(two=fixture("two", "--version", "2")))
    with daemon.legacy() as wire:
        eventually(lambda: _version(wire) == "2", what="the new version")
    after = pids(daemon)
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]


def test_an_entry_that_is_removed_stops_with_its_names(daemon: Daemon) -> None:
    before = pids(daemon)
    gone = process(before["two"])
    with daemon.legacy() as wire:
        assert applied(daemon, lambda: daemon.rewrite(servers(two=None)))["outcome"] == "applied"
        wire.notification("notifications/tools/list_changed")
        assert not [tool for tool in wire.result("tools/list")["tools"] if tool["name"].startswith("two__")]
        assert wire.error("tools/call", {"name": "two__echo"})["code"] == -32602
    assert gone is not None
    eventually(lambda: not is_alive(gone), what="the end of the removed server")
    assert pids(daemon) == {"one": before["one"]}


def test_the_names_of_a_replaced_server_stay_listed_meanwhile(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        wire.drain(quiet=0.3)
        names, old = _names(wire), daemon.server("two")["pid"]
        daemon.rewrite(servers(two=fixture("two", "--version", "2", "--delay", 0.5)))

        def replaced() -> bool:
            assert _names(wire) == names
            now = daemon.server("two")
            return bool(now["pid"] != old and now["state"] == "ready")

        eventually(replaced, what="the new version")
        told = [message["method"] for message in wire.drain(quiet=0.3)]
        assert len(told) == len(set(told)), "its descriptions changed, which is told once"


def _names(wire: Wire) -> list[str]:
    return [tool["name"] for tool in wire.result("tools/list")["tools"]]


def test_a_server_that_is_slow_to_stop_delays_no_new_one(daemon: Daemon) -> None:
    slow = python(SERVERS / "bad_stdio.py", "ignore_sigterm", stopTimeout=60)
    daemon.rewrite(servers(slow=slow))
    eventually(lambda: pids(daemon).get("slow"), what="the process that will be slow to stop")
    old = process(pids(daemon)["slow"])
    assert old is not None
    daemon.rewrite(servers(three=fixture("three")))
    eventually(lambda: "three" in pids(daemon), what="the new entry")
    daemon.await_up("three")
    assert is_alive(old)
    os.kill(old.pid, signal.SIGKILL)  # its end is not ours to wait for


def _version(wire: Wire) -> str:
    found = wire.call("two__environment", within=10)["structuredContent"]["argv"]
    return found[found.index("--version") + 1] if "--version" in found else "1"


def test_stop_first_never_runs_two_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """For servers that hold a lock or a port; calls are held meanwhile."""
    journal = tmp_path / "journal"
    first = fixture("two", "--journal", journal, replace="stop-first")
    applied(daemon, lambda: daemon.rewrite(servers(two=first)))
    eventually(lambda: journal.exists() and len(journal.read_text().splitlines()) == 1, what="the first start")
    daemon.await_up()
    old = process(pids(daemon)["two"])
    second = fixture("two", "--journal", journal, "--version", "2", "--delay", 0.5, replace="stop-first")
    with daemon.legacy() as wire:
        daemon.rewrite(servers(two=second))
        eventually(lambda: len(_starts(journal)) == 2, what="the second start")
        assert old is not None
        assert not is_alive(old)
        assert wire.call("two__echo")["structuredContent"]["server"] == "two"


def test_a_replacement_under_load_fails_no_call(daemon: Daemon) -> None:
    """The old process answers what it was asked; the new one gets all that comes after it is ready."""
    versions: set[str] = set()
    failures: list[AssertionError] = []
    stop = threading.Event()

    def call_on() -> None:
        with daemon.legacy() as wire:
            while not stop.is_set():
                try:
                    versions.add(_version(wire))
                    wire.call("two__slow", {"seconds": 0.05})
                except AssertionError as failure:
                    failures.append(failure)

    callers = [threading.Thread(target=call_on) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        eventually(lambda: "1" in versions, what="the first version")
        for number in ("2", "3", "4"):
            daemon.rewrite(servers(two=fixture("two", "--version", number)))
            assert daemon.reload()["outcome"] in ("applied", "unchanged")
            eventually(partial(versions.__contains__, number), what=f"version {number}")
    finally:
        stop.set()
        for caller in callers:
            caller.join(20)
    assert failures == []


def test_a_replacement_that_does_not_start_leaves_the_old_process_serving(daemon: Daemon) -> None:
    before = pids(daemon)
    with daemon.legacy() as wire:
        daemon.rewrite(servers(two=fixture("two", "--mute", startTimeout=1)))
        found = daemon.reload()
        assert found["outcome"] == "partial"
        (problem,) = found["problems"]
        assert (problem["server"], problem["field"]) == ("two", "mcpServers.two")
        assert "not ready within 1 s; the old server goes on" in problem["message"]
        assert pids(daemon) == before
        assert wire.call("two__echo")["structuredContent"]["server"] == "two"
        eventually(lambda: daemon.last_reload()["outcome"] == "partial", what="the outcome in the status")
        daemon.rewrite(servers(two=fixture("two", "--version", "2")))
        assert daemon.reload()["outcome"] in ("applied", "unchanged")
        eventually(lambda: _version(wire) == "2", what="the version that works")


def test_an_edit_does_not_wait_for_a_replacement_that_never_gets_ready(daemon: Daemon) -> None:
    daemon.rewrite(servers(two=fixture("two", "--mute", startTimeout=60)))
    eventually(lambda: len(daemon.children()) == 3, what="the process that says nothing")
    daemon.rewrite(servers(three=fixture("three")))
    daemon.await_up("three")
    eventually(lambda: len(daemon.children()) == 3, what="the end of the process that says nothing")


def _starts(journal: Path) -> list[str]:
    return [line for line in journal.read_text().splitlines() if line.startswith("start ")]


@pytest.mark.parametrize(
    "change",
    [{"timeout": 7}, {"refreshInterval": 17}, {"hold": 1}, {"grace": 3}, {"stopTimeout": 2}, {"x-unknown": 1}],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_define_no_process_keep_it(change: dict[str, Any], daemon: Daemon) -> None:
    before = pids(daemon)
    applied(daemon, lambda: daemon.rewrite(servers(two=fixture("two", **change))))
    assert pids(daemon) == before


def test_a_new_timeout_holds_from_the_next_call_on(daemon: Daemon) -> None:
    applied(daemon, lambda: daemon.rewrite(servers(two=fixture("two", timeout=0.3))))
    with daemon.legacy() as wire:
        begun = time.monotonic()
        error = wire.error("tools/call", {"name": "two__slow", "arguments": {"seconds": 20}})
        assert error["data"]["server"] == "two"
        assert time.monotonic() - begun < 10


def test_filters_and_prefixes_change_the_lists_without_a_new_process(daemon: Daemon) -> None:
    before = pids(daemon)
    with daemon.legacy() as wire:
        entry = fixture("two", include=["e*"], exclude=["exit"], prefix="zwei")
        applied(daemon, lambda: daemon.rewrite(servers(two=entry)))
        wire.notification("notifications/tools/list_changed")
        listed = {tool["name"] for tool in wire.result("tools/list")["tools"]}
        assert {name for name in listed if "__" in name} == {"zwei__echo", "zwei__environment"}
        assert wire.call("zwei__echo")["structuredContent"]["server"] == "two"
        assert wire.error("tools/call", {"name": "zwei__pid"})["code"] == -32602
    assert pids(daemon) == before


BAD_FILES: dict[str, tuple[str, str]] = {
    "empty": ("", "empty"),
    "not JSON": ("{", "JSON"),
    "a comma too many": ('{"mcpServers": {"one": {"command": "true"},,}}', "not JSON"),
    "no object": ("[]", "object"),
    "no servers": ("{}", "mcpServers"),
    "servers as a list": ('{"mcpServers": []}', "mcpServers"),
    "two of one name": ('{"mcpServers": {"one": {"command": "true"}, "one": {"command": "false"}}}', "two servers"),
    "a bad daemon object": ('{"mcpServers": {}, "daemon": {"hold": "sesame"}}', "daemon.hold"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_changes_nothing_and_says_why(text: str, words: str, daemon: Daemon) -> None:
    before, loaded = pids(daemon), daemon.status()["config"]["loadedAt"]
    refusals = len(daemon.logged("config.rejected"))
    found = applied(daemon, lambda: daemon.write(text))
    assert found["outcome"] == "rejected"
    assert any(words in f"{problem['field']} {problem['message']}" for problem in found["problems"])
    daemon.await_logged("config.rejected", times=refusals + 1)
    assert daemon.status()["config"]["loadedAt"] == loaded
    assert pids(daemon) == before
    with daemon.legacy() as wire:
        assert wire.call("two__echo")["structuredContent"]["server"] == "two"
    assert applied(daemon, lambda: daemon.rewrite(servers()))["outcome"] in ("applied", "unchanged")
    assert pids(daemon) == before
    assert "sesame" not in daemon.log


def test_a_file_that_vanishes_changes_nothing(daemon: Daemon) -> None:
    before = pids(daemon)
    text = daemon.config.read_bytes()
    daemon.config.unlink()
    assert daemon.reload()["outcome"] == "rejected"
    assert pids(daemon) == before
    daemon.write(text)
    assert daemon.reload()["outcome"] in ("applied", "unchanged")


def test_an_entry_that_becomes_broken_goes_on_as_it_was(daemon: Daemon) -> None:
    before = pids(daemon)
    broken: Entry = {"command": 5, "env": {"TOKEN": "sesame"}}
    found = applied(daemon, lambda: daemon.rewrite(servers(two=broken, three=fixture("three"))))
    assert found["outcome"] == "partial"
    assert {(problem["server"], problem["field"]) for problem in found["problems"]} == {
        ("two", "mcpServers.two.command")
    }
    daemon.await_logged("config.partial")
    daemon.await_up("three")
    after = pids(daemon)
    assert {name: after[name] for name in before} == before
    with daemon.legacy() as wire:
        assert wire.call("two__echo")["structuredContent"]["server"] == "two"
    assert "sesame" not in daemon.log


def test_the_same_bytes_are_no_change(daemon: Daemon) -> None:
    before = daemon.status()
    daemon.rewrite(servers())
    answer = daemon.reload()
    assert (answer["outcome"], answer["generation"]) == ("unchanged", before["generation"])
    assert answer["plan"] == {"start": [], "stop": [], "replace": [], "update": [], "keep": ["one", "two"]}
    assert daemon.status()["generation"] == before["generation"]
    assert daemon.last_reload() == before["config"]["lastReload"]


def test_comments_and_commas_are_no_change_of_any_server(daemon: Daemon) -> None:
    before = pids(daemon)
    text = daemon.config.read_text()
    outcome = applied(daemon, lambda: daemon.write("{ // why\n" + text[1:].rstrip().removesuffix("}") + ", }"))
    assert (outcome["outcome"], outcome["problems"]) == ("applied", [])
    assert pids(daemon) == before


def test_a_file_of_variables_is_read_again_at_each_reload(daemon: Daemon) -> None:
    variables = daemon.config.with_name("one.env")
    variables.write_text("COLOUR=red\n")
    applied(daemon, lambda: daemon.rewrite(servers(one=fixture("one", envFile="one.env"))))
    before = pids(daemon)
    applied(daemon, lambda: variables.write_text("COLOUR=blue\n"))
    after = pids(daemon)
    assert after["one"] != before["one"]
    assert after["two"] == before["two"]
    with daemon.legacy() as client:
        assert client.call("one__environment")["structuredContent"]["env"]["COLOUR"] == "blue"
    outcome = applied(daemon, variables.unlink)
    assert [problem["field"] for problem in outcome["problems"]] == ["mcpServers.one.envFile"]
    assert pids(daemon) == after


def test_disabling_stops_a_server_and_enabling_starts_it(daemon: Daemon) -> None:
    applied(daemon, lambda: daemon.rewrite(servers(two=fixture("two", disabled=True))))
    daemon.await_states(two="disabled", one="up")
    assert daemon.server("two")["pid"] is None
    applied(daemon, lambda: daemon.rewrite(servers()))
    daemon.await_up()


def test_ten_edits_in_a_row_end_with_the_last(daemon: Daemon) -> None:
    for number in range(10):
        daemon.rewrite(servers(**{f"new_{number}": fixture(f"new_{number}")}))
    daemon.await_up("one", "two", "new_9")
    assert set(pids(daemon)) == {"one", "two", "new_9"}


def test_sighup_and_the_reload_method_read_the_file_too(daemon: Daemon) -> None:
    daemon.rewrite(servers(three=fixture("three")))
    found = daemon.reload()
    assert found["outcome"] in ("applied", "unchanged")
    assert set(found) >= {"outcome", "problems", "generation", "plan"}
    daemon.await_up("three")
    unchanged, restarts = len(daemon.logged("config.unchanged")), daemon.server("one")["restarts"]
    daemon.signal(signal.SIGHUP)
    daemon.await_logged("config.unchanged", times=unchanged + 1)
    daemon.rewrite(servers(four=fixture("four")))
    daemon.signal(signal.SIGHUP)
    daemon.await_up("four")
    assert set(pids(daemon)) == {"one", "two", "four"}
    assert daemon.server("one")["restarts"] == restarts


def test_a_plan_shows_and_changes_nothing(daemon: Daemon) -> None:
    before, generation = pids(daemon), daemon.status()["generation"]
    assert daemon.control("plan")["keep"] == ["one", "two"]
    wanted = servers(two=fixture("two", "--version", "2"), three=fixture("three"))
    entries = wanted | {"one": fixture("one", timeout=5)}
    plan = daemon.control("plan", {"config": {"mcpServers": entries}})
    assert (plan["start"], plan["replace"], plan["update"]) == (["three"], ["two"], ["one"])
    assert (plan["stop"], plan["problems"]) == ([], [])
    assert pids(daemon) == before
    plan = daemon.control("plan", {"config": {"mcpServers": {"one": fixture("one")}}})
    assert (plan["stop"], plan["keep"]) == (["two"], ["one"])
    plan = daemon.control("plan", {"config": {"mcpServers": servers(bad={"command": 5})}})
    assert [problem["field"] for problem in plan["problems"]] == ["mcpServers.bad.command"]
    refused = daemon.control("plan", {"config": {"mcpServers": []}})
    assert (refused["problems"][0]["field"], refused["keep"]) == ("mcpServers", [])
    assert daemon.status()["generation"] == generation


def test_restart_makes_a_new_process_of_one_server(daemon: Daemon) -> None:
    before = pids(daemon)
    found = daemon.control("restart", {"server": "two"})
    assert found == {"server": "two", "state": "ready", "reason": None}
    after = pids(daemon)
    assert after["one"] == before["one"]
    assert after["two"] != before["two"]
    with daemon.legacy() as wire:
        assert wire.call("two__pid")["content"][0]["text"] == str(after["two"])


def test_restart_wakes_a_parked_server(daemon: Daemon, tmp_path: Path) -> None:
    program = tmp_path / "later"
    entry = fixture("three")
    missing = entry | {"command": str(program)}
    daemon.rewrite(servers(three=missing))
    daemon.await_states(three="parked")
    program.symlink_to(entry["command"])
    found = daemon.control("restart", {"server": "three"})
    assert found["state"] == "ready", found


def test_logs_are_the_last_lines_of_stderr(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        for number in range(300):
            wire.call("two__say", {"line": f"line é {number}"})

    def last() -> list[str]:
        found: list[str] = daemon.control("logs", {"server": "two", "lines": 3})["lines"]
        return found

    eventually(lambda: last() and last()[-1] == "line é 299", what="the last line")
    assert len(last()) == 3
    assert len(daemon.control("logs", {"server": "two", "lines": 1000})["lines"]) == 200


def test_events_begin_with_the_present_state_and_go_on(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.post("daemon/events", {}, id="E")
        first = wire.notification("notifications/daemon/event")["params"]
        assert first["event"] == "status"
        assert {server["name"] for server in first["status"]["servers"]} == {"one", "two"}
        daemon.control("restart", {"server": "two"})
        while (params := wire.notification("notifications/daemon/event")["params"])["event"] != "server_replaced":
            assert params["event"] != "server", "nobody but the log need know of the servers that came and went"
        assert (params["server"]["name"], params["server"]["pid"]) == ("two", pids(daemon)["two"])
        os.kill(pids(daemon)["two"], signal.SIGKILL)
        seen: list[str] = []
        while seen[-1:] != ["ready"]:
            params = wire.notification("notifications/daemon/event")["params"]
            if params["event"] == "server" and params["server"]["name"] == "two":
                seen.append(params["server"]["state"])
        assert "connecting" in seen
        wire.notify("notifications/cancelled", {"requestId": "E"})
        wire.result("daemon/status")
        wire.drain(quiet=0.1)
        daemon.control("restart", {"server": "one"})
        assert wire.drain(quiet=0.3) == []


def test_status_tells_all_that_the_contract_names(daemon: Daemon) -> None:
    status = daemon.status()
    assert set(status) >= {"version", "pid", "startedAt", "generation", "config", "servers", "collisions", "clients"}
    assert status["pid"] == daemon.pid
    assert status["config"]["path"] == str(daemon.config)
    assert set(status["config"]["lastReload"]) >= {"outcome", "at", "problems"}
    row = daemon.server("one")
    columns = """name state since reason transport protocolVersion pid consecutiveFailures nextAttemptAt restarts
        inFlight tools resources resourceTemplates prompts refreshedAt stale"""
    assert set(row) >= set(columns.split())
    assert (row["state"], row["transport"], row["protocolVersion"]) == ("ready", "stdio", "2026-07-28")
    assert (row["tools"], row["resources"], row["resourceTemplates"], row["prompts"]) == (20, 2, 1, 1)


def test_secrets_appear_in_no_answer_and_no_log(daemon: Daemon) -> None:
    entry = fixture("two")
    entry["env"] = entry["env"] | {"TOKEN": "s3cret-value", "OTHER": "${env:NOWHERE:-s3cret-default}"}
    applied(daemon, lambda: daemon.rewrite(servers(two=entry)))
    daemon.await_up()
    bad = fixture("two", timeout="s3cret-timeout") | {"env": {"A": 5, "B": "s3cret-b"}}
    applied(daemon, lambda: daemon.rewrite(servers(two=bad)))
    shown = json.dumps([daemon.status(), daemon.control("plan", {}), daemon.reload()])
    assert "s3cret" not in shown
    assert "s3cret" not in daemon.log
