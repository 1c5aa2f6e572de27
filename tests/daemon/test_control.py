"""The daemon's own methods: what they answer, whom they obey, and that whoever asks may leave at any time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_multi_server.core.config.config import Config
from mcp_multi_server.core.config.settings import LogConfig
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RpcError
from mcp_multi_server.core.events import ClientGone, Event, LogLevelChanged
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.daemon import config_file
from mcp_multi_server.telemetry.log_settings import LogSettings
from tests.logs import log_as_it_was

from ..client import PATIENCE, Message
from ..fleet import FOREIGNER, Script, fleet

pytestmark = pytest.mark.anyio

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
    async with fleet(Script("one"), log=log) as running:
        client = await running.client()
        assert isinstance(await client.result(method, params), dict)
        legacy = await running.legacy()
        assert isinstance(await legacy.result(method, params), dict)


@pytest.mark.parametrize(("method", "params"), PRIVILEGED)
async def test_what_changes_or_reveals_things_is_for_admins(method: str, params: Message) -> None:
    async with fleet(Script("one")) as running:
        client = await running.foreign()
        error = await client.error(method, params)
        assert error["code"] == INVALID_REQUEST
        assert "daemon.access.admins" in error["message"]
        assert running.scripts["one"].opened == 1
        assert await client.result("daemon/status"), "reading is for everybody"


async def test_an_admin_by_config_may_do_it_too() -> None:
    access = {"allowDescendants": True, "admins": [FOREIGNER.uid]}
    async with fleet(Script("one"), daemon={"access": access}) as running:
        assert (await (await running.foreign()).result("daemon/reload"))["outcome"] == "unchanged"


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


# --- the log's level -------------------------------------------------------------------------------------------------


async def test_a_level_holds_until_the_configured_one_changes(log: LogSettings) -> None:
    async with fleet(Script("one"), log=log) as running:
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
async def test_a_change_of_level_is_told_while_it_can_be_seen(log: LogSettings, level: str, seen_at: str) -> None:
    async with fleet(Script("one"), log=log) as running:
        seen = dict[type[Event], str]()

        def look(event: Event) -> None:
            seen[type(event)] = log.level

        running.parts.events.add(look)
        client = await running.client()
        await client.result("daemon/log-level", {"level": level})
        assert seen[LogLevelChanged] == seen_at


@pytest.mark.parametrize("level", ["loud", "", "DEBUG"])
async def test_a_level_that_is_none_is_refused_with_those_that_are(log: LogSettings, level: str) -> None:
    async with fleet(Script("one"), log=log) as running:
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
        running.write(two)
        result = await client.result("daemon/reload")
        assert result["outcome"] == "applied"
        assert result["problems"] == []
        assert result["generation"] > before
        assert result["plan"] == {"start": ["two"], "stop": ["one"], "replace": [], "update": [], "keep": []}
        await running.state("two", State.READY)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Reading the config file takes until this is set."""
    load, go_on = config_file.load, threading.Event()

    def wait_and_load(path: str) -> Config:
        assert go_on.wait(PATIENCE)
        return load(path)

    monkeypatch.setattr(config_file, "load", wait_and_load)
    yield go_on
    go_on.set()


async def test_other_requests_are_served_while_a_reload_lasts(reading: threading.Event) -> None:
    async with fleet(Script("one")) as running:
        client = await running.client()
        await client.post("daemon/reload", id="slow")
        assert await client.result("ping") == {}
        reading.set()
        assert json.loads(await client.answer_line("slow"))["result"]["outcome"] == "unchanged"


@pytest.mark.parametrize("leave", ["cancel", "go"])
async def test_who_asked_for_a_reload_may_leave(reading: threading.Event, leave: str) -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one) as running:
        running.write(two)
        client, other = await running.client(), await running.client()
        await client.post("daemon/reload", id="slow")
        await client.result("ping")
        if leave == "cancel":
            await client.notify("notifications/cancelled", {"requestId": "slow"})
            await client.result("ping", id=2)
        else:
            client.close()
            await running.event(ClientGone)
        reading.set()
        await running.state("two", State.READY)
        assert await other.result("ping") == {}
        if leave == "cancel":
            assert await client.result("ping", id="slow") == {}, "the id is free and was not answered"


async def test_a_reload_of_what_was_no_file_says_so() -> None:
    async with fleet(Script("one")) as running:
        running.parts.reloads.path = ""
        result = await (await running.client()).result("daemon/reload")
        assert result["outcome"] == "rejected"
        assert [problem["message"] for problem in result["problems"]] == ["there is no config file to read"]


async def test_a_reload_that_fails_with_a_reason_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(Script("one")) as running:

        async def fail() -> None:
            raise RpcError(INTERNAL_ERROR, "no luck", {"server": "one"})

        monkeypatch.setattr(running.parts.reloads, "reload", fail)
        client = await running.client()
        assert await client.error("daemon/reload") == {
            "code": INTERNAL_ERROR,
            "message": "no luck",
            "data": {"server": "one"},
        }


async def test_a_bug_in_a_reload_is_answered_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(Script("one"), expected_errors=1) as running:

        def fail(path: str) -> Config:
            raise KeyError("secret")

        monkeypatch.setattr(config_file, "load", fail)
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


async def test_a_restart_of_a_server_that_a_reload_removes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Script("one"), Script("two", tools=["other"])
    async with fleet(one) as running:
        client = await running.client()
        running.write(two)
        tasks, delayed = running.control._tasks, list[tuple[Any, ...]]()
        assert tasks is not None
        start = tasks.start_soon
        with monkeypatch.context() as patched:  # what was asked for is not begun yet
            patched.setattr(tasks, "start_soon", lambda *work: delayed.append(work))
            await client.post("daemon/restart", {"server": "one"}, id="late")
            await client.result("ping")
        await client.result("daemon/reload")
        start(*delayed[0])
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


async def test_control_requests_that_wait_count_as_in_flight(reading: threading.Event) -> None:
    async with fleet(
        Script("one"), daemon={"access": {"allowDescendants": True}, "limits": {"inFlight": 5}}
    ) as running:
        client = await running.client()
        for id in range(5):
            await client.post("daemon/reload", id=id)
        assert "5 requests" in (await client.error("daemon/reload", id="more"))["message"]
        reading.set()
        assert {(await client.message())["id"] for _ in range(5)} == set(range(5))
