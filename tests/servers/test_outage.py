"""Hours of outage and flapping, in virtual time: it never gives up, never spins, and forgets nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.config.config import Config
from mcp_multi_server.core.events import StateChanged
from mcp_multi_server.core.lifecycle import ROUTED, Failure, Lost, Reason, State
from mcp_multi_server.servers.replacement import Replacement

from ..scripted import GONE, Json, Machine, Scripted, legacy, silence, tools
from ..virtual import run
from .supervised import Supervised, config_of, entry, running

HOUR = 3600.0
UNREACHABLE = Lost(Failure(Reason.UNREACHABLE, "connection refused"))
REFUSED = Lost(Failure(Reason.UNAUTHORIZED, "HTTP 401", permanent=True))


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def fleet_of(machine: Machine, config: Config, *, seed: int) -> AsyncIterator[Supervised]:
    """A running fleet whose jitter is drawn from a seed."""
    async with running(machine, config, jitter=random.Random(seed).random) as fleet:
        yield fleet


def newest(fleet: Supervised) -> int:
    """The id of the call that was made last."""
    session = fleet["a"].live
    assert session is not None
    return session.pending.newest


async def back(fleet: Supervised, *servers: str) -> None:
    """Wait until these are ready, for no longer than the longest pause between two attempts."""
    with anyio.fail_after(361):
        for server in servers:
            await fleet.log.until(lambda: fleet.states()[server] == "ready", within=1000)  # noqa: B023  # awaited at once


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_without_a_server_is_an_hour_of_attempts_at_growing_distances(seed: int) -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy(), UNREACHABLE))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=seed) as fleet:
            await fleet.until(a="ready")
            await anyio.sleep(120)
            machine["a"].server.die()
            lost = now()
            await anyio.sleep(HOUR)
            attempts = [at for at in machine["a"].at if at > lost]
            assert 10 <= len(attempts) <= 100
            distances = [after - before for before, after in pairwise([lost, *attempts])]
            assert min(distances) >= lifecycle.BACKOFF_FLOOR - 1e-6
            assert max(distances) <= lifecycle.PARKED_RETRY * (1 + lifecycle.PARKED_SPREAD) + 1e-6
            assert distances[0] <= lifecycle.BACKOFF_BASE
            assert fleet.listed() == [], "its names went after the grace"
            machine["a"].openings = deque([legacy()])
            await back(fleet, "a")
            assert now() - lost <= HOUR + 361
            assert fleet.listed() == ["t"]
            assert fleet["a"].restarts == 1

    run(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_of_flapping_is_parked_and_tried_every_five_minutes(seed: int) -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy()), b=Scripted(legacy(tools_list=tools("tb"))))
        async with fleet_of(machine, config_of({"a": entry("a"), "b": entry("b")}), seed=seed) as fleet:
            losses = 0
            end = now() + HOUR
            while now() < end:
                await back(fleet, "a")
                await anyio.sleep(2)
                machine["a"].server.die()
                losses += 1
                assert fleet["a"].restarts == losses
            told = [event for event in fleet.log.of(StateChanged) if event.server == "a"]
            parked = [event for event in told if event.new is State.PARKED]
            assert len(told) < 400
            assert parked
            assert all(event.failure and event.failure.reason is Reason.FLAPPING for event in parked)
            assert losses <= 11 + 12 * 11, "ten failures at most between two times of being parked"
            assert fleet["b"].restarts == 0
            await back(fleet, "a")
            await anyio.sleep(lifecycle.STABLE_AFTER + 1)
            assert lifecycle.is_stable(fleet["a"].status, now())

    run(scenario())


def test_fifty_servers_lost_at_once_do_not_come_back_in_one_wave() -> None:
    async def scenario() -> None:
        names = [f"s{number}" for number in range(50)]
        machine = Machine(**{name: Scripted(legacy(), UNREACHABLE) for name in names})
        async with fleet_of(machine, config_of({name: entry(name) for name in names}), seed=1) as fleet:
            await fleet.until(**dict.fromkeys(names, "ready"))
            await anyio.sleep(100)
            for name in names:
                machine[name].server.die()
            await anyio.sleep(600)
            waves = Counter(round(at, 1) for name in names for at in machine[name].at if at > 110)
            assert max(waves.values()) <= 25, "full jitter spreads the attempts"
            for name in names:
                machine[name].openings = deque([legacy()])
            await back(fleet, *names)

    run(scenario())


def test_a_refused_token_is_tried_again_for_ever_and_seldom() -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(REFUSED))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=3) as fleet:
            await anyio.sleep(HOUR)
            assert 10 <= len(machine["a"].at) <= 16
            machine["a"].openings = deque([legacy()])
            await back(fleet, "a")

    run(scenario())


def test_calls_to_a_server_that_is_away_hurry_it_and_never_make_it_spin() -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy(), UNREACHABLE))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=5) as fleet:
            await fleet.until(a="ready")
            machine["a"].server.die()
            for _ in range(6000):
                fleet["a"].retry_for_call()
                await anyio.sleep(0.1)
            distances = [after - before for before, after in pairwise(machine["a"].at[1:])]
            assert min(distances) >= lifecycle.BACKOFF_FLOOR - 1e-6
            assert len(machine["a"].at) <= 600 / lifecycle.CALL_RETRY_BACKOFF + 2

    run(scenario())


def test_a_server_that_answers_nothing_is_degraded_at_the_first_deadline_and_replaced_when_its_patience_is_over() -> (
    None
):
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy(ping=silence), legacy()))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=7) as fleet:
            await fleet.until(a="ready")
            await anyio.sleep(1)
            asked = now()
            calls = [fleet.call(within=seconds) for seconds in (6, 7, 8)]
            await fleet.log.until(lambda: fleet.states()["a"] == "degraded", within=20)
            assert now() - asked <= 6.1
            await fleet.log.until(lambda: fleet.states()["a"] == "backoff", within=200)
            assert 8 + 120 <= now() - asked <= 8 + 120 + 6
            assert fleet["a"].status.failure is not None
            assert fleet["a"].status.failure.reason is Reason.HANG
            assert [call.told for call in calls] == [["expired"]] * 3
            await back(fleet, "a")

    run(scenario())


@pytest.mark.parametrize("pause", [0.1, 1.0, 5.9])
def test_a_server_that_answers_nothing_under_load_is_replaced_at_the_second_deadline(pause: float) -> None:
    """As when it was stopped by a signal: somebody waits for it, so it has less time than one that nobody needs."""

    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy(ping=silence), legacy()))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=7) as fleet:
            await fleet.until(a="ready")
            asked = now()
            while State.BACKOFF not in fleet.log.states("a"):
                fleet.call(within=6)
                await anyio.sleep(pause)
            assert now() - asked <= 6 + 6 + 2 * pause
            assert fleet["a"].status.failure is not None
            assert fleet["a"].status.failure.reason is Reason.HANG
            await back(fleet, "a")

    run(scenario())


def test_a_server_that_lost_some_requests_and_answers_others_is_ready_again_soon() -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy()))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=7) as fleet:
            await fleet.until(a="ready")
            await anyio.sleep(1)
            for _ in range(lifecycle.TRANSPORT_FAILURES):
                lost = fleet.call()
                machine["a"].server.receiver.failed(newest(fleet), GONE)
                assert lost.told == [GONE.message]
            assert fleet.states() == {"a": "degraded"}
            for _ in range(50):
                quick = fleet.call()
                machine["a"].server.say({"jsonrpc": "2.0", "id": newest(fleet), "result": {}})
                assert quick.told == ["{}"]
                await anyio.sleep(0.1)
            assert fleet.states() == {"a": "ready"}

    run(scenario())


def test_a_server_that_is_busy_with_a_call_is_not_disturbed_before_its_deadline() -> None:
    """Many servers can do one thing at a time: what works for a minute answers no probe, and does not hang."""

    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy(ping=silence)))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=7) as fleet:
            await fleet.until(a="ready")
            call = fleet.call(within=100)
            await anyio.sleep(99)
            machine["a"].server.say({"jsonrpc": "2.0", "id": 4, "result": {}})
            assert call.told == ["{}"]
            assert fleet.states() == {"a": "ready"}
            await fleet.log.until(lambda: fleet.states()["a"] == "backoff", within=40)

    run(scenario())


def test_a_slow_call_of_a_server_that_answers_others_is_no_reason_to_probe() -> None:
    async def scenario() -> None:
        machine = Machine(a=Scripted(legacy()))
        async with fleet_of(machine, config_of({"a": entry("a")}), seed=7) as fleet:
            await fleet.until(a="ready")
            slow = fleet.call(within=10)
            for id in range(5, 15):
                quick = fleet.call(within=60)
                await anyio.sleep(1)
                machine["a"].server.say({"jsonrpc": "2.0", "id": id, "result": {}})
                assert quick.told == ["{}"]
            assert slow.told == ["expired"]
            assert "ping" not in machine["a"].server.methods()

    run(scenario())


# --- whatever happens, in whatever order -----------------------------------------------------------------------------

HAPPENINGS = ("falls", "refuses", "mute", "well", "restart", "call", "new entry", "stop first", "remove", "add", "time")


class Story:
    """A fleet of one server to which things happen; keeps count of what runs."""

    def __init__(self, fleet: Supervised, machine: Machine) -> None:
        self.fleet = fleet
        self.machine = machine
        self.version = 0
        self.entry: Json | None = entry("v0")
        self.restarts = 0
        self.waits: list[Replacement] = []

    @property
    def scripts(self) -> Iterator[Scripted]:
        return iter(self.machine.servers.values())

    async def happen(self, what: str, seconds: float) -> None:
        match what:
            case "falls":
                for scripted in self.scripts:
                    if scripted.open:
                        scripted.server.die()
            case "refuses" | "mute" | "well":
                answers: dict[str, Any] = {"refuses": UNREACHABLE, "mute": legacy(initialize=silence), "well": legacy()}
                for scripted in self.scripts:
                    scripted.openings = deque([answers[what]])
            case "restart" if "a" in self.fleet.snapshot.servers:
                self.waits.append(self.fleet.supervisor.restart("a"))
            case "call" if "a" in self.fleet.snapshot.servers:
                self.fleet["a"].retry_for_call()
            case "new entry" | "stop first" | "add":
                self.version += what != "add"
                fields = {"replace": "stop-first"} if what == "stop first" else {}
                self.apply(entry(f"v{self.version % 4}", **fields, timeout=1 + self.version))
            case "remove":
                self.apply(None)
        await anyio.sleep(seconds)

    def apply(self, wanted: Json | None) -> None:
        self.entry = wanted
        _, replacements = self.fleet.supervisor.apply(config_of({"a": wanted} if wanted else {}, drain=1))
        self.waits += replacements

    def check(self) -> None:
        """What holds at every moment."""
        fleet = self.fleet
        assert list(fleet.snapshot.servers) == (["a"] if self.entry else [])
        beside = len(fleet.supervisor._replacements) + len(fleet.supervisor._draining)
        assert sum(scripted.open for scripted in self.scripts) <= 1 + beside + _being_ended(self)
        if "a" in fleet.snapshot.servers:
            status = fleet["a"].status
            if status.state in (State.BACKOFF, State.PARKED):
                assert status.next_attempt is not None
                assert now() <= status.next_attempt <= now() + 361
            assert (fleet["a"].live is not None) == (status.state in ROUTED)


def _being_ended(story: Story) -> int:
    """Replacements that were given up and have not gone yet."""
    return sum(wait.failure is not None and not wait.task.gone.is_set() for wait in story.waits)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from([0.0, 0.01, 0.3, 3.0, 40.0, 400.0])), max_size=25),
    st.integers(0, 100),
)
@example([("new entry", 0.0), ("new entry", 0.0)], 0)
@example([("mute", 0.01), ("new entry", 0.0), ("restart", 0.3), ("falls", 0.0), ("remove", 0.0), ("add", 3.0)], 1)
def test_whatever_happens_there_is_one_server_and_it_comes_back(story: list[tuple[str, float]], seed: int) -> None:
    async def scenario() -> None:
        machine = Machine(**{f"v{number}": Scripted(legacy()) for number in range(4)})
        for scripted in machine.servers.values():
            scripted.at_most = 4
        async with fleet_of(machine, config_of({"a": entry("v0", protocol="legacy")}, drain=1), seed=seed) as fleet:
            told = Story(fleet, machine)
            for what, seconds in story:
                await told.happen(what, seconds)
                told.check()
            await told.happen("well", 0)
            await told.happen("time", 400)
            await told.happen("add", 0)
            await back(fleet, "a")
            await anyio.sleep(60)
            assert all(wait.decided.is_set() for wait in told.waits), "nobody waits for ever"
            assert not fleet.supervisor._replacements
            assert not fleet.supervisor._draining
            assert sum(scripted.open for scripted in machine.servers.values()) == 1
            assert fleet["a"].config.timeout == told.version + 1
            assert fleet.snapshot.config.servers["a"] == fleet["a"].config

    run(scenario())
