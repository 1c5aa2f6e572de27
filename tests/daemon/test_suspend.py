"""The machine sleeps and wakes: noticed by two clocks, told once, and every server looked at."""

from __future__ import annotations

import json
import sys

import anyio
import pytest

from mcp_multi_server.core.config.config import parse
from mcp_multi_server.core.events import Event, Probed, StateChanged, Woke
from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.core.suspend import Clocks
from mcp_multi_server.daemon import suspend
from mcp_multi_server.daemon.config_file import lookup_in
from mcp_multi_server.daemon.fleet import Fleet
from mcp_multi_server.telemetry.events import Events
from tests.e2e.entries import fixture
from tests.polling import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspend, "LOOK_EVERY", 0.01)


class Machine:
    """Its monotonic clock is the real one; it sleeps when it is told to."""

    def __init__(self) -> None:
        self.asleep = 1e6
        self.looks = 0

    def clocks(self) -> Clocks:
        self.looks += 1
        now = suspend.clocks()
        return Clocks(now.monotonic + self.asleep, now.monotonic)

    async def until_looked_at(self, times: int) -> None:
        times += self.looks
        await until(lambda: self.looks >= times)


def test_the_two_clocks_are_those_of_the_machine() -> None:
    first, second = suspend.clocks(), suspend.clocks()
    assert 0 < first.monotonic <= second.monotonic
    assert 0 < first.boottime <= second.boottime


async def test_each_sleep_is_told_once_and_time_awake_is_not() -> None:
    machine = Machine()
    woke: list[float] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(suspend.watch, woke.append, machine.clocks)
        await machine.until_looked_at(3)
        assert woke == []
        for seconds in (3600.0, 2.0, 6.0):
            machine.asleep += seconds
            await machine.until_looked_at(3)
        tasks.cancel_scope.cancel()
    assert woke == [pytest.approx(3600), pytest.approx(6)]


async def test_after_a_sleep_all_servers_of_a_fleet_are_probed_or_tried_again() -> None:
    """Without, the first probe would come after 13 seconds, and the next attempt after minutes."""
    entries = {"one": fixture(), "gone": {"command": sys.executable, "args": ["-c", "raise SystemExit(127)"]}}
    machine, events = Machine(), list[Event]()
    config = parse(json.dumps({"mcpServers": entries}).encode(), lookup_in(""))
    fleet = Fleet(config, events=Events(events.append), clocks=machine.clocks)

    def parked() -> int:
        return sum(isinstance(each, StateChanged) and each.new is State.PARKED for each in events)

    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.run)
        await until(lambda: parked() == 1 and fleet.snapshot.servers["one"].live is not None)
        machine.asleep += 60
        await until(lambda: Probed("one", True) in events and parked() == 2)
        tasks.cancel_scope.cancel()
    assert [each.seconds for each in events if isinstance(each, Woke)] == [pytest.approx(60)]
