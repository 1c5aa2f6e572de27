"""One server: its task, seen through what it tells."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.events import CatalogRead, InternalError, InvalidLine, StateChanged
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State, exit_failure
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers import server as module
from mcp_multi_server.servers.refresh import Refresher

from ..scripted import GONE, LEGACY, SOON, TOOLS, TOOLS_CHANGED, Opening, Scripted, legacy, modern, result, silence
from .one_server import Call, running

pytestmark = pytest.mark.anyio

# --- becoming ready ---------------------------------------------------------------------------------------------------


async def test_a_server_is_ready_once_its_lists_are_read() -> None:
    async with running(Scripted(legacy())) as one:
        assert (one.state, one.server.live, one.server.pid) == (State.CONNECTING, None, None)
        assert await one.attempt() is State.READY
        assert one.names() == ["t"]
        assert one.server.live is not None
        assert one.server.negotiated is not None
        assert one.server.negotiated.era is Era.LEGACY
        assert not one.server.stale
        assert [type(event) for event in one.log.events] == [CatalogRead, StateChanged]
        assert one.published == 1


async def test_a_server_that_dies_of_the_probe_is_initialized_in_the_same_attempt_and_never_probed_again() -> None:
    opener = Scripted(legacy(server_discover=silence), legacy())
    async with running(opener) as one:
        await one.log.until(lambda: opener.scripts)
        await opener.server.request("server/discover")
        opener.server.die()
        assert await one.attempt() is State.READY
        assert one.log.states() == [State.READY]
        assert opener.server.methods()[0] == "initialize"
        opener.server.die()
        await one.ready(2)
        assert len(opener.scripts) == 3
        assert opener.server.methods()[0] == "initialize"


async def test_a_death_on_the_probe_that_says_it_never_ran_is_believed() -> None:
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener) as one:
        await one.log.until(lambda: opener.scripts)
        await opener.server.request("server/discover")
        opener.server.die(exit_failure(127))
        assert await one.attempt() is State.PARKED
        assert len(opener.scripts) == 1


async def test_a_server_that_ignored_the_probe_may_end_like_any_other() -> None:
    """What it said to the probe, or did not, explains no end that comes after it was ready."""
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener) as one:
        assert await one.attempt() is State.READY
        opener.server.die()
        await one.ready(2)
        assert one.log.states() == [State.READY, State.BACKOFF, State.CONNECTING, State.READY]
        assert len(opener.scripts) == 2
        assert opener.server.methods()[0] == "initialize"


async def test_a_verdict_that_is_no_longer_true_is_found_out_anew() -> None:
    opener = Scripted(modern(), legacy(), legacy())
    async with running(opener) as one:
        assert await one.attempt() is State.READY
        opener.server.die()
        await one.ready(2)
        assert one.server.negotiated is not None
        assert one.server.negotiated.era is Era.LEGACY
        assert [script.methods()[0] for script in opener.scripts] == ["server/discover"] * 3


@pytest.mark.parametrize(("protocol", "first"), [("legacy", "initialize"), ("modern", "server/discover")])
async def test_a_forced_era_is_the_only_one_asked_for(protocol: str, first: str) -> None:
    opener = Scripted(legacy() if protocol == "modern" else modern())
    async with running(opener, protocol=protocol) as one:
        await one.ended()
        assert opener.scripts[0].methods() == [first]
        assert one.failure.reason is Reason.PROTOCOL


async def test_an_unusable_protocol_version_parks() -> None:
    async with running(Scripted(legacy(initialize=result({"protocolVersion": "1999-01-01"})))) as one:
        assert await one.attempt() is State.PARKED
        assert one.failure.reason is Reason.PROTOCOL
        next_attempt = one.server.status.next_attempt
        assert next_attempt is not None
        assert 200 < next_attempt - one.server.status.since < 400


@pytest.mark.parametrize("opening", [None, legacy(initialize=silence), legacy(tools_list=silence)])
@pytest.mark.usefixtures("long_backoff")
async def test_a_start_that_takes_too_long_is_given_up(opening: Opening) -> None:
    async with running(Scripted(opening), startTimeout=0.2) as one:
        assert await one.attempt() is State.BACKOFF
        assert one.failure == Failure(Reason.START_TIMEOUT, "not ready within 0.2 s")


@pytest.mark.usefixtures("long_backoff")
async def test_a_list_that_takes_longer_than_a_call_may_is_a_failure_of_the_start() -> None:
    async with running(Scripted(legacy(tools_list=silence)), timeout=0.1) as one:
        assert await one.attempt() is State.BACKOFF
        assert one.failure.reason is Reason.START_TIMEOUT
        assert "0.1 s" in one.failure.message


@pytest.mark.usefixtures("long_backoff")
async def test_an_end_together_with_the_last_answer_is_no_ready_server() -> None:
    opener = Scripted(legacy(tools_list=silence))
    async with running(opener) as one:
        await one.log.until(lambda: opener.scripts)
        request = await opener.server.request("tools/list")
        opener.server.answer(request, result={"tools": []})
        opener.server.die()
        assert await one.attempt() is State.BACKOFF
        assert one.log.states() == [State.BACKOFF]


async def test_a_command_that_does_not_exist_parks() -> None:
    gone = Failure(Reason.SPAWN, "command 'x' not found on PATH", permanent=True)
    async with running(Scripted(Lost(gone))) as one:
        assert await one.attempt() is State.PARKED
        assert one.failure is gone


async def test_a_bug_in_the_opener_costs_its_server_one_attempt() -> None:
    opener = Scripted(KeyError("secret"), legacy())
    async with running(opener, trouble=True) as one:
        await one.until(State.READY)
        assert one.log.states() == [State.BACKOFF, State.CONNECTING, State.READY]
        errors = one.log.of(InternalError)
        assert [error.where for error in errors] == ["server one"]
        failed = one.log.of(StateChanged)[0].failure
        assert failed is not None
        assert failed.reason is Reason.INTERNAL
        assert "secret" not in failed.message


async def test_a_bug_on_the_way_out_ends_no_task() -> None:
    opener = Scripted(legacy())
    opener.failing_to_leave = KeyError("on the way out")
    async with running(opener, trouble=True) as one:
        await one.until(State.READY)
        opener.server.die()
        await one.ready(2)
        one.server.restart()
        assert await one.attempt() is State.READY
        assert len(opener.scripts) == 3


async def test_a_bug_while_it_is_ready_fails_its_calls_and_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Scripted(legacy())
    async with running(opener, trouble=True) as one:
        await one.until(State.READY)
        call = one.call()

        async def broken(self: Refresher, session: object, kinds: object) -> None:
            raise ValueError("a bug")

        with monkeypatch.context() as patched:
            patched.setattr(Refresher, "_read_again", broken)
            opener.server.say(TOOLS_CHANGED)
            await one.ended()
        assert call.told == ["an internal error, see the log"]
        assert one.failure.reason is Reason.INTERNAL
        await one.until(State.READY)


async def test_more_than_ten_failures_park(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 0.0)
    async with running(Scripted(Lost(GONE))) as one:
        await one.until(State.PARKED)
        assert one.failure.reason is Reason.FLAPPING
        assert "exited with code 3" in one.failure.message
        assert len(one.log.of(StateChanged)) == 2 * lifecycle.FLAP_LIMIT + 1


# --- the end of a session --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_calls_are_told_of_the_end_when_the_state_says_it_and_before_the_transport_is_left() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        calls = [one.call() for _ in range(3)]
        opener.may_leave = asyncio.Event()
        opener.server.die()
        assert [call.told for call in calls] == [["exited with code 3"]] * 3
        assert {call.state for call in calls} == {State.BACKOFF}
        assert one.server.live is None
        assert one.server.status.next_attempt is not None
        assert opener.open == 1
        opener.may_leave.set()
        await one.log.until(lambda: opener.open == 1)
        assert one.log.states() == [State.READY, State.BACKOFF]


async def test_the_tail_of_stderr_explains_a_failure() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for number in range(1000):
            one.server.stderr_line(f"line {number}")
        opener.server.die()
        await one.ended()
        assert one.log.of(StateChanged)[1].stderr_tail == tuple(f"line {number}" for number in range(995, 1000))
        assert len(one.server.stderr) == module.STDERR_LINES


async def test_invalid_lines_are_observed_without_their_content() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.say(b"secret")
        assert one.log.of(InvalidLine) == [InvalidLine("one", "not valid JSON")]


# --- attempts for the sake of calls -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_a_call_brings_the_next_attempt_forward_but_not_below_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CALL_RETRY_BACKOFF", 0.3)
    opener = Scripted(Lost(GONE))
    async with running(opener) as one:
        for attempts in range(1, 4):
            await one.ended(attempts)
            for _ in range(50):
                one.server.retry_for_call()
        assert len(opener.at) >= 3
        assert all(late - early >= 0.3 for early, late in pairwise(opener.at))


@pytest.mark.usefixtures("long_backoff")
async def test_nobody_calls_nobody_starts() -> None:
    opener = Scripted(Lost(GONE))
    async with running(opener) as one:
        await one.ended()
        with anyio.move_on_after(0.3):
            await one.log.until(lambda: len(opener.at) > 1, within=1)
        assert len(opener.at) == 1


async def test_a_call_wakes_a_parked_server_unless_its_config_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CALL_RETRY_PARKED", 0.1)
    unreachable = Lost(Failure(Reason.SPAWN, "not found", permanent=True))
    opener = Scripted(unreachable, Lost(Failure(Reason.CONFIG, "wrong", permanent=True)))
    async with running(opener) as one:
        await one.until(State.PARKED)
        one.server.retry_for_call()
        await one.ended(2)
        assert one.failure.reason is Reason.CONFIG
        one.server.retry_for_call()
        assert one.server._retry_at == math.inf
        assert one.server.status.next_attempt is None


@pytest.mark.usefixtures("long_backoff")
async def test_what_a_call_asks_for_is_spent_on_the_attempt_that_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while the attempt waits for its turn must not cut the backoff after it."""
    monkeypatch.setattr(lifecycle, "CALL_RETRY_BACKOFF", 0.0)
    opener = Scripted(Lost(GONE))
    async with running(opener) as one:
        await one.ended()
        one.admitted = anyio.Event()
        one.server.retry_for_call()
        for _ in range(5):
            await asyncio.sleep(0)
        one.server.retry_for_call()
        one.admitted.set()
        await one.ended(2)
        with anyio.move_on_after(0.2):
            await one.log.until(lambda: len(opener.at) > 2, within=1)
        assert len(opener.at) == 2


async def test_a_call_brings_nothing_forward_for_a_server_that_is_ready_or_on_its_way() -> None:
    opener = Scripted(legacy(initialize=silence))
    async with running(opener) as one:
        one.server.retry_for_call()
        await one.log.until(lambda: opener.scripts)
        request = await opener.server.request("initialize")
        one.server.retry_for_call()
        opener.server.answer(request, result=LEGACY | TOOLS)
        await one.until(State.READY)
        one.server.retry_for_call()
        assert len(opener.at) == 1


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_restart_of_a_ready_server_tells_its_calls_and_connects_anew() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        call = one.call()
        one.server.restart()
        assert not one.server.attempted.is_set()
        assert await one.attempt() is State.READY
        assert call.told == ["the server is being stopped"]
        assert call.state is State.STOPPING
        assert one.log.states() == [State.READY, State.STOPPING, State.CONNECTING, State.READY]
        assert (len(opener.scripts), one.server.status.failures) == (2, 0)


@pytest.mark.parametrize("at", ["", "server/discover", "initialize", "tools/list"])
async def test_restart_of_a_server_on_its_way_begins_again_at_once(at: str) -> None:
    opener = Scripted(legacy() | {at: silence} if at else None, legacy())
    async with running(opener) as one:
        await one.log.until(lambda: opener.at)
        if at:
            await opener.server.request(at)
        one.server.restart()
        assert await one.attempt() is State.READY
        assert len(opener.at) == 2
        assert one.log.states() == [State.STOPPING, State.CONNECTING, State.READY]


@pytest.mark.parametrize("failure", [GONE, exit_failure(127)])
@pytest.mark.usefixtures("long_backoff")
async def test_restart_of_a_server_that_is_away_attempts_at_once(failure: Failure) -> None:
    opener = Scripted(Lost(failure), legacy())
    async with running(opener) as one:
        assert await one.attempt() in (State.BACKOFF, State.PARKED)
        one.server.restart()
        assert not one.server.attempted.is_set()
        assert await one.attempt() is State.READY


@pytest.mark.usefixtures("long_backoff")
async def test_restart_that_fails_says_so() -> None:
    opener = Scripted(legacy(), Lost(GONE))
    async with running(opener) as one:
        await one.until(State.READY)
        one.server.restart()
        assert await one.attempt() is State.BACKOFF


@pytest.mark.usefixtures("long_backoff")
async def test_restart_while_the_old_transport_is_left_waits_for_the_new_one() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.may_leave = asyncio.Event()
        opener.server.die()
        await anyio.lowlevel.checkpoint()
        one.server.restart()
        opener.may_leave.set()
        assert await one.attempt() is State.READY
        assert len(opener.scripts) == 2


async def test_restart_while_it_waits_for_its_turn_is_that_turn() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        one.admitted = anyio.Event()
        await anyio.lowlevel.checkpoint()
        one.server.restart()
        one.admitted.set()
        assert await one.attempt() is State.READY
        assert len(opener.scripts) == 1


async def test_ten_restarts_at_once_are_one() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(10):
            one.server.restart()
        assert await one.attempt() is State.READY
        assert len(opener.scripts) == 2


# --- stop -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "state"),
    [
        (None, State.CONNECTING),
        (legacy(server_discover=silence), State.CONNECTING),
        (legacy(tools_list=silence), State.CONNECTING),
        (legacy(), State.READY),
        (modern(), State.READY),
        (Lost(GONE), State.BACKOFF),
        (Lost(exit_failure(127)), State.PARKED),
    ],
)
@pytest.mark.usefixtures("long_backoff")
async def test_stop_in_any_state_leaves_nothing(opening: Opening, state: State) -> None:
    opener = Scripted(opening)
    async with running(opener) as one:  # `running` looks after what is left
        await one.log.until(lambda: opener.at)
        await one.until(state)
    assert one.log.states()[-1] is State.STOPPING
    assert one.log.states().count(State.STOPPING) == 1
    assert one.server.attempted.is_set()


async def test_stop_tells_calls_before_the_transport_is_left() -> None:
    opener = Scripted(legacy())

    async def leave_once_told(call: Call) -> None:
        await call.done.wait()
        opener.may_leave.set()

    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks, running(opener) as one:
            await one.until(State.READY)
            opener.may_leave = asyncio.Event()
            call = one.call()
            tasks.start_soon(leave_once_told, call)
    assert (call.told, call.state) == (["the server is being stopped"], State.STOPPING)
