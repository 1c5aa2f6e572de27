"""A server that answers nothing because it works: what excuses it, for how long, and what takes the excuse away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import anyio
import pytest

from mcp_multi_server.core.events import Probed, StateChanged
from mcp_multi_server.core.lifecycle import BUSY, Reason, State

from ..scripted import Json, Scripted, legacy, silence, tools
from .one_server import Call, One, running

pytestmark = pytest.mark.anyio

TIME = 60.0
"""Seconds that the entry gives a call."""
PATIENCE = 120.0
SOON = 6.0
"""Seconds that a probe under way may put off what is due."""


def now() -> float:
    return asyncio.get_running_loop().time()


def deaf() -> Scripted:
    """A server that answers nothing once it is ready, then one that does."""
    listings = [tools("t")]

    def listed(request: Json) -> Json | None:
        return listings.pop()(request) if listings else None

    return Scripted(legacy(ping=silence, tools_list=listed), legacy())


def call(one: One, *, within: float = TIME) -> tuple[Call, int]:
    """A call whose client waits so long, and its id."""
    live = one.server.live
    assert live is not None
    made = Call(one.server)
    made.deadline = now() + within
    made.silent_until = now() + max(TIME, within)
    live.send(id := live.pending.add(made), "tools/call", b"{}")
    return made, id


def cancel(one: One, id: int) -> None:
    live = one.server.live
    assert live is not None
    live.cancel(id, "not wanted any more")


async def ended(one: One) -> None:
    """Wait until its session was ended."""
    await one.log.until(lambda: State.BACKOFF in one.log.states(), within=4000)


async def given_up(one: One, opener: Scripted) -> int:
    """A call whose client has given it up, as its time was over; its id."""
    made, id = call(one)
    await made.done.wait()
    assert made.told == ["expired"]
    assert one.state is State.DEGRADED
    assert json.loads(opener.server.of("notifications/cancelled")[0])["params"]["requestId"] == id
    return id


async def test_a_call_whose_time_is_up_makes_its_server_degraded_for_being_busy() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        await given_up(one, opener)
        told = [event.failure for event in one.log.of(StateChanged) if event.new is State.DEGRADED]
        assert told == [BUSY]


async def test_a_busy_server_is_not_ended_and_its_late_answer_makes_it_ready_at_once() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        id = await given_up(one, opener)
        await anyio.sleep(PATIENCE - 1)
        assert one.state is State.DEGRADED
        assert not any(probed.good for probed in one.log.of(Probed))
        opener.server.answer({"id": id}, result={})
        assert one.log.states()[-1] is State.READY
        assert len(opener.scripts) == 1


async def test_a_late_answer_to_a_probe_does_as_well() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        await given_up(one, opener)
        probe = await opener.server.request("ping")
        await one.log.until(lambda: one.log.of(Probed))
        opener.server.answer(probe, result={})
        assert one.state is State.READY


async def test_a_busy_server_that_answers_nothing_for_its_patience_is_replaced() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        await given_up(one, opener)
        since = now()
        await ended(one)
        assert PATIENCE <= now() - since <= PATIENCE + SOON
        assert one.failure.reason is Reason.HANG
        assert one.failure.message.startswith("answered nothing for 12")


@pytest.mark.parametrize("hang", [5, 3600])
async def test_its_patience_is_what_the_entry_says(hang: float) -> None:
    opener = deaf()
    async with running(opener, hang=hang) as one:
        await one.until(State.READY)
        await given_up(one, opener)
        since = now()
        await ended(one)
        assert hang <= now() - since <= hang + SOON


async def test_with_hang_off_a_busy_server_is_never_replaced_and_is_not_flooded_with_probes() -> None:
    opener = deaf()
    async with running(opener, hang="off") as one:
        await one.until(State.READY)
        await given_up(one, opener)
        for _ in range(60):
            waiting, _ = call(one)
            await waiting.done.wait()
        assert one.state is State.DEGRADED
        assert len(opener.server.of("ping")) <= 4 * 60 + 60


async def test_a_call_that_waits_its_whole_time_for_a_busy_server_has_it_replaced() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        await given_up(one, opener)
        await anyio.sleep(1)
        waiting, _ = call(one)
        await waiting.done.wait()
        assert waiting.told == ["expired"]
        since = now()
        await ended(one)
        assert now() == since
        assert one.failure.reason is Reason.HANG
        assert one.failure.message.endswith("while another call waited for it")


async def test_calls_that_came_before_its_first_one_was_given_up_have_not_waited_for_it() -> None:
    """A host makes several calls at once, and a server that does one at a time has all of them."""
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(10):
            call(one)
            await anyio.sleep(5)
        await one.until(State.DEGRADED)
        since = now()
        await ended(one)
        assert now() - since >= PATIENCE


async def test_a_client_in_a_hurry_says_nothing_about_the_server() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        since = now()
        for _ in range(20):
            hasty, _ = call(one, within=1)
            await hasty.done.wait()
        assert one.state is State.READY
        await one.until(State.DEGRADED)
        assert now() - since >= TIME
        assert [event.failure for event in one.log.of(StateChanged)][-1] == BUSY


async def test_a_client_in_a_hurry_cannot_end_the_call_of_a_patient_one() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        patient, id = call(one, within=3000)
        for _ in range(45):
            hasty, _ = call(one)
            await hasty.done.wait()
        assert patient.told == []
        opener.server.answer({"id": id}, result={})
        assert patient.told == ["{}"]
        assert len(opener.scripts) == 1


async def after_a_cancellation(one: One, opener: Scripted) -> None:
    _, id = call(one)
    await anyio.sleep(1)
    cancel(one, id)


async def after_progress(one: One, opener: Scripted) -> None:
    made, id = call(one)
    await anyio.sleep(20)
    params = {"progressToken": id, "progress": 1}
    opener.server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    await made.done.wait()


@pytest.mark.parametrize("begin", [after_a_cancellation, after_progress])
async def test_a_call_that_was_given_up_in_another_way_excuses_its_server_too(
    begin: Callable[[One, Scripted], Awaitable[None]],
) -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        since = now()
        await begin(one, opener)
        await one.until(State.DEGRADED)
        assert now() - since >= TIME, "it was not probed in the time that the call has"
        assert [event.failure for event in one.log.of(StateChanged)][-1] == BUSY
        await ended(one)
        assert now() - since >= TIME + PATIENCE


async def test_progress_of_a_call_that_was_given_up_shows_that_it_is_worked_on() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        id = await given_up(one, opener)
        params = {"progressToken": id, "progress": 1}
        for _ in range(20):
            await anyio.sleep(PATIENCE / 2)
            opener.server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        assert len(opener.scripts) == 1
        since = now()
        await ended(one)
        assert now() - since >= PATIENCE - SOON


async def test_a_server_that_was_silent_before_is_not_excused_by_the_calls_that_it_gets() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        await one.until(State.DEGRADED)
        since = now()
        call(one)
        await ended(one)
        assert now() - since <= 20
        assert one.failure.message == "missed 3 probes in a row"


async def test_a_server_that_answered_since_is_not_excused_by_an_earlier_call() -> None:
    opener = deaf()
    async with running(opener) as one:
        await one.until(State.READY)
        id = await given_up(one, opener)
        await anyio.sleep(1)
        opener.server.answer({"id": id}, result={})
        since = now()
        await ended(one)
        assert now() - since <= 40
        assert one.failure.message == "missed 3 probes in a row"


async def test_a_server_in_doubt_is_excused_for_a_call_too() -> None:
    """Five lost requests made it degraded, and then it works: it is probed, and need not answer."""
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(5):
            one.call()
            opener.server.receiver.failed(opener.server.sent[-1]["id"], BUSY)
        assert one.state is State.DEGRADED
        opener.server.answers["ping"] = silence
        made, id = call(one)
        await anyio.sleep(TIME - 1)
        opener.server.answer({"id": id}, result={})
        assert made.told == ["{}"]
        assert len(opener.scripts) == 1
