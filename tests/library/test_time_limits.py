"""Time limits of calls: told to the fleet, and paused while a server waits for an answer of the program."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import INTERNAL_ERROR, REQUEST_TIMEOUT

from mcp_multi_server import MultiServerClient, SyncMultiServerClient
from mcp_multi_server.core.protocol import TIMEOUT_KEY
from mcp_multi_server.library.time_limits import LATER, LONGEST, TimeLimits, told, waiting

from ..e2e.entries import fixture
from ..e2e.harness import Daemon
from .clients import SOON, Opened, both, pid_of, words

pytestmark = pytest.mark.anyio

HASTY = {"one": fixture("one", timeout=0.3)}
"""A server that gets less time than some calls of it need."""
LONGER = 0.9
ASKED: dict[str, Callable[[MultiServerClient, Any], Awaitable[object]]] = {
    "tool": lambda client, limit: client.call_tool("echo", {}, limit),
    "resource": lambda client, limit: client.read_resource("one:note://one", read_timeout_seconds=limit),
    "prompt": lambda client, limit: client.get_prompt("greet", read_timeout_seconds=limit),
}
ASKED_WITHOUT_AWAIT: dict[str, Callable[[SyncMultiServerClient, Any], object]] = {
    "tool": lambda client, limit: client.call_tool("echo", {}, timeout=limit),
    "resource": lambda client, limit: client.read_resource("one:note://one", timeout=limit),
    "prompt": lambda client, limit: client.get_prompt("greet", timeout=limit),
}


async def test_a_limit_that_is_paused_does_not_pass_and_goes_on_afterwards() -> None:
    limits = TimeLimits()
    with pytest.raises(TimeoutError), limits.within(0.05, lambda server: server == "one"):
        with limits.paused("one"), limits.paused("one"), anyio.move_on_after(0.1):
            await anyio.sleep_forever()
        await anyio.sleep_forever()


async def test_only_limits_that_concern_the_server_are_paused() -> None:
    limits = TimeLimits()
    with pytest.raises(TimeoutError), limits.within(0.05, lambda server: server == "one"), limits.paused("two"):
        await anyio.sleep_forever()


async def test_without_a_limit_nothing_is_paused() -> None:
    limits = TimeLimits()
    with limits.within(None, lambda server: True), limits.paused("one"):
        await anyio.sleep(0)


async def test_a_limit_whose_call_ended_meanwhile_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    limits = TimeLimits()
    paused = limits.paused("one")
    with limits.within(5, lambda server: True):
        paused.__enter__()
    paused.__exit__(None, None, None)
    await anyio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("given", "waited_for", "expected"),
    [
        (None, None, None),
        (2, None, 2 + LATER),
        (None, 2, 2 + LATER),
        (90, 2, 2 + LATER),
        (2, 90, 2 + LATER),
        (0, None, LATER),
        (-5, None, LATER),
        (math.inf, None, LONGEST),
        (math.inf, 2, 2 + LATER),
    ],
)
def test_the_fleet_is_told_how_long_its_answer_is_waited_for(
    given: float | None, waited_for: float | None, expected: float | None
) -> None:
    with waiting(waited_for):
        params = told({"name": "x"}, given)
    assert params.get("_meta", {}).get(TIMEOUT_KEY) == expected


def test_the_time_limit_is_told_beside_what_the_program_put_there() -> None:
    params = {"name": "x", "_meta": {"vendor.example/a": 1, TIMEOUT_KEY: 5}}
    assert told(params, None) is params
    assert told(params, 2)["_meta"] == {"vendor.example/a": 1, TIMEOUT_KEY: 2 + LATER}
    assert params["_meta"] == {"vendor.example/a": 1, TIMEOUT_KEY: 5}


# --- more or less than the timeout of a server's entry ----------------------------------------------------------------


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """A server that takes requests and answers none."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def waits(seconds: float) -> AsyncIterator[None]:
    """What is in here takes at least that long."""
    began = time.monotonic()
    with anyio.fail_after(SOON):
        yield
    assert time.monotonic() - began >= seconds


@both
async def test_a_call_may_take_longer_than_its_servers_timeout_where_the_program_says_so(opened: Opened) -> None:
    async with opened(HASTY) as client:
        for limit in (10, timedelta(seconds=10), math.inf):
            async with waits(0.5):
                assert words(await client.call_tool("slow", {"seconds": 0.5}, limit)) == "done"
        with pytest.raises(MCPError, match=r"server 'one' did not answer within 0\.3\d* s") as late:
            await client.call_tool("slow", {"seconds": 5})
        assert late.value.error.code == INTERNAL_ERROR
        with pytest.raises(MCPError, match=r"not answered within 0\.1 s") as hasty:
            await client.call_tool("slow", {"seconds": 5}, 0.1)
        assert hasty.value.error.code == REQUEST_TIMEOUT


@both
async def test_whatever_a_server_is_asked_for_the_program_meets_its_own_limit(opened: Opened) -> None:
    async with opened(HASTY) as client:
        with standing_still(await pid_of(client, "one")):
            for ask in ASKED.values():
                async with waits(LONGER):
                    with pytest.raises(MCPError, match=r"not answered within 0\.9 s") as late:
                        await ask(client, LONGER)
                assert late.value.error.code == REQUEST_TIMEOUT


@pytest.mark.parametrize("what", ASKED_WITHOUT_AWAIT)
def test_without_await_the_timeout_is_the_callers_own_limit(what: str, hasty: SyncMultiServerClient) -> None:
    pid = next(server["pid"] for server in hasty.status()["servers"])
    began = time.monotonic()
    with standing_still(pid), pytest.raises(TimeoutError, match=r"did not answer within 0\.9 s"):
        ASKED_WITHOUT_AWAIT[what](hasty, LONGER)
    assert time.monotonic() - began >= LONGER


@pytest.mark.parametrize("limit", [10, timedelta(seconds=10)], ids=["number", "timedelta"])
def test_without_await_a_call_may_take_longer(limit: float | timedelta, hasty: SyncMultiServerClient) -> None:
    assert words(hasty.call_tool("slow", {"seconds": 0.5}, timeout=limit)) == "done"


@pytest.fixture(scope="module", params=["own", "daemon"])
def hasty(request: pytest.FixtureRequest) -> Iterator[SyncMultiServerClient]:
    if request.param == "own":
        with SyncMultiServerClient.from_dict({"mcpServers": HASTY}) as client:
            yield client
        return
    with Daemon(HASTY) as daemon, SyncMultiServerClient.connect(str(daemon.socket)) as client:
        yield client
