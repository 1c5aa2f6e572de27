"""`daemon/status`: every key, with the right type, in every state a server can be in."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime
from typing import Any

import pytest

from mcp_multi_server import __version__
from mcp_multi_server.core.events import ServerRemoved
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.daemon.reload import Reload
from mcp_multi_server.daemon.samples import fleet_sample
from mcp_multi_server.daemon.status import fleet_status

from ..client import Message
from ..fleet import Fleet, Script, fleet

pytestmark = pytest.mark.anyio

TEXT, MAYBE, COUNT = (str,), (str, type(None)), (int,)
SERVER_KEYS: dict[str, tuple[type, ...]] = {
    "name": TEXT,
    "state": TEXT,
    "since": MAYBE,
    "reason": MAYBE,
    "transport": MAYBE,
    "protocolVersion": MAYBE,
    "pid": (int, type(None)),
    "consecutiveFailures": COUNT,
    "nextAttemptAt": MAYBE,
    "restarts": COUNT,
    "inFlight": COUNT,
    "offers": (list,),
    "tools": COUNT,
    "resources": COUNT,
    "resourceTemplates": COUNT,
    "prompts": COUNT,
    "refreshedAt": MAYBE,
    "stale": (bool,),
    "problems": (list,),
    "prefix": (str,),
}
TOP_KEYS = {"version", "pid", "startedAt", "generation", "config", "servers", "collisions", "clients"}
TIMES = ("since", "nextAttemptAt", "refreshedAt")
LISTED: Message = {"tools": ["a", "b"], "prompts": ["c"], "resources": ["d:e", "f:g", "h:i"], "templates": ["j:{k}"]}


async def status_of(running: Fleet, name: str = "one") -> Message:
    """One server's row, checked against the contract."""
    client = await running.client()
    status = await client.result("daemon/status")
    client.close()
    return checked(status, name)


def checked(status: Message, name: str) -> Message:
    (row,) = [row for row in status["servers"] if row["name"] == name]
    assert set(row) == set(SERVER_KEYS)
    for key, types in SERVER_KEYS.items():
        assert type(row[key]) in types, f"{key} is {row[key]!r}"
    assert row["state"] in list(State)
    for key in TIMES:
        if row[key] is not None:
            assert datetime.fromisoformat(row[key]).utcoffset() is not None
    found: Message = row
    return found


def subset(row: Message, **expected: Any) -> None:
    assert {key: row[key] for key in expected} == expected


async def test_a_ready_server() -> None:
    one = Script("one", **LISTED)
    async with fleet(one) as running:
        row = await status_of(running)
        counts = {"tools": 2, "prompts": 1, "resources": 3, "resourceTemplates": 1}
        subset(row, state="ready", reason=None, transport="stdio", protocolVersion="2025-11-25", **counts)
        subset(row, consecutiveFailures=0, nextAttemptAt=None, restarts=0, inFlight=0, stale=False)
        age = datetime.now().timestamp() - datetime.fromisoformat(row["since"]).timestamp()
        assert 0 <= age < 10
        assert row["refreshedAt"] is not None


async def test_a_server_that_is_connecting_for_the_first_time() -> None:
    one = Script("one")
    one.away = True
    async with fleet(one, up=False) as running:
        await one.tried(1)
        row = await status_of(running)
        subset(row, state="connecting", reason=None, protocolVersion=None, tools=0, refreshedAt=None, stale=False)
        one.come()


async def test_a_server_in_backoff_says_why_and_when_it_is_tried_again() -> None:
    one = Script("one", **LISTED)
    async with fleet(one) as running:
        one.refusal = Failure(Reason.UNREACHABLE, "nobody there")
        one.die()
        server = running.supervisor.snapshot.servers["one"]
        await running.until(lambda: server.status.state is State.BACKOFF and server.status.failures == 2)
        row = await status_of(running)
        assert row["consecutiveFailures"] == 2
        subset(row, reason="unreachable: nobody there", tools=2, restarts=1, stale=True, protocolVersion="2025-11-25")
        assert row["nextAttemptAt"] is not None
        assert row["refreshedAt"] is not None


async def test_a_server_that_came_back_has_no_reason_and_remembers_its_failures() -> None:
    one = Script("one")
    async with fleet(one) as running:
        one.die()
        await one.tried(2)
        await running.state("one", State.READY)
        subset(await status_of(running), state="ready", reason=None, restarts=1, consecutiveFailures=1, stale=False)


async def test_a_parked_server() -> None:
    one = Script("one")
    one.refusal = Failure(Reason.SPAWN, "command not found", permanent=True)
    async with fleet(one, up=False) as running:
        await running.state("one", State.PARKED)
        row = await status_of(running)
        subset(row, state="parked", reason="spawn: command not found", consecutiveFailures=1, restarts=0, tools=0)
        assert row["nextAttemptAt"] is not None


async def test_a_server_that_is_being_stopped() -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one, two) as running:
        one.leaving = asyncio.Event()
        (await running.state("one", State.READY)).restart()
        await running.state("one", State.STOPPING)
        subset(await status_of(running), state="stopping", inFlight=0)
        one.leaving.set()
        await running.state("one", State.READY)
        subset(await status_of(running), state="ready", inFlight=0)


async def test_a_server_that_is_removed_has_no_row_however_long_its_end_takes() -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one, two) as running:
        one.leaving = asyncio.Event()
        running.write(two)
        client = await running.client()
        await client.result("daemon/reload")
        await running.event(ServerRemoved)
        rows = (await client.result("daemon/status"))["servers"]
        assert [row["name"] for row in rows] == ["two"]
        one.leaving.set()


@pytest.mark.parametrize(
    ("entry", "state", "reason", "transport"),
    [
        ({"command": "x", "disabled": True}, "disabled", None, "stdio"),
        ({"url": "http://127.0.0.1/", "disabled": True}, "disabled", None, "http"),
        ({"url": "http://127.0.0.1/", "type": "sse", "disabled": True}, "disabled", None, "sse"),
        ({"disabled": True}, "disabled", None, "stdio"),
        ({"command": 5}, "parked", "config: ", None),
        ({}, "parked", "config: ", None),
        ("text", "parked", "config: ", None),
        ({"command": "x", "env": {"A": "${env:NO_SUCH}"}}, "parked", "config: ", None),
    ],
)
async def test_a_server_that_does_not_run_has_a_row_all_the_same(
    entry: object, state: str, reason: str | None, transport: str | None
) -> None:
    async with fleet(Script("one")) as running:
        settings = {"access": {"allowDescendants": True}}
        config = {"mcpServers": {"one": running.scripts["one"].entry, "idle": entry}, "daemon": settings}
        running.config_file.write_text(json.dumps(config))
        client = await running.client()
        result = await client.result("daemon/reload")
        assert result["outcome"] == ("partial" if state == "parked" else "applied")
        row = await status_of(running, "idle")
        subset(row, state=state, since=None, transport=transport, nextAttemptAt=None, consecutiveFailures=0)
        assert (row["reason"] or "").startswith(reason or "")
        assert (row["reason"] is None) == (reason is None)
        subset(await status_of(running), state="ready")


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_calls_on_the_way_are_counted_and_our_own_subscription_is_not(era: str) -> None:
    one = Script("one", era=era)
    one.replies["tools/call"] = None
    async with fleet(one) as running:
        if era == "modern":
            await one.got("subscriptions/listen")
        subset(await status_of(running), inFlight=0)
        client = await running.legacy()
        for id in range(3):
            await client.post("tools/call", {"name": "echo"}, id=id)
        await one.got("tools/call", number=3)
        subset(await status_of(running), inFlight=3)


async def test_the_whole_has_every_key_of_the_contract() -> None:
    one, two = Script("one"), Script("two")
    async with fleet(one, two) as running:
        legacy, modern, silent = await running.legacy(), await running.client(modern=True), await running.client()
        await modern.result("tools/list")
        status = await silent.result("daemon/status")
        assert set(status) >= TOP_KEYS
        subset(status, version=__version__, pid=os.getpid(), generation=running.supervisor.snapshot.generation)
        assert datetime.fromisoformat(status["startedAt"])
        subset(status["config"], path=str(running.config_file), sha256=running.config.sha256)
        assert set(status["config"]) == {"path", "sha256", "loadedAt", "lastReload"}
        subset(status["config"]["lastReload"], outcome="applied", problems=[])
        assert [row["name"] for row in status["servers"]] == ["one", "two"], "in the order of the file"
        (collision,) = status["collisions"]
        assert collision == {"kind": "tool", "name": "echo", "owner": "one", "shadowed": ["two"]}
        eras = [(row["id"], row["name"], row["era"]) for row in status["clients"]]
        assert eras == [(1, "tester", "legacy"), (2, "", "modern"), (3, "", None)]
        assert {(row["pid"], row["uid"]) for row in status["clients"]} == {(os.getpid(), os.geteuid())}
        assert all(set(row) == {"id", "pid", "uid", "name", "era"} for row in status["clients"])
        assert await legacy.result("ping") == {}


async def test_no_value_of_a_config_is_in_the_status() -> None:
    entry = {"args": ["sesame-1"], "env": {"TOKEN": "sesame-2"}, "cwd": "/sesame-3"}
    async with fleet(Script("one", entry=entry)) as running:
        client = await running.client()
        assert "sesame" not in json.dumps(await client.result("daemon/status"))


async def test_the_samples_for_metrics_say_the_same() -> None:
    one = Script("one", **LISTED)
    async with fleet(one) as running:
        reload = Reload("partial", 5.0, 4.0)
        sample = fleet_sample(running.supervisor.snapshot, reload, clients=3, loop_lag=0.5)
        assert (sample.clients, sample.loop_lag, sample.last_reload_ok, sample.last_reload_success) == (
            3,
            0.5,
            False,
            4,
        )
        (server,) = sample.servers
        assert (server.name, server.state, server.protocol_version) == ("one", "ready", "2025-11-25")
        assert dict(server.entries) == {"tool": 2, "prompt": 1, "resource": 3, "template": 1}


async def test_names_that_language_models_refuse_are_reported() -> None:
    async with fleet(Script("one", tools=["fine", "with space", "x" * 65])) as running:
        status = fleet_status(running.supervisor.snapshot, running.parts.reloads.last, path="p", started_at=0.0)
        refused = {(row["server"], row["name"]) for row in status["refusedNames"]}
        assert refused == {("one", "with space"), ("one", "x" * 65)}
