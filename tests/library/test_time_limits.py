"""Time limits of calls: told to the fleet, and paused while a server waits for an answer of the program."""

from __future__ import annotations

import logging
import math

import anyio
import pytest

from mcp_multi_server.core.protocol import TIMEOUT_KEY
from mcp_multi_server.library.time_limits import LATER, LONGEST, TimeLimits, told, waiting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
