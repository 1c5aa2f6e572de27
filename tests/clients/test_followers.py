"""Clients that follow what happens, or what one server writes: what they hear, and that they may leave at any time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import get_args

import pytest

from mcp_multi_server.clients.followers import EVENT_NAMES, HIDDEN, NOT_TOLD, REJECTIONS_A_SECOND
from mcp_multi_server.clients.streams import BATCH_LINES
from mcp_multi_server.core.errors import INVALID_REQUEST, Problem
from mcp_multi_server.core.events import (
    CatalogRead,
    ClientGone,
    ConfigReloaded,
    DaemonStopping,
    Event,
    InternalError,
    Rejected,
)
from mcp_multi_server.telemetry.limit import BURST, Limit
from tests.events import EVERYTHING

from ..client import Client, Message
from ..fleet import Fleet, Script, fleet
from ..scripted import GONE

pytestmark = pytest.mark.anyio

THE_LAST = DaemonStopping("the test ends")


async def following(running: Fleet, client: Client | None = None) -> Client:
    """A client that follows the events and has read the first of them."""
    client = client or await running.client()
    await client.post("daemon/events", id="events")
    assert (await client.notification())["params"]["event"] == "status"
    return client


async def event(client: Client, matches: Callable[[Message], bool]) -> Message:
    """The next event that matches."""
    while True:
        message = await client.notification()
        assert message["method"] == "notifications/daemon/event"
        found: Message = message["params"]
        if matches(found):
            return found


def named(name: str) -> Callable[[Message], bool]:
    return lambda event: event["event"] == name


# --- events ----------------------------------------------------------------------------------------------------------


async def test_events_begin_with_the_status_and_go_on_with_changes() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await running.client()
        await client.post("daemon/events", id="e")
        first = await client.notification()
        assert first["method"] == "notifications/daemon/event"
        assert first["params"]["event"] == "status"
        assert first["params"]["status"] == await client.result("daemon/status")
        one.die()
        change = await event(client, named("server"))
        assert (change["old"], change["new"]) == ("ready", "backoff")
        assert change["failure"] == {"reason": "exit", "message": GONE.message, "permanent": False}
        assert change["server"]["name"] == "one"
        assert change["retry_in"] >= 0
        assert change["at"].endswith("+00:00")
        assert (await event(client, lambda event: event.get("new") == "ready"))["server"]["state"] == "ready"


def test_every_kind_of_event_is_told_or_has_a_reason_why_not() -> None:
    assert EVENT_NAMES.keys() | NOT_TOLD.keys() == set(get_args(Event))
    assert not EVENT_NAMES.keys() & NOT_TOLD.keys()
    assert len(set(EVENT_NAMES.values())) == len(EVENT_NAMES)
    assert all(NOT_TOLD.values())


async def heard(client: Client) -> list[Message]:
    """What a follower hears until the last event that a test tells."""
    found = list[Message]()
    while not found or found[-1].get("why") != THE_LAST.why:
        found.append(await event(client, lambda event: True))
    return found[:-1]


@pytest.mark.parametrize("told", EVERYTHING, ids=lambda event: type(event).__name__)
async def test_a_follower_hears_it_without_what_is_for_admins(told: Event) -> None:
    async with fleet(Script("one"), expected_errors=isinstance(told, InternalError)) as running:
        client = await following(running, await running.foreign())
        running.tell(told)
        running.tell(THE_LAST)
        found = await heard(client)
        is_old = isinstance(told, CatalogRead) and not told.is_news
        expected = [] if is_old or type(told) in NOT_TOLD else [EVENT_NAMES[type(told)]]
        assert [each["event"] for each in found] == expected
        for each in found:
            assert each.keys() == {"event", "at", *(field.name for field in fields(told))} - HIDDEN
            assert "last words" not in json.dumps(each)
            assert "a.py" not in json.dumps(each)


async def test_events_tell_everybody_what_happens_but_not_what_servers_write_to_stderr() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await following(running, await running.foreign())
        one.write("the password is hunter2")
        one.die()
        while True:
            line = (await client.line()).decode()
            assert "hunter2" not in line
            if '"backoff"' in line:
                break


async def test_an_event_has_its_fields_as_json() -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        problem = Problem("mcpServers.x.args", "must be a list", "x")
        running.tell(ConfigReloaded("partial", 7, (problem,), {"start": ("x",)}))
        told = await event(client, named("config"))
        assert (told["outcome"], told["generation"], told["changed"]) == ("partial", 7, {"start": ["x"]})
        assert told["problems"] == [{"field": problem.field, "message": problem.message, "server": "x"}]


async def test_what_happens_on_its_own_is_told() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await following(running)
        other = await running.client()
        await other.result("ping")
        assert (await event(client, named("client_connected")))["uid"] >= 0
        await other.write("no JSON\n")
        assert (await event(client, named("rejected")))["reason"] == "invalid_message"
        assert "error" in await other.message()
        other.close()
        assert (await event(client, named("client_gone")))["reason"] == "closed"
        running.write(one, Script("two"))
        await client.result("daemon/reload")
        assert (await event(client, named("config")))["changed"] == {"start": ["two"]}
        collision = await event(client, named("collision"))
        assert (collision["kind"], collision["name"]) == ("tool", "echo")
        assert (collision["owner"], collision["shadowed"]) == ("one", ["two"])
        running.write(Script("two"))
        await client.result("daemon/reload")
        assert (await event(client, named("server_removed")))["server"] == "one"


async def test_warnings_reach_followers_whoever_gives_them() -> None:
    """A key of the config that is not known is a doubt, which the daemon tells at each reload."""
    async with fleet(Script("one")) as running:
        client = await following(running)
        running.write(Script("one", entry={"oops": 1, "timeout": 5}))
        await client.result("daemon/reload")
        warning = await event(client, named("warning"))
        assert (warning["subject"], "oops" in warning["message"]) == ("config", True)


async def test_a_flood_of_rejections_is_cut_to_a_burst_and_says_later_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        now = [100.0]
        monkeypatch.setattr(running.parts.event_followers, "_clock", lambda: now[0])
        monkeypatch.setattr(running.parts.event_followers, "_rejections", Limit(REJECTIONS_A_SECOND, now[0]))
        for _ in range(500):
            running.tell(Rejected("invalid_message", 1, "no JSON"))
        now[0] += 10.0
        running.tell(Rejected("access", None, "who?"))
        running.tell(THE_LAST)
        *flood, last = await heard(client)
        assert len(flood) == BURST
        assert not any("left_out" in each for each in flood)
        assert (last["reason"], last["left_out"]) == ("access", 500 - BURST)


async def test_cancelling_ends_the_events_and_frees_the_id() -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        assert (await client.error("daemon/events", id="events"))["code"] == INVALID_REQUEST
        await client.notify("notifications/cancelled", {"requestId": "events"})
        await client.settled()
        running.tell(DaemonStopping("test"))
        assert await client.settled() == []
        await following(running, client)
        running.tell(DaemonStopping("test"))
        assert (await client.notification())["params"]["event"] == "stopping"
        assert len(running.parts.event_followers) == 1


async def test_followers_that_left_are_not_kept() -> None:
    async with fleet(Script("one")) as running:
        client = await running.client()
        for _ in range(50):
            await following(running, client)
            await client.notify("notifications/cancelled", {"requestId": "events"})
        await client.settled()
        assert not running.parts.event_followers
        leaver = await following(running)
        assert len(running.parts.event_followers) == 1
        leaver.close()
        await running.event(ClientGone)
        assert not running.parts.event_followers


# --- following a server's stderr -------------------------------------------------------------------------------------


async def reading_log(running: Fleet, server: str = "one", *, lines: int = 50) -> tuple[Client, list[str]]:
    """A client that follows a server's stderr, and the lines that were there."""
    client = await running.client()
    await client.post("daemon/logs", {"server": server, "lines": lines, "follow": True}, id="log")
    return client, (await told(client))["lines"]


async def told(client: Client) -> Message:
    """The params of the next notification of a log."""
    message = await client.notification()
    assert message["method"] == "notifications/daemon/log"
    params: Message = message["params"]
    return params


async def read(client: Client, count: int) -> tuple[list[str], int]:
    """The next lines, that many counting those that were left out, and how many were."""
    lines, left_out = list[str](), 0
    while len(lines) + left_out < count:
        params = await told(client)
        lines += params["lines"]
        left_out += params.get("leftOut", 0)
    return lines, left_out


async def test_following_begins_with_the_last_lines_and_misses_none_after_them() -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one, two) as running:
        for number in range(5):
            one.write(f"before {number}")
        client, before = await reading_log(running, lines=2)
        assert before == ["before 3", "before 4"]
        two.write("not this one")
        for number in range(60):
            one.write(f"after {number}")
        assert await read(client, 60) == ([f"after {number}" for number in range(60)], 0)


async def test_following_a_server_that_said_nothing_is_answered_at_once() -> None:
    async with fleet(Script("one")) as running:
        assert (await reading_log(running))[1] == []


async def test_following_outlives_the_servers_restart_and_tells_of_it() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading_log(running)
        one.write("last words")
        one.die()
        assert await told(client) == {"server": "one", "lines": ["last words"]}
        assert await told(client) == {"server": "one", "state": "backoff", "reason": f"exit: {GONE.message}"}
        while (await told(client))["state"] != "ready":
            pass
        one.write("born again")
        assert await told(client) == {"server": "one", "lines": ["born again"]}


async def test_following_outlives_a_change_of_the_servers_entry() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading_log(running)
        running.write(Script("one", entry={"env": {"NEW": "1"}}))
        await client.result("daemon/reload", id="reload")
        while (await told(client)).get("state") != "ready":
            pass
        running.scripts["one"].write("from the new one")
        assert (await told(client))["lines"] == ["from the new one"]


async def test_following_ends_with_an_answer_when_the_server_is_removed() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading_log(running)
        other = await running.client()
        running.write(Script("two"))
        await other.result("daemon/reload")
        assert json.loads(await client.answer_line("log"))["result"] == {"server": "one", "ended": "removed"}
        assert not running.parts.log_followers
        assert await client.result("ping", id="log") == {}, "the id is free"


async def test_a_flood_reaches_a_follower_as_its_newest_lines_and_a_count() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading_log(running)
        for number in range(10_000):
            one.write(f"line {number}")
        lines, left_out = await read(client, 10_000)
        assert lines == [f"line {number}" for number in range(10_000 - BATCH_LINES, 10_000)]
        assert left_out == 10_000 - BATCH_LINES


async def test_a_follower_that_does_not_read_is_cut_off_alone() -> None:
    one = Script("one")
    limits = {"outgoing": 1 << 20, "clientLine": 1 << 20, "serverLine": 1 << 20}
    daemon = {"access": {"allowDescendants": True}, "limits": limits}
    async with fleet(one, daemon=daemon) as running:
        deaf, _ = await reading_log(running)
        client, _ = await reading_log(running)

        def is_cut_off() -> bool:
            for number in range(BATCH_LINES):
                one.write(f"{number} " + "x" * 8000)
            return any(isinstance(event, Rejected) and event.reason == "cut_off" for event in running.events)

        while not is_cut_off():
            await read(client, BATCH_LINES)
        assert len(running.parts.log_followers) == 1
        assert await deaf.ended() == [], "the half of a line that it had room for"


@pytest.mark.parametrize("leave", ["cancel", "go"])
async def test_who_follows_may_leave_in_the_middle_of_a_batch(leave: str) -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading_log(running)
        one.write("never sent")
        if leave == "cancel":
            await client.notify("notifications/cancelled", {"requestId": "log"})
            assert await client.settled() == []
        else:
            client.close()
            await running.event(ClientGone)
        assert not running.parts.log_followers
        one.write("to nobody")
