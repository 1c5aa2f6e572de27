"""What the observer that logs writes, and what it keeps back: a flood hides nothing but itself."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcp_multi_server.core.events import (
    CatalogRead,
    DaemonStopping,
    Event,
    InvalidLine,
    Probed,
    Rejected,
    RequestDone,
    ServerRemoved,
    Stderr,
)
from mcp_multi_server.telemetry.describe import describe
from mcp_multi_server.telemetry.log import LogObserver
from mcp_multi_server.telemetry.log_lines import configure
from tests.logs import Log


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("level", "logged"), [("debug", ["request.done"]), ("info", [])])
def test_requests_are_logged_at_debug_only(pipe: Log, level: Any, logged: list[str]) -> None:
    configure(level, "json", fd=pipe.writer)
    LogObserver()(RequestDone("tools/call", "git", "log", "stdio", 0.5, ""))
    assert pipe.events() == logged


def test_a_catalog_read_again_and_found_the_same_is_logged_at_debug_only(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver()
    for is_news in (True, False):
        telemetry(CatalogRead("git", 3, 0, 0, 0, 0.1, is_news=is_news))
    assert [line.get("tools") for line in pipe.lines()] == [3]


@pytest.mark.parametrize(
    ("event", "rate"), [(Stderr("git", 1, "x"), 20), (InvalidLine("git", "x"), 5), (Rejected("x", 1), 5)]
)
def test_a_flood_is_cut_to_a_burst_and_a_rate(pipe: Log, event: Event, rate: int) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(1000):
        telemetry(event)
    assert len(pipe.lines()) == 50
    clock.now += 1.0
    for _ in range(1000):
        telemetry(event)
    suppressed, *rest = pipe.lines()
    assert (suppressed["event"], suppressed["kind"], suppressed["lines"]) == (
        "log.suppressed",
        describe(event).event,
        950,
    )
    assert len(rest) == rate


def test_lines_from_before_a_server_said_its_era_cost_the_later_ones_nothing(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver()
    for number in range(200):
        telemetry(Stderr("git", 1, f"early {number}", is_early=True))
    telemetry(Stderr("git", 1, "later"))
    assert [line["line"] for line in pipe.lines()] == ["later"]


def test_a_flood_that_goes_on_stays_shut_for_a_second(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    pipe.text()
    clock.now += 0.5
    telemetry(Stderr("git", 1, "x"))
    assert pipe.events() == []
    clock.now += 0.5
    telemetry(Stderr("git", 1, "x"))
    assert pipe.events() == ["log.suppressed", "server.stderr"]


@pytest.mark.parametrize("last", [ServerRemoved("git"), DaemonStopping("SIGTERM")])
def test_what_was_suppressed_is_told_at_the_end(pipe: Log, last: Event) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver(clock=Clock())
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    telemetry(last)
    *_, suppressed, final = pipe.lines()
    assert (suppressed["event"], suppressed["lines"]) == ("log.suppressed", 10)
    assert final["event"] == describe(last).event


def test_any_later_event_tells_what_an_ended_flood_cost(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    clock.now += 15.0
    telemetry(Probed("other", True))
    assert pipe.events()[-1] == "log.suppressed"


@pytest.mark.anyio
async def test_what_a_flood_cost_is_told_also_where_nothing_else_happens(
    pipe: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_multi_server.telemetry.log.TELL_SUPPRESSED_EVERY", 0.01)
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(telemetry.run)
        for flood in (60, 1000):
            for _ in range(flood):
                telemetry(Stderr("git", 1, "x"))
            clock.now += 10.0
            with anyio.fail_after(10):
                while "log.suppressed" not in pipe.events():
                    await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()


def test_a_flood_of_one_server_hides_no_line_of_another(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver(clock=Clock())
    for _ in range(200):
        telemetry(Stderr("loud", 1, "x"))
    telemetry(Stderr("quiet", 2, "I am here"))
    assert pipe.lines()[-1]["server"] == "quiet"
