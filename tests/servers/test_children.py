"""Servers that are real processes, in real time."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_multi_server.core.config.config import LimitsConfig
from mcp_multi_server.core.events import InvalidLine
from mcp_multi_server.core.lifecycle import Reason, State
from mcp_multi_server.servers import exchange, handshake, health
from mcp_multi_server.servers.opener import TransportOpener
from mcp_multi_server.transport.link import Flusher

from ..scripted import SOON
from . import supervised
from .one_server import running

pytestmark = pytest.mark.anyio

SERVERS = Path(__file__).parents[1] / "fixtures"


def fixture(*options: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-I", "-S", str(SERVERS / "fixture.py"), *options]}


@pytest.fixture
def children(real_time: None) -> TransportOpener:
    return TransportOpener(LimitsConfig, Flusher(), dict(os.environ))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def starts(journal: Path) -> list[int]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith("start ")]


@pytest.mark.parametrize(
    ("era", "spoken", "spawned"),
    [("legacy", "legacy", 1), ("modern", "modern", 1), ("both", "modern", 1), ("dies-on-probe", "legacy", 2)],
)
async def test_a_child_of_each_era_is_ready_and_its_pages_are_all_read(
    children: TransportOpener, tmp_path: Path, era: str, spoken: str, spawned: int
) -> None:
    journal = tmp_path / "journal"
    entry = fixture("--era", era, "--tools", "25", "--page-size", "7", "--journal", str(journal))
    async with running(children, **entry) as one:
        assert await one.attempt() is State.READY
        assert one.server.negotiated is not None
        assert one.server.negotiated.era == spoken
        assert {f"extra_{number}" for number in range(25)} < set(one.names())
        assert one.log.states() == [State.READY]
        assert len(starts(journal)) == spawned
        pid = one.server.pid
        assert pid == starts(journal)[-1]
        os.kill(pid, signal.SIGKILL)
        await one.ready(2)
        assert len(starts(journal)) == spawned + 1, "the verdict is remembered"
    assert not any(map(is_alive, starts(journal)))


async def test_a_child_that_ignores_the_probe_is_ready_and_comes_back(
    children: TransportOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "PROBE_PATIENCE", 0.05)
    async with running(children, **fixture("--era", "silent-on-probe")) as one:
        assert await one.attempt() is State.READY
        pid = one.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await one.ready(2)
        assert one.log.states() == [State.READY, State.BACKOFF, State.CONNECTING, State.READY]


@pytest.mark.parametrize(
    ("tool", "reason", "said"),
    [("exit", Reason.EXIT, "exited with code 3"), ("crash_mid_call", Reason.SIGNAL, "killed by signal 9 (SIGKILL)")],
)
async def test_a_child_that_ends_within_a_call_fails_every_call_with_its_end(
    children: TransportOpener, tool: str, reason: Reason, said: str
) -> None:
    async with running(children, **fixture("--era", "legacy")) as one:
        await one.until(State.READY)
        calls = [one.call(params=b'{"name":"slow","arguments":{"seconds":60}}') for _ in range(20)]
        calls.append(one.call(params=b'{"name":"%b"}' % tool.encode()))
        with anyio.fail_after(SOON):
            for call in calls:
                await call.done.wait()
        assert {tuple(call.told) for call in calls} == {(said,)}
        assert {call.state for call in calls} == {State.BACKOFF}
        assert one.failure.reason is reason


async def test_a_mute_child_is_ended_after_the_start_timeout(children: TransportOpener, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with running(children, jitter=0.99, **fixture("--mute", "--journal", str(journal)), startTimeout=0.5) as one:
        assert await one.attempt() is State.BACKOFF
        assert one.failure.reason is Reason.START_TIMEOUT
        assert not is_alive(starts(journal)[0])


async def test_a_stopped_child_is_replaced_and_calls_learn_of_it_at_once(
    children: TransportOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY", 0.1)
    monkeypatch.setattr(health, "PROBE_WHEN_DEGRADED", 0.05)
    monkeypatch.setattr(health, "PROBE_DEADLINE", 0.15)
    async with running(children, **fixture(), stopTimeout=0.4) as one:
        await one.until(State.READY)
        pid = one.server.pid
        assert pid is not None
        call = one.call(params=b'{"name":"pid"}')
        with anyio.fail_after(SOON):
            await call.done.wait()
        os.kill(pid, signal.SIGSTOP)
        call = one.call(params=b'{"name":"pid"}')
        with anyio.fail_after(SOON):
            await call.done.wait()
        assert (call.told, call.state) == (["missed 3 probes in a row"], State.BACKOFF)
        assert is_alive(pid), "it is being ended meanwhile"
        await one.until(State.READY)
        assert not is_alive(pid)
        assert one.server.pid != pid


async def test_restart_replaces_the_child(children: TransportOpener) -> None:
    async with running(children, **fixture()) as one:
        await one.until(State.READY)
        pid = one.server.pid
        assert pid is not None
        one.server.restart()
        assert await one.attempt() is State.READY
        assert one.server.pid not in (None, pid)
        assert not is_alive(pid)


async def test_a_missing_command_parks_with_its_name(children: TransportOpener) -> None:
    async with running(children, command="/no/such/program") as one:
        assert await one.attempt() is State.PARKED
        assert one.failure.reason is Reason.SPAWN
        assert "/no/such/program" in one.failure.message


async def test_a_child_that_floods_stdout_is_ended(children: TransportOpener) -> None:
    entry: dict[str, Any] = {"command": sys.executable, "args": ["-I", "-S", str(SERVERS / "faulty.py"), "flood"]}
    async with running(children, jitter=0.99, **entry) as one:
        await one.until(State.READY)
        one.call(params=b'{"name":"trigger"}')
        await one.ended()
        assert one.failure.reason is Reason.PROTOCOL
        assert len(one.log.of(InvalidLine)) <= exchange.FLOOD_LINES + 1


# --- several of them -------------------------------------------------------------------------------------------------


async def test_kept_children_live_on_with_their_pid_and_others_are_gone_with_the_reload(
    children: TransportOpener,
) -> None:
    servers = {name: fixture("--name", name) for name in ("one", "two", "three")}
    async with supervised.running(children, supervised.config_of(servers)) as fleet:
        await fleet.until(one="ready", two="ready", three="ready")
        pids = {name: server.pid for name, server in fleet.snapshot.servers.items()}
        gone = pids["two"], pids["three"]
        assert all(pids.values())
        await fleet.apply(
            supervised.config_of({"two": fixture("--name", "two", "--version", "2"), "one": servers["one"]})
        )
        await fleet.until(one="ready", two="ready")
        assert fleet["one"].pid == pids["one"]
        assert fleet["two"].pid not in (None, pids["two"])
        await fleet.log.until(lambda: not any(pid and is_alive(pid) for pid in gone))
        last = [server.pid for server in fleet.snapshot.servers.values()]
    assert not any(pid and is_alive(pid) for pid in last)


async def test_a_child_killed_by_hand_comes_back_while_the_others_serve(children: TransportOpener) -> None:
    servers = {name: fixture("--name", name) for name in ("one", "two")}
    async with supervised.running(children, supervised.config_of(servers)) as fleet:
        await fleet.until(one="ready", two="ready")
        before, pid, other = fleet.snapshot.generation, fleet["one"].pid, fleet["two"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await fleet.until(one="backoff")
        await fleet.until(one="ready")
        assert fleet["one"].restarts == 1
        assert fleet["two"].pid == other
        assert fleet.told(before) == []
