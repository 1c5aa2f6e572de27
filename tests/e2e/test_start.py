"""Starting a fleet: each server is published when it is ready, and none waits for one that hangs or is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.polling import eventually

from .entries import Entry, fixture
from .harness import Daemon
from .pipe import Pipe
from .processes import is_alive, process
from .wire import Message, Wire

COUNT = 18
DELAY = 0.5
SLOW = [f"slow-{number}" for number in range(COUNT - 1)]


def fleet() -> dict[str, Entry]:
    """A mute server, one that does not exist, seventeen that take half a second, and one that is there at once."""
    servers = {"mute": fixture("mute", "--mute", startTimeout=60, stopTimeout=0.5)}
    servers["missing"] = fixture("missing") | {"command": "/no/such/program"}
    servers |= {name: fixture(name, "--delay", DELAY) for name in SLOW[:3]}
    servers["fast"] = fixture("fast", "--era", "modern")
    return servers | {name: fixture(name, "--delay", DELAY) for name in SLOW[3:]}


def seconds_bare() -> float:
    """How long the same eighteen take with nothing behind them: started at once, each asked once."""
    entries = [entry for name, entry in fleet().items() if name not in ("mute", "missing")]
    begun = time.monotonic()
    with ExitStack() as stack:
        pipes = [stack.enter_context(Pipe(entry)) for entry in entries]
        for pipe in pipes:
            pipe.ask("server/discover")
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Daemon, float, list[Message]]]:
    """A daemon, the seconds from its start to all eighteen being up, and the events on the way."""
    with Daemon(fleet(), settings={"naming": "qualified", "hold": 10}) as daemon:
        begun = time.monotonic()
        with daemon.wire() as wire:
            wire.post("daemon/events", {}, id="E")
            seen = list(up_events(wire, COUNT))
        yield daemon, time.monotonic() - begun, seen


def up_events(wire: Wire, count: int) -> Iterator[Message]:
    """Every event until so many servers are ready."""
    ready: set[str] = set()
    while len(ready) < count:
        params = wire.notification("notifications/daemon/event", within=30)["params"]
        ready |= set(became_ready(params))
        yield params


def became_ready(params: Message) -> list[str]:
    """The servers that an event shows as ready."""
    rows = params["status"]["servers"] if params["event"] == "status" else [params.get("server", {})]
    return [row["name"] for row in rows if isinstance(row, dict) and row.get("state") == "ready"]


def test_eighteen_are_callable_in_about_the_time_they_take_alone(started: tuple[Daemon, float, Any]) -> None:
    daemon, seconds, _ = started
    bare = seconds_bare()
    one_by_one = len(SLOW) * DELAY
    assert seconds < max(4 * bare, one_by_one / 2), f"{seconds:.2f} s, bare {bare:.2f} s"
    with daemon.legacy() as wire:
        for name in ("fast", *SLOW):
            assert wire.call(f"{name}__echo")["structuredContent"]["server"] == name


def test_the_first_is_ready_before_any_slow_one(started: tuple[Daemon, float, list[Message]]) -> None:
    """`fast` stands behind five others in the file, one of which never answers."""
    _, _, events = started
    order = list(dict.fromkeys(name for params in events for name in became_ready(params)))
    assert order[0] == "fast"
    assert set(order) == {"fast", *SLOW}


def test_a_call_that_comes_before_its_server_is_ready_waits_for_it() -> None:
    servers = {"late": fixture("late", "--delay", 1), "early": fixture("early")}
    with Daemon(servers) as daemon, daemon.legacy() as wire:
        waiting = wire.post("tools/call", {"name": "late__echo", "arguments": {}})
        assert wire.call("early__echo")["structuredContent"]["server"] == "early"
        assert wire.answer(waiting)["result"]["structuredContent"]["server"] == "late"


def test_the_mute_and_the_missing_say_what_they_are(started: tuple[Daemon, float, Any]) -> None:
    daemon = started[0]
    assert daemon.server("mute")["state"] == "connecting"
    missing = daemon.server("missing")
    assert (missing["state"], missing["reason"].partition(":")[0]) == ("parked", "spawn")
    with daemon.legacy() as wire:
        error = wire.error("tools/call", {"name": "missing__echo", "arguments": {}})
        assert error["data"]["server"] == "missing"
        assert "missing" in error["message"]


def test_a_mute_server_does_not_delay_the_stop() -> None:
    """All servers are stopped at once; each that does not end by itself costs its own `stopTimeout` and no more."""
    mutes = {f"mute-{number}": fixture("mute", "--mute", stopTimeout=2) for number in range(4)}
    with Daemon(mutes | {"one": fixture("one")}) as daemon:
        daemon.await_up("one")
        eventually(lambda: all(one["pid"] for one in daemon.status()["servers"]), what="five processes")
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 4 * 2, "they were stopped one after the other"
        daemon.start()


def test_the_daemon_answers_before_any_server_does() -> None:
    slow = {f"slow-{number}": fixture("slow", "--delay", 5, stopTimeout=0.3) for number in range(3)}
    with Daemon(slow, settings={"firstList": 0}) as daemon:
        assert {server["state"] for server in daemon.status()["servers"]} == {"connecting"}
        with daemon.legacy() as wire:
            assert wire.result("tools/list") == {"tools": []}


def test_a_killed_daemon_leaves_nothing_that_its_successor_does_not_sweep() -> None:
    """PDEATHSIG takes the servers along; whatever still holds the socket's name is replaced."""
    with Daemon({"one": fixture("one"), "deaf": fixture("deaf", "--mute", stopTimeout=0.5)}) as daemon:
        daemon.await_up("one")
        pids = [server["pid"] for server in daemon.status()["servers"]]
        left = [one for pid in pids if (one := process(pid)) is not None]
        assert len(left) == 2
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait(10)
        assert daemon.socket.exists()
        daemon.start().await_up("one")
        with daemon.legacy() as wire:
            assert wire.call("one__pid")["content"][0]["text"] not in map(str, pids)
        eventually(lambda: not any(map(is_alive, left)), what="the end of what the first daemon left")
