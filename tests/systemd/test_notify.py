"""What the daemon tells systemd, and when; a real daemon, with the test in systemd's place."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.entries import fixture
from tests.e2e.harness import Daemon
from tests.polling import eventually
from tests.systemd.manager import Manager

MISSING = {"command": "/does/not/exist"}


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


def told(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, **more}


def is_status(words: tuple[str, ...]) -> bool:
    return words[0].startswith("STATUS=")


def states_told(manager: Manager) -> list[str]:
    return [words[0] for words in manager.hear_all() if not is_status(words)]


def test_ready_comes_when_it_serves_and_waits_for_no_server(manager: Manager) -> None:
    with Daemon({"slow": fixture("slow", "--delay", 60, stopTimeout=0.2)}, environment=told(manager)) as daemon:
        ready = manager.hear("READY=1")
        assert ready.pid == daemon.pid
        assert manager.heard[0] == ready
        assert daemon.server("slow")["state"] == "connecting"
        manager.hear("STATUS=0/1 ready, 1 connecting")


def test_an_abstract_notify_socket_works_too() -> None:
    with Manager(abstract=True) as manager, Daemon(environment=told(manager)):
        manager.hear("READY=1")


def test_the_status_says_in_words_how_the_fleet_is(manager: Manager) -> None:
    with Daemon({"one": fixture(), "none": MISSING}, environment=told(manager)) as daemon:
        said = manager.hear("STATUS=1/2 ready, 1 parked, next ")
        assert re.fullmatch(r"1/2 ready, 1 parked, next \d+ s", said.value("STATUS"))
        daemon.rewrite({"one": fixture(), "off": fixture(disabled=True)})
        manager.hear("STATUS=1/1 ready")
        daemon.write("{")
        assert "mcp_servers.json" not in manager.hear("STATUS=1/1 ready; config rejected: ").value("STATUS")
        daemon.rewrite({})
        manager.hear("STATUS=no servers")


def test_the_status_is_told_at_most_once_a_second(manager: Manager) -> None:
    servers = {"one": fixture(), "two": fixture("two")}
    with Daemon(servers, environment=told(manager)) as daemon:
        daemon.await_up("one", "two")
        manager.hear("STATUS=2/2 ready")
        before, started = len(manager.hear_all()), time.monotonic()
        for _ in range(8):
            daemon.control("restart", {"server": "one"})
        daemon.rewrite({"two": fixture("two")})
        manager.hear("STATUS=1/1 ready", after=before)
        passed = time.monotonic() - started
        assert sum(map(is_status, manager.hear_all()[before:])) <= passed + 2


WAYS = [(how, outcome) for how in ("signal", "control", "watch") for outcome in ("applied", "rejected", "unchanged")]


@pytest.mark.parametrize(("how", "outcome"), [way for way in WAYS if way != ("watch", "unchanged")])
def test_every_reload_is_told_from_its_beginning_to_its_end(manager: Manager, how: str, outcome: str) -> None:
    with Daemon(environment=told(manager)) as daemon:
        manager.hear("READY=1")
        before, started = len(manager.hear_all()), time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        if outcome == "rejected":
            daemon.write("{")
        elif outcome == "applied":
            daemon.rewrite({"one": fixture()})
        if how == "signal":
            daemon.signal(signal.SIGHUP)
        elif how == "control":
            daemon.reload()
        begun = manager.hear("RELOADING=1", after=before)
        assert started <= int(begun.value("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert int(begun.value("EXTEND_TIMEOUT_USEC")) > 120e6
        manager.hear("READY=1", after=manager.heard.index(begun))
        if outcome != "unchanged":
            eventually(lambda: daemon.last_reload()["outcome"] == outcome)
        assert not [words for words in manager.hear_all()[before:] if "STOPPING=1" in words]


def test_reloads_at_the_same_time_are_told_one_after_the_other(manager: Manager) -> None:
    with Daemon(environment=told(manager)) as daemon:
        manager.hear("READY=1")
        before = len(states_told(manager))
        with daemon.wire() as one, daemon.wire() as two:
            ids = [(wire, wire.post("daemon/reload", {})) for wire in (one, two) for _ in range(5)]
            for wire, id in ids:
                assert wire.answer(id)["result"]["outcome"] == "unchanged"
        told_of = eventually(lambda: changes if len(changes := states_told(manager)[before:]) == 20 else [])
        assert told_of == ["RELOADING=1", "READY=1"] * 10


def test_stopping_is_told_at_once_with_the_time_it_may_take_and_is_final(manager: Manager) -> None:
    daemon = Daemon({"one": fixture(stopTimeout=7)}, settings={"drain": 30}, environment=told(manager))
    with daemon:
        daemon.await_up("one")
        with daemon.legacy() as wire:
            wire.post("tools/call", {"name": "slow", "arguments": {"seconds": 60}})
            eventually(lambda: daemon.server("one")["inFlight"] == 1)
            daemon.signal(signal.SIGTERM)
            stopping = manager.hear("STOPPING=1")
            assert int(stopping.value("EXTEND_TIMEOUT_USEC")) >= 37e6
            assert stopping.value("STATUS") == "stopping (SIGTERM)"
            daemon.signal(signal.SIGHUP)
            daemon.reload()
        daemon.wait()
        after = [line for words in manager.hear_all()[manager.heard.index(stopping) + 1 :] for line in words]
        assert not [line for line in after if not line.startswith("WATCHDOG")]
        daemon.start()


def test_the_watchdog_is_fed_while_it_lives(manager: Manager) -> None:
    with Daemon(environment=told(manager, WATCHDOG_USEC="600000")):
        for _ in range(4):
            manager.hear("WATCHDOG=1", after=len(manager.heard))


def test_the_watchdog_of_another_process_is_left_alone(manager: Manager) -> None:
    with Daemon(environment=told(manager, WATCHDOG_USEC="1000", WATCHDOG_PID="1")) as daemon:
        for _ in range(2):
            daemon.reload()
        manager.hear("STATUS=")
        assert ("WATCHDOG=1",) not in manager.hear_all()


def test_a_systemd_that_cannot_be_told_is_warned_of_once_and_costs_nothing_else() -> None:
    with Daemon({"one": fixture()}, environment={"NOTIFY_SOCKET": "/does/not/exist"}) as daemon:
        daemon.await_up("one")
        daemon.reload()
        warnings = [line for line in daemon.await_logged("daemon.warning") if line["subject"] == "systemd"]
        assert [line["message"] for line in warnings] == ["cannot notify systemd: No such file or directory"]
