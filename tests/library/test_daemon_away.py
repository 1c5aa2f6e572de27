"""An attached client outlives its daemon: killed, stopped, replaced or mute, and says what is true meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import REQUEST_TIMEOUT, LoggingMessageNotificationParams

from mcp_multi_server import MultiServerClient, SyncMultiServerClient
from mcp_multi_server.core.index import STATE_KEY

from ..e2e.entries import fixture
from ..e2e.harness import Daemon
from ..polling import eventually, until
from .clients import (
    SOON,
    Held,
    Opened,
    assert_nothing_more_than,
    both,
    in_thread,
    journalled,
    states,
    structured,
    words,
)

pytestmark = pytest.mark.anyio

ONE = {"one": fixture("one")}
LONG = {"seconds": 30}
KILLED = [signal.SIGTERM, signal.SIGKILL]
LOST = {"reason": "daemon_lost", "sent": True}
AWAY = {"reason": "daemon_away", "sent": False}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon is given up after half a second without a sign of life."""
    monkeypatch.setattr("mcp_multi_server.library.session.LOOK_EVERY", 0.05)


@pytest.fixture
def short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_multi_server.library.connection.HOLD", 0.2)


def end(daemon: Daemon, how: signal.Signals) -> None:
    """End the daemon; nothing else of the process runs meanwhile."""
    daemon.signal(how)
    daemon.wait()


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """A daemon that lives and does nothing."""
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


def data_of(failed: pytest.ExceptionInfo[MCPError]) -> Any:
    return failed.value.error.data


def marks(client: MultiServerClient) -> set[str | None]:
    """What the listed tools and resources say of the state of their servers."""
    metas = [tool.meta for tool in client.list_tools().tools] + [one.meta for one in client.list_resources().resources]
    return {(meta or {}).get(STATE_KEY) for meta in metas}


def of_daemon(events: list[Mapping[str, Any]]) -> list[bool]:
    """What was told of the daemon: that it went, that it came back."""
    return [event["connected"] for event in events if event["event"] == "daemon"]


# --- it comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", KILLED)
async def test_a_daemon_that_is_restarted_is_not_noticed(how: signal.Signals) -> None:
    with Daemon({"one": fixture("one", "--delay", 0.5), "two": fixture("two", "--offers", "prompts")}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            await in_thread(lambda: end(daemon, how))
            calls = [asyncio.create_task(client.call_tool("echo", server_name=name)) for name in (None, "one")]
            prompt = asyncio.create_task(client.get_prompt("two__greet"))
            await in_thread(daemon.start)
            said = await asyncio.wait_for(asyncio.gather(*calls), SOON)
            assert [structured(one)["server"] for one in said] == ["one", "one"]
            assert (await asyncio.wait_for(prompt, SOON)).messages
            await until(lambda: states(client) == {"one": "ready", "two": "ready"})
            await client.call_tool("one__grow", {"kind": "prompts"})
            await until(lambda: "grown_0" in client.prompt_to_server)


async def test_a_daemon_that_is_restarted_is_told_again_which_log_messages_are_wanted() -> None:
    told = []

    async def take(params: LoggingMessageNotificationParams) -> None:
        told.append(params.data)

    logger = logging.getLogger("mcp_multi_server")
    level = logger.level
    with Daemon({"one": fixture("one", "--era", "legacy")}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket), logging_callback=take) as client:
            try:
                await client.set_logging_level("info")
            finally:
                logger.setLevel(level)
            await in_thread(lambda: end(daemon, signal.SIGKILL))
            await in_thread(daemon.start)
            await client.call_tool("log", {"level": "info", "data": "after"})
            await until(lambda: told == ["after"])


@pytest.mark.parametrize("how", KILLED)
async def test_a_call_that_was_not_sent_is_made_once_at_the_next_daemon(how: signal.Signals, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Daemon({"one": fixture("one", "--journal", journal)}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            await client.call_tool("echo")
            end(daemon, how)  # the loop stands still meanwhile, so the client has not seen the end of its session
            daemon.start()
            assert structured(await client.call_tool("echo"))["server"] == "one"
    assert len([line for line in journalled(journal) if line.startswith("call echo")]) == 2


async def test_a_daemon_with_other_servers_is_followed_and_both_changes_are_told() -> None:
    events: list[Mapping[str, Any]] = []
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            client.on_change(events.append)
            await in_thread(lambda: end(daemon, signal.SIGTERM))
            await until(lambda: of_daemon(events) == [False])
            assert events[-1]["reason"] == client.status()["away"]["reason"]
            daemon.rewrite({"two": fixture("two")})
            await in_thread(daemon.start)
            await until(lambda: client.tool_to_server.get("echo") == "two")
            assert of_daemon(events) == [False, True]
            assert list(client.capabilities) == ["two"]
            assert client.status()["connected"]


# --- it is away ------------------------------------------------------------------------------------------------------


async def test_calls_that_were_under_way_at_a_daemon_that_died_fail_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Daemon({"one": fixture("one", "--journal", journal)}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            call = asyncio.create_task(client.call_tool("slow", LONG))
            await until(lambda: "call slow " in journalled(journal))
            daemon.signal(signal.SIGKILL)
            with pytest.raises(MCPError, match=r"the connection to the daemon: .* may or may not") as failed:
                await asyncio.wait_for(call, SOON)
            assert data_of(failed) == LOST
            assert not client.status()["connected"], "who learns that a call was lost sees that the daemon is away"
            await in_thread(daemon.wait)
            await in_thread(daemon.start)
            assert structured(await client.call_tool("echo"))["server"] == "one"


async def test_without_a_daemon_nothing_is_said_to_be_ready_and_names_stay_listed() -> None:
    with Daemon({**ONE, "off": fixture("off", disabled=True)}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            before = client.status()
            listed = {tool.name for tool in client.list_tools().tools}
            assert (before["connected"], before["away"]) == (True, None)
            await in_thread(lambda: end(daemon, signal.SIGKILL))
            await until(lambda: not client.status()["connected"])
            status = client.status()
            assert states(client) == {"one": "unknown", "off": "disabled"}
            assert status["away"].keys() == {"since", "reason"}
            assert (status["pid"], status["servers"][0]["pid"], status["servers"][0]["stale"]) == (None, None, True)
            assert status["servers"][0].keys() == before["servers"][0].keys()
            assert {tool.name for tool in client.list_tools().tools} == listed == client.tool_to_server.keys()
            assert marks(client) == {"unknown"}
            await in_thread(daemon.start)
            await until(lambda: states(client)["one"] == "ready")
            await until(lambda: marks(client) == {None})


async def test_a_daemon_that_stays_away_is_an_error_in_time_that_says_that_nothing_was_sent(short_hold: None) -> None:
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            await in_thread(lambda: end(daemon, signal.SIGKILL))
            with anyio.fail_after(SOON):
                # More than are sent at a time: they wait side by side, and not in turns.
                calls = [client.call_tool("echo") for _ in range(500)]
                began = time.monotonic()
                failures = await asyncio.gather(*calls, return_exceptions=True)
                assert time.monotonic() - began < 5
                said = rf"cannot be reached at {daemon.socket} \(Connection refused\); the request was not sent"
                for failure in failures:
                    assert isinstance(failure, MCPError)
                    assert failure.error.data == AWAY
                with pytest.raises(MCPError, match=said):
                    await client.read_resource("one:note://one")
                with pytest.raises(MCPError, match=r"not answered within 0\.1 s: .*; the request was not sent") as late:
                    await client.call_tool("echo", {}, 0.1)
                assert (late.value.error.code, data_of(late)) == (REQUEST_TIMEOUT, AWAY)
                with pytest.raises(MCPError, match="was not sent"):  # the next daemon may have it
                    await client.call_tool("brand new", server_name="one")
        await in_thread(daemon.start)


async def test_closing_ends_calls_that_wait_for_a_daemon() -> None:
    with Daemon(ONE) as daemon:
        before = Held()
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            await in_thread(lambda: end(daemon, signal.SIGKILL))
            call = asyncio.create_task(client.call_tool("echo"))
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(MCPError, match="the client is closed; the request was not sent") as failed:
            await asyncio.wait_for(call, SOON)
        assert data_of(failed) == {"reason": "closed", "sent": False}
        del call, failed
        await assert_nothing_more_than(before)
        await in_thread(daemon.start)


@both
async def test_a_call_under_way_when_the_client_is_closed_is_told_so(opened: Opened) -> None:
    async with opened(ONE) as client:
        call = asyncio.create_task(client.call_tool("slow", LONG))
        await client.call_tool("echo")  # it is answered while the other one is not
        await client.aclose()
        with pytest.raises(MCPError, match="the client is closed; the request may or may not") as failed:
            await asyncio.wait_for(call, SOON)
        assert data_of(failed) == {"reason": "closed", "sent": True}
        assert client.status()["away"]["reason"] == "the client is closed"
        assert states(client) == {"one": "unknown"}


# --- it is mute ------------------------------------------------------------------------------------------------------


async def test_a_call_without_a_limit_ends_in_time_if_the_daemon_answers_nothing_any_more(impatient: None) -> None:
    events: list[Mapping[str, Any]] = []
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            client.on_change(events.append)
            with stopped(daemon), anyio.fail_after(SOON):
                with pytest.raises(
                    MCPError, match=r"has not answered anything for 0\.5 s; .* may or may not"
                ) as failed:
                    await client.call_tool("echo")
                assert data_of(failed) == LOST
                assert (of_daemon(events), states(client)) == ([False], {"one": "unknown"})
                held = asyncio.create_task(client.call_tool("echo"))
                await anyio.wait_all_tasks_blocked()
            assert structured(await asyncio.wait_for(held, SOON))["server"] == "one"
            assert of_daemon(events) == [False, True]


async def test_a_daemon_that_goes_mute_while_nothing_is_asked_is_noticed(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_multi_server.library.session.QUIET", 0.1)
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            with stopped(daemon):
                await until(lambda: not client.status()["connected"])
            await until(lambda: client.status()["connected"])


async def test_a_server_that_takes_its_time_is_no_mute_daemon(impatient: None) -> None:
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            events: list[Mapping[str, Any]] = []
            client.on_change(events.append)
            assert not (await client.call_tool("slow", {"seconds": 1.2})).is_error
            time.sleep(1)  # nobody can hear the daemon while the program keeps its loop busy
            assert not (await client.call_tool("slow", {"seconds": 0.2})).is_error
            assert of_daemon(events) == []


async def test_connecting_to_a_mute_daemon_fails_in_time() -> None:
    with Daemon(ONE) as daemon, stopped(daemon):
        before = Held()
        with anyio.fail_after(SOON), pytest.raises(ConnectionError, match=r"did not answer within 0\.3 s"):
            await MultiServerClient.connect(str(daemon.socket), timeout=0.3).__aenter__()
        await assert_nothing_more_than(before)


async def test_connecting_where_no_connection_is_taken_fails_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)  # the one place there is
        with anyio.fail_after(SOON), pytest.raises(ConnectionError, match=r"did not answer within 0\.2 s"):
            await MultiServerClient.connect(path, timeout=0.2).__aenter__()


async def test_a_client_that_is_turned_away_is_told_why(tmp_path: Path) -> None:
    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        refusal = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32600, "message": "no"}}
        writer.write(json.dumps(refusal).encode() + b"\n")
        writer.close()

    path = str(tmp_path / "mcp.sock")
    async with await asyncio.start_unix_server(turn_away, path):
        with anyio.fail_after(SOON), pytest.raises(ConnectionError, match="the daemon turned this client away: no"):
            await MultiServerClient.connect(path).__aenter__()


async def test_leaving_takes_no_time_whatever_the_daemon_does(impatient: None) -> None:
    with Daemon(ONE) as daemon:
        before = Held()
        client = MultiServerClient.connect(str(daemon.socket))
        async with client:
            with stopped(daemon):
                with pytest.raises(MCPError):
                    await client.call_tool("echo")
                await anyio.sleep(0.5)  # it is dialling by now, and the daemon does not answer
                with anyio.fail_after(1):
                    await client.aclose()
                await assert_nothing_more_than(before)
                entering = asyncio.create_task(client.__aenter__())
                await anyio.sleep(0.1)
                with anyio.fail_after(1):
                    await client.aclose()
                    with pytest.raises(ConnectionError, match="closed while it connected"):
                        await entering
            del entering
            await assert_nothing_more_than(before)


# --- without await ---------------------------------------------------------------------------------------------------


def test_without_await_a_mute_daemon_and_one_that_is_away_are_errors_in_time(impatient: None, short_hold: None) -> None:
    with Daemon(ONE) as daemon:
        client = SyncMultiServerClient.connect(str(daemon.socket))
        with stopped(daemon):
            with pytest.raises(MCPError, match="has not answered anything") as failed:
                client.call_tool("echo", timeout=SOON)
            assert data_of(failed) == LOST
            assert not client.status()["connected"]
            with pytest.raises(TimeoutError, match=r"did not answer within 0\.1 s"):
                client.call_tool("echo", timeout=0.1)
            with pytest.raises(ConnectionError, match=r"did not answer within 0\.2 s"):
                SyncMultiServerClient.connect(str(daemon.socket), timeout=0.2)
        end(daemon, signal.SIGKILL)
        with pytest.raises(MCPError, match="was not sent") as unsent:
            client.call_tool("echo", timeout=SOON)
        assert data_of(unsent) == AWAY
        daemon.start()
        eventually(lambda: client.status()["connected"])
        assert structured(client.call_tool("echo", timeout=SOON))["server"] == "one"
        end(daemon, signal.SIGKILL)
        began = time.monotonic()
        client.shutdown()
        assert time.monotonic() - began < 1
        daemon.start()


def test_without_await_a_daemon_that_is_replaced_under_load_loses_nothing_that_was_not_sent(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    over = threading.Event()
    with (
        Daemon({"one": fixture("one", "--journal", journal)}) as daemon,
        SyncMultiServerClient.connect(str(daemon.socket)) as client,
        ThreadPoolExecutor(4) as threads,
    ):

        def calling(thread: int) -> list[tuple[str, Any]]:
            """Until told to stop: each call's tag, and the data of the error that it ended with."""
            made: list[tuple[str, Any]] = []
            while not over.is_set():
                tag = f"{thread}-{len(made)}"
                try:
                    assert structured(client.call_tool("echo", {"tag": tag}, timeout=20))
                    made.append((tag, None))
                except MCPError as failed:
                    made.append((tag, failed.error.data))
            return made

        callers = [threads.submit(calling, thread) for thread in range(4)]
        for how in KILLED:
            end(daemon, how)
            daemon.start()
            eventually(lambda: client.status()["connected"])
        over.set()
        made = [call for caller in callers for call in caller.result(30)]
        carried_out = Counter(line.split()[2] for line in journalled(journal) if line.startswith("call echo"))
        assert set(carried_out.values()) == {1}, "a call was made twice"
        assert {tag for tag, data in made if data is None} <= carried_out.keys()
        lost = [data for _, data in made if data is not None]
        assert all(data == LOST or data.get("server") == "one" for data in lost), lost
        assert len(lost) <= 2 * 4, "each thread can lose one call each time"
        assert words(client.call_tool("pid"))
