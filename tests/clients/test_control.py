"""The daemon's own methods: what they answer, whom they obey, and that whoever asks may leave at any time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcp_multi_server.clients.access import Peer
from mcp_multi_server.clients.streams import BATCH_LINES
from mcp_multi_server.core.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Problem,
    RpcError,
)
from mcp_multi_server.core.events import (
    CatalogRead,
    ClientGone,
    CollisionChanged,
    ConfigReloaded,
    DaemonStopping,
    DaemonWarning,
    LogLevelChanged,
    RefreshFailed,
    Rejected,
    RequestDone,
)
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.core.settings import LogConfig
from mcp_multi_server.telemetry.log_settings import LogSettings
from tests.logs import log_as_it_was

from ..fleet import GONE, Client, Fleet, Message, Script, fleet

pytestmark = pytest.mark.anyio

FOREIGNER = Peer(1, 54321, 54321)
PRIVILEGED: list[tuple[str, Message]] = [
    ("daemon/reload", {}),
    ("daemon/restart", {"server": "one"}),
    ("daemon/plan", {}),
    ("daemon/logs", {"server": "one"}),
    ("daemon/logs", {"server": "one", "follow": True}),
    ("daemon/log-level", {}),
]
ANSWERED = [row for row in PRIVILEGED if "follow" not in row[1]]
OPEN: list[tuple[str, Message]] = [("daemon/status", {})]


async def foreign(running: Fleet) -> Client:
    """A client of another user, who may call and no more."""
    client = await running.client()
    await client.result("ping")
    list(running.gateway.sessions.values())[-1].peer = FOREIGNER
    return client


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


# --- who may ask what ------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[LogSettings]:
    """The log of a daemon whose config says `info`."""
    with log_as_it_was():
        yield LogSettings(LogConfig(format="json"))


@pytest.mark.parametrize(("method", "params"), [*ANSWERED, *OPEN])
async def test_control_methods_need_neither_handshake_nor_envelope(
    method: str, params: Message, log: LogSettings
) -> None:
    async with fleet(Script("one")) as running:
        running.desk.log = log
        client = await running.client()
        assert isinstance(await client.result(method, params), dict)
        legacy = await running.legacy()
        assert isinstance(await legacy.result(method, params), dict)


@pytest.mark.parametrize(("method", "params"), PRIVILEGED)
async def test_what_changes_or_reveals_things_is_for_admins(method: str, params: Message) -> None:
    async with fleet(Script("one")) as running:
        client = await foreign(running)
        error = await client.error(method, params)
        assert error["code"] == INVALID_REQUEST
        assert "daemon.access.admins" in error["message"]
        assert running.scripts["one"].opened == 1
        assert await client.result("daemon/status"), "reading is for everybody"


async def test_an_admin_by_config_may_do_it_too() -> None:
    access = {"allowDescendants": True, "admins": [FOREIGNER.uid]}
    async with fleet(Script("one"), daemon={"access": access}) as running:
        assert (await (await foreign(running)).result("daemon/reload"))["outcome"] == "applied"


async def test_events_tell_everybody_what_happens_but_not_what_servers_write_to_stderr() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await following(running, await foreign(running))
        one.write("the password is hunter2")
        one.die()
        while True:
            line = (await client.line()).decode()
            assert "hunter2" not in line
            if '"backoff"' in line:
                break


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("daemon/none", {}, METHOD_NOT_FOUND, "daemon/none"),
        ("daemon/", {}, METHOD_NOT_FOUND, "daemon/"),
        ("daemon/" + "x" * 100_000, {}, METHOD_NOT_FOUND, "daemon/xx"),
        ("daemon/restart", {}, INVALID_PARAMS, "params.server must be a string"),
        ("daemon/restart", {"server": ["one"]}, INVALID_PARAMS, "params.server must be a string"),
        ("daemon/restart", {"server": "none"}, INVALID_PARAMS, "no server 'none' is running; running: one"),
        ("daemon/logs", {"server": "n" * 100_000}, INVALID_PARAMS, "no server 'nn"),
        ("daemon/logs", {"server": "one", "lines": -1}, INVALID_PARAMS, "params.lines"),
        ("daemon/logs", {"server": "one", "lines": 1.5}, INVALID_PARAMS, "params.lines"),
        ("daemon/logs", {"server": "one", "lines": "5"}, INVALID_PARAMS, "params.lines"),
        ("daemon/logs", {"server": "one", "lines": None}, INVALID_PARAMS, "params.lines"),
        ("daemon/logs", {"server": "one", "follow": 1}, INVALID_PARAMS, "params.follow must be true or false"),
        ("daemon/logs", {"server": "none", "follow": True}, INVALID_PARAMS, "no server 'none' is running"),
        ("daemon/log-level", {"level": "debug"}, INVALID_REQUEST, "the log is the program's"),
        ("daemon/plan", {"config": "text"}, INVALID_PARAMS, "params.config must be an object"),
        ("daemon/plan", {"config": None}, INVALID_PARAMS, "params.config must be an object"),
    ],
)
async def test_wrong_params_say_what_is_wrong(method: str, params: Message, code: int, words: str) -> None:
    async with fleet(Script("one")) as running:
        client = await running.client()
        error = await client.error(method, params)
        assert error["code"] == code
        assert words in error["message"]
        assert len(error["message"]) < 300


# --- logs and plan ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(None, 50), (0, 0), (2, 2), (60, 60), (99, 60), (10**30, 60), (int("9" * 4000), 60)],
)
async def test_logs_are_the_last_lines(lines: int | None, expected: int) -> None:
    one = Script("one")
    async with fleet(one) as running:
        for number in range(60):
            one.write(f"line {number}")
        client = await running.client()
        asked = {"server": "one"} | ({} if lines is None else {"lines": lines})
        result = await client.result("daemon/logs", asked)
        assert result == {"server": "one", "lines": [f"line {n}" for n in range(60 - expected, 60)]}


async def test_a_number_that_python_refuses_to_read_means_all_lines() -> None:
    one = Script("one")
    async with fleet(one) as running:
        one.write("only")
        client = await running.client()
        assert (await client.result("daemon/logs", f'{{"server":"one","lines":{"9" * 50_000}}}'))["lines"] == ["only"]


async def test_a_plan_changes_nothing() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await running.client()
        steps: Message = {"start": [], "stop": [], "replace": [], "update": [], "keep": []}
        assert await client.result("daemon/plan") == {**steps, "keep": ["one"], "problems": []}
        config = {"mcpServers": {"two": {"command": "two"}}}
        planned = await client.result("daemon/plan", {"config": config})
        assert planned == {**steps, "start": ["two"], "stop": ["one"], "problems": []}
        assert running.supervisor.snapshot.config is running.config
        assert one.opened == 1


# --- following a server's stderr -------------------------------------------------------------------------------------


async def reading(running: Fleet, server: str = "one", *, lines: int = 50) -> tuple[Client, list[str]]:
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
        client, before = await reading(running, lines=2)
        assert before == ["before 3", "before 4"]
        two.write("not this one")
        for number in range(60):
            one.write(f"after {number}")
        assert await read(client, 60) == ([f"after {number}" for number in range(60)], 0)


async def test_following_a_server_that_said_nothing_is_answered_at_once() -> None:
    async with fleet(Script("one")) as running:
        assert (await reading(running))[1] == []


async def test_following_outlives_the_servers_restart_and_tells_of_it() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading(running)
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
        client, _ = await reading(running)
        running.desk.config = running.parsed(Script("one", entry={"env": {"NEW": "1"}}))
        await client.result("daemon/reload", id="reload")
        while (await told(client)).get("state") != "ready":
            pass
        running.scripts["one"].write("from the new one")
        assert (await told(client))["lines"] == ["from the new one"]


async def test_following_ends_with_an_answer_when_the_server_is_removed() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading(running)
        other = await running.client()
        running.desk.config = running.parsed(Script("two"))
        await other.result("daemon/reload")
        assert json.loads(await client.answer_line("log"))["result"] == {"server": "one", "ended": "removed"}
        assert not running.control._log_streams
        assert await client.result("ping", id="log") == {}, "the id is free"


async def test_a_flood_reaches_a_follower_as_its_newest_lines_and_a_count() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading(running)
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
        deaf, _ = await reading(running)
        client, _ = await reading(running)

        def is_cut_off() -> bool:
            for number in range(BATCH_LINES):
                one.write(f"{number} " + "x" * 8000)
            return any(isinstance(event, Rejected) and event.reason == "cut_off" for event in running.events)

        while not is_cut_off():
            await read(client, BATCH_LINES)
        assert len(running.control._log_streams) == 1
        assert await deaf.ended() == [], "the half of a line that it had room for"


@pytest.mark.parametrize("leave", ["cancel", "go"])
async def test_who_follows_may_leave_in_the_middle_of_a_batch(leave: str) -> None:
    one = Script("one")
    async with fleet(one) as running:
        client, _ = await reading(running)
        one.write("never sent")
        if leave == "cancel":
            await client.notify("notifications/cancelled", {"requestId": "log"})
            assert await client.settled() == []
        else:
            client.close()
            await running.event(ClientGone)
        assert not running.control._log_streams
        one.write("to nobody")


# --- the log's level -------------------------------------------------------------------------------------------------


async def test_a_level_holds_until_the_configured_one_changes(log: LogSettings) -> None:
    async with fleet(Script("one")) as running:
        running.desk.log = log
        client = await running.client()
        assert await client.result("daemon/log-level") == {"level": "info", "configured": "info"}
        changed = await client.result("daemon/log-level", {"level": "debug"})
        assert changed == {"level": "debug", "configured": "info"}
        assert logging.getLogger("mcp_multi_server").level == logging.DEBUG
        log.follow(LogConfig(format="json"))
        assert log.level == "debug", "a reload that says nothing new of it leaves it"
        log.follow(LogConfig(format="json", level="warning"))
        assert await client.result("daemon/log-level") == {"level": "warning", "configured": "warning"}
        assert logging.getLogger("mcp_multi_server").level == logging.WARNING


@pytest.mark.parametrize(("level", "seen_at"), [("debug", "debug"), ("error", "info"), ("info", "info")])
async def test_a_change_of_level_is_told_while_it_can_be_seen(
    log: LogSettings, monkeypatch: pytest.MonkeyPatch, level: str, seen_at: str
) -> None:
    async with fleet(Script("one")) as running:
        running.desk.log = log
        seen = list[str]()
        monkeypatch.setattr(running.desk, "tell", lambda event: seen.append(log.level))
        client = await running.client()
        await client.result("daemon/log-level", {"level": level})
        assert seen == [seen_at]


@pytest.mark.parametrize("level", ["loud", "", "DEBUG"])
async def test_a_level_that_is_none_is_refused_with_those_that_are(log: LogSettings, level: str) -> None:
    async with fleet(Script("one")) as running:
        running.desk.log = log
        error = await (await running.client()).error("daemon/log-level", {"level": level})
        assert error == {
            "code": INVALID_PARAMS,
            "message": "params.level must be one of debug, info, warning, error",
        }
        assert log.level == "info"


# --- reload and restart ----------------------------------------------------------------------------------------------


async def test_a_reload_is_answered_with_its_outcome() -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one) as running:
        client = await running.client()
        before = running.supervisor.snapshot.generation
        running.desk.config = running.parsed(two)
        result = await client.result("daemon/reload")
        assert result["outcome"] == "applied"
        assert result["problems"] == []
        assert result["generation"] > before
        assert result["plan"] == {"start": ["two"], "stop": ["one"], "replace": [], "update": [], "keep": []}
        await running.state("two", State.READY)


async def test_other_requests_are_served_while_a_reload_lasts() -> None:
    async with fleet(Script("one")) as running:
        running.desk.proceed = asyncio.Event()
        client = await running.client()
        await client.post("daemon/reload", id="slow")
        assert await client.result("ping") == {}
        running.desk.proceed.set()
        assert json.loads(await client.answer_line("slow"))["result"]["outcome"] == "applied"


@pytest.mark.parametrize("leave", ["cancel", "go"])
async def test_who_asked_for_a_reload_may_leave(leave: str) -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one) as running:
        running.desk.proceed = asyncio.Event()
        running.desk.config = running.parsed(two)
        client, other = await running.client(), await running.client()
        await client.post("daemon/reload", id="slow")
        await client.result("ping")
        if leave == "cancel":
            await client.notify("notifications/cancelled", {"requestId": "slow"})
            await client.result("ping", id=2)
        else:
            client.close()
            await running.event(ClientGone)
        running.desk.proceed.set()
        await running.state("two", State.READY)
        assert await other.result("ping") == {}
        if leave == "cancel":
            assert await client.result("ping", id="slow") == {}, "the id is free and was not answered"


async def test_a_reload_that_fails_with_a_reason_says_it() -> None:
    async with fleet(Script("one")) as running:
        running.desk.trouble = RpcError(INTERNAL_ERROR, "no luck", {"server": "one"})
        client = await running.client()
        assert await client.error("daemon/reload") == {
            "code": INTERNAL_ERROR,
            "message": "no luck",
            "data": {"server": "one"},
        }


async def test_a_bug_in_a_reload_is_answered_without_its_text() -> None:
    async with fleet(Script("one"), expected_errors=1) as running:
        running.desk.trouble = KeyError("secret")
        client = await running.client()
        assert await client.error("daemon/reload") == {
            "code": INTERNAL_ERROR,
            "message": "daemon/reload was not completed",
        }
        assert await client.result("ping") == {}


async def test_a_restart_makes_a_new_connection_and_says_how_it_ended() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await running.client()
        result = await client.result("daemon/restart", {"server": "one"})
        assert result == {"server": "one", "state": "ready", "reason": None}
        assert one.opened == 2
        one.refusal = Failure(Reason.SPAWN, "command not found", permanent=True)
        result = await client.result("daemon/restart", {"server": "one"})
        assert result == {"server": "one", "state": "ready", "reason": "command not found"}, "the old one goes on"
        one.refusal = None
        assert (await client.result("daemon/restart", {"server": "one"}))["state"] == "ready"


async def test_a_restart_of_a_server_that_a_reload_removes_is_refused() -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one) as running:
        client = await running.client()
        running.desk.config = running.parsed(two)
        kept = running.tasks.start_soon
        delayed: list[Any] = []
        running.desk.later = delayed.append  # type: ignore[assignment, method-assign]  # what was asked for, not begun yet
        await client.post("daemon/restart", {"server": "one"}, id="late")
        await client.result("ping")
        running.supervisor.apply(running.desk.config)
        kept(delayed[0])
        error = json.loads(await client.answer_line("late"))["error"]
        assert (error["code"], "no server 'one'" in error["message"]) == (INVALID_PARAMS, True)


async def test_calls_wait_while_a_server_that_must_stop_first_is_restarted() -> None:
    one = Script("one", entry={"replace": "stop-first"})
    async with fleet(one) as running:
        client, admin = await running.legacy(), await running.client()
        one.away = True
        await admin.post("daemon/restart", {"server": "one"}, id="restart")
        await one.tried(2)
        await client.post("tools/call", {"name": "echo"})
        await client.result("ping", id="ping")
        one.come()
        assert "content" in json.loads(await client.answer_line())["result"]
        assert json.loads(await admin.answer_line("restart"))["result"]["state"] == "ready"


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


async def test_every_kind_of_event_can_be_told() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await following(running)
        other = await running.client()
        await other.result("ping")
        assert (await event(client, named("client_connected")))["uid"] >= 0
        other.close()
        assert (await event(client, named("client_gone")))["reason"] == "closed"
        running.desk.config = running.parsed(one, Script("two"))
        await client.result("daemon/reload")
        collision = await event(client, named("collision"))
        assert (collision["kind"], collision["name"]) == ("tool", "echo")
        assert (collision["owner"], collision["shadowed"]) == ("one", ["two"])
        running.desk.config = running.parsed(Script("two"))
        await client.result("daemon/reload")
        assert (await event(client, named("server_removed")))["server"] == "one"
        problem = Problem("mcpServers.x.args", "must be a list", "x")
        running.gateway.spread(ConfigReloaded("partial", 7, (problem,), {"start": ("x",)}))
        told = await event(client, named("config"))
        assert (told["outcome"], told["generation"], told["changed"]) == ("partial", 7, {"start": ["x"]})
        assert told["problems"] == [{"field": problem.field, "message": problem.message, "server": "x"}]
        running.gateway.spread(DaemonWarning("config", "odd"))
        assert (await event(client, named("warning")))["message"] == "odd"
        running.gateway.spread(LogLevelChanged("debug", "info", 1, 0))
        assert (await event(client, named("log_level")))["level"] == "debug"
        running.gateway.spread(RefreshFailed("two", "late"))
        assert (await event(client, named("refresh_failed")))["message"] == "late"
        running.gateway.spread(DaemonStopping("SIGTERM"))
        assert (await event(client, named("stopping")))["why"] == "SIGTERM"


async def test_lists_that_are_read_again_and_found_the_same_are_no_event() -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        for tools, seconds in ((3, 0.1), (3, 0.2), (4, 0.1)):
            running.gateway.spread(CatalogRead("x", tools, 0, 0, 0, seconds))
        running.gateway.spread(RefreshFailed("x", "late"))
        running.gateway.spread(CatalogRead("x", 4, 0, 0, 0, 0.1))
        running.gateway.spread(DaemonStopping("test"))
        told = [(await client.notification())["params"] for _ in range(5)]
        assert [(event["event"], event.get("tools")) for event in told] == [
            ("catalog", 3),
            ("catalog", 4),
            ("refresh_failed", None),
            ("catalog", 4),
            ("stopping", None),
        ]


async def test_requests_are_no_events() -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        running.gateway.spread(RequestDone("tools/call", "one", "echo", "stdio", 0.1, ""))
        running.gateway.spread(CollisionChanged("tool", "x", "one", ()))
        assert (await client.notification())["params"]["event"] == "collision"


async def test_cancelling_ends_the_events_and_frees_the_id() -> None:
    async with fleet(Script("one")) as running:
        client = await following(running)
        assert (await client.error("daemon/events", id="events"))["code"] == INVALID_REQUEST
        await client.notify("notifications/cancelled", {"requestId": "events"})
        await client.settled()
        running.gateway.spread(DaemonStopping("test"))
        assert await client.settled() == []
        await following(running, client)
        running.gateway.spread(DaemonStopping("test"))
        assert (await client.notification())["params"]["event"] == "stopping"
        assert len(running.control._event_streams) == 1


async def test_followers_that_left_are_not_kept() -> None:
    async with fleet(Script("one")) as running:
        client = await running.client()
        for _ in range(50):
            await following(running, client)
            await client.notify("notifications/cancelled", {"requestId": "events"})
        await client.settled()
        assert not running.control._event_streams
        leaver = await following(running)
        assert len(running.control._event_streams) == 1
        leaver.close()
        await running.event(ClientGone)
        assert not running.control._event_streams


async def test_control_requests_that_wait_count_as_in_flight() -> None:
    async with fleet(
        Script("one"), daemon={"access": {"allowDescendants": True}, "limits": {"inFlight": 5}}
    ) as running:
        running.desk.proceed = asyncio.Event()
        client = await running.client()
        for id in range(5):
            await client.post("daemon/reload", id=id)
        assert "5 requests" in (await client.error("daemon/reload", id="more"))["message"]
        running.desk.proceed.set()
        assert {(await client.message())["id"] for _ in range(5)} == set(range(5))
