"""The state machine as a table, and as a property of every sequence of happenings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.lifecycle import (
    Answered,
    Attempt,
    Connected,
    Failed,
    Failure,
    Happening,
    IllegalTransition,
    Reason,
    State,
    Status,
    Stop,
    TransportFailed,
    Unanswered,
    WaitedInVain,
    backoff,
    step,
)

BLIP = Failure(Reason.EXIT, "exited with code 3")
GONE = Failure(Reason.SPAWN, "command 'x' not found", permanent=True)
BROKEN = Failure(Reason.CONFIG, "args: wrong", permanent=True)

HAPPENINGS: dict[str, Happening] = {
    "attempt": Attempt(),
    "connected": Connected(),
    "failed": Failed(BLIP),
    "failed for good": Failed(GONE),
    "answered": Answered(),
    "good probe": Answered(probe=True),
    "bad probe": Unanswered(),
    "bad probe, busy": Unanswered(call_due=0.5),
    "waited in vain": WaitedInVain(),
    "transport failed": TransportFailed(),
    "stop": Stop(),
}

LEGAL = {
    State.CONNECTING: {
        "attempt": State.CONNECTING,
        "connected": State.READY,
        "failed": State.BACKOFF,
        "failed for good": State.PARKED,
    },
    State.READY: {
        "failed": State.BACKOFF,
        "failed for good": State.PARKED,
        "answered": State.READY,
        "good probe": State.READY,
        "bad probe": State.DEGRADED,
        "bad probe, busy": State.DEGRADED,
        "transport failed": State.READY,
    },
    State.DEGRADED: {
        "failed": State.BACKOFF,
        "failed for good": State.PARKED,
        "answered": State.DEGRADED,
        "good probe": State.DEGRADED,
        "bad probe": State.DEGRADED,
        "bad probe, busy": State.DEGRADED,
        "waited in vain": State.DEGRADED,
        "transport failed": State.DEGRADED,
    },
    State.BACKOFF: {"attempt": State.CONNECTING},
    State.PARKED: {"attempt": State.CONNECTING},
    State.STOPPING: {"attempt": State.CONNECTING},
    State.DISABLED: {"attempt": State.CONNECTING},
}
ALWAYS = {"stop": State.STOPPING, "disable": State.DISABLED}


def in_state(state: State) -> Status:
    return Status(state, since=0.0, next_attempt=5.0 if state in (State.BACKOFF, State.PARKED) else None)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("name", HAPPENINGS)
def test_every_pair_of_state_and_happening_leads_where_the_table_says(state: State, name: str) -> None:
    expected = (LEGAL[state] | ALWAYS).get(name)
    if expected is None:
        with pytest.raises(IllegalTransition):
            step(in_state(state), HAPPENINGS[name], now=1.0, jitter=0.5)
    else:
        assert step(in_state(state), HAPPENINGS[name], now=1.0, jitter=0.5).state is expected


def run(*happenings: tuple[float, Happening], jitter: float = 0.5, start: Status | None = None) -> Status:
    status = start or Status(State.CONNECTING)
    for now, happening in happenings:
        status = step(status, happening, now=now, jitter=jitter)
    return status


def test_two_good_probes_in_a_row_end_degraded_and_a_bad_one_between_starts_over() -> None:
    degraded = run((0, Connected()), (1, Unanswered()))
    assert run((2, Answered(probe=True)), (3, Answered(probe=True)), start=degraded).state is State.READY
    mixed = run((2, Answered(probe=True)), (3, Unanswered()), (4, Answered(probe=True)), start=degraded)
    assert mixed.state is State.DEGRADED


def test_a_call_that_is_answered_does_not_end_degraded() -> None:
    status = run((0, Connected()), (1, Unanswered()), *((2.0 + n, Answered()) for n in range(10)))
    assert status.state is State.DEGRADED


def test_three_bad_probes_in_a_row_mean_that_it_hangs() -> None:
    status = run((0, Connected()), (1, Unanswered()), (3, Unanswered()))
    assert not is_hung(status, 3)
    assert is_hung(run((5, Unanswered()), start=status), 5)


def is_hung(status: Status, now: float, patience: float = 120.0) -> bool:
    return lifecycle.is_hung(status, now=now, patience=patience)


BUSY = run((0, Connected()), *((60.0 + 5 * n, Unanswered(call_due=60.0)) for n in range(20)))
"""Silent since a call came whose time was up at 60."""


def test_a_busy_server_may_be_silent_for_its_patience_after_the_time_of_its_call() -> None:
    assert BUSY.state is State.DEGRADED
    assert lifecycle.degraded_because(BUSY) == lifecycle.BUSY
    assert [is_hung(BUSY, now) for now in (60, 179, 180)] == [False, False, True]
    assert [is_hung(BUSY, now, patience=5) for now in (60, 64, 65)] == [False, False, True]


def test_without_an_end_to_the_patience_a_busy_server_is_never_ended() -> None:
    assert not is_hung(BUSY, 1e9, patience=math.inf)
    assert not is_hung(run((130, WaitedInVain()), start=BUSY), 1e9, patience=math.inf)


def test_a_call_that_waits_in_vain_ends_the_patience_but_not_before_the_time_of_the_earlier_ones() -> None:
    waited = run((130, WaitedInVain()), start=BUSY)
    assert is_hung(waited, 130)
    early = run((0, Connected()), (60, Unanswered(call_due=600.0)), (130, WaitedInVain()))
    assert [is_hung(early, now) for now in (130, 599, 600)] == [False, False, True]


def test_one_answer_makes_a_busy_server_ready_again() -> None:
    ready = run((70, Answered(probe=True)), start=BUSY)
    assert ready.state is State.READY
    assert (ready.call_due, lifecycle.degraded_because(ready)) == (None, None)


def test_a_server_that_was_silent_before_its_call_came_is_not_busy_with_it() -> None:
    silent = run((0, Connected()), (15, Unanswered()), (20, Unanswered(call_due=80.0)))
    assert lifecycle.degraded_because(silent) is None
    assert is_hung(run((25, Unanswered(call_due=80.0)), start=silent), 25)


def test_a_server_that_answered_is_not_excused_for_the_call_before_that() -> None:
    status = run((170, Unanswered()), (172, Unanswered()), start=BUSY)
    assert [is_hung(status, 1000), lifecycle.degraded_because(status)] == [False, None]
    assert is_hung(run((174, Unanswered()), start=status), 174)


def test_who_has_waited_for_earlier_calls_has_not_waited_for_later_ones() -> None:
    again = run((130, WaitedInVain()), (200, Unanswered(call_due=190.0)), start=BUSY)
    assert not is_hung(again, 200)


def test_five_transport_failures_in_a_row_degrade_and_an_answer_between_starts_over() -> None:
    ready = run((0, Connected()))
    four = run(*((1.0, TransportFailed()) for _ in range(4)), start=ready)
    assert four.state is State.READY
    assert run((2, TransportFailed()), start=four).state is State.DEGRADED
    assert run((2, Answered()), (3, TransportFailed()), start=four).state is State.READY


def test_failures_are_forgotten_only_after_a_minute_of_being_up() -> None:
    shaky = run((0, Failed(BLIP)), (1, Attempt()), (1, Connected()), (60.9, Failed(BLIP)))
    assert shaky.failures == 2
    steady = run((0, Failed(BLIP)), (1, Attempt()), (1, Connected()), (61, Failed(BLIP)))
    assert steady.failures == 1


def test_more_than_ten_failures_in_ten_minutes_park_as_flapping() -> None:
    status = Status(State.CONNECTING)
    for number in range(11):
        assert status.state is not State.PARKED
        status = run((number * 50.0, Attempt()), (number * 50.0 + 1, Failed(BLIP)), start=status)
    assert status.state is State.PARKED
    assert status.failure is not None
    assert status.failure.reason is Reason.FLAPPING
    assert "exited with code 3" in status.failure.message


def test_slow_failures_never_park() -> None:
    status = Status(State.CONNECTING)
    for number in range(100):
        status = run((number * 61.0, Attempt()), (number * 61.0 + 1, Failed(BLIP)), start=status)
        assert status.state is State.BACKOFF


@pytest.mark.parametrize(
    ("failures", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (1000, 30.0), (10**9, 30.0)]
)
def test_backoff_doubles_to_thirty_seconds(failures: int, ceiling: float) -> None:
    assert backoff(failures, 0.999999) == pytest.approx(ceiling, rel=1e-5)
    assert backoff(failures, 0.0) == lifecycle.BACKOFF_FLOOR


@given(failures=st.integers(1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(failures: int, jitter: float) -> None:
    assert 0.1 <= backoff(failures, jitter) <= 30.0


def test_a_parked_server_is_tried_again_in_five_minutes_give_or_take_a_fifth() -> None:
    assert run((0, Failed(GONE)), jitter=0.0).next_attempt == 240.0
    assert run((0, Failed(GONE)), jitter=0.999999).next_attempt == pytest.approx(360.0, rel=1e-4)


def test_a_broken_entry_is_not_tried_again_by_itself() -> None:
    parked = run((0, Failed(BROKEN)))
    assert parked.state is State.PARKED
    assert parked.next_attempt is None
    assert lifecycle.call_retry_due(parked, 1e9) is None


def test_calls_cause_an_attempt_every_two_seconds_in_backoff_and_every_thirty_when_parked() -> None:
    waiting = run((10, Attempt()), (10.5, Failed(BLIP)))
    assert lifecycle.call_retry_due(waiting, 11) == 12
    assert lifecycle.call_retry_due(waiting, 13) == 13
    parked = run((10, Attempt()), (10.5, Failed(GONE)))
    assert lifecycle.call_retry_due(parked, 11) == 40
    assert lifecycle.call_retry_due(run((0, Connected())), 11) is None


@pytest.mark.parametrize(
    ("failure", "reason", "permanent"),
    [
        (lifecycle.exit_failure(3), Reason.EXIT, False),
        (lifecycle.exit_failure(126), Reason.EXIT, True),
        (lifecycle.exit_failure(127), Reason.EXIT, True),
        (lifecycle.exit_failure(-9), Reason.SIGNAL, False),
        (lifecycle.http_failure(401), Reason.UNAUTHORIZED, True),
        (lifecycle.http_failure(403), Reason.UNAUTHORIZED, True),
        (lifecycle.http_failure(404), Reason.UNREACHABLE, True),
        (lifecycle.http_failure(500), Reason.UNREACHABLE, False),
    ],
)
def test_failures_are_classified(failure: Failure, reason: Reason, permanent: bool) -> None:
    assert (failure.reason, failure.permanent) == (reason, permanent)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(HAPPENINGS)), st.floats(0, 400), st.floats(0, 1, exclude_max=True)), max_size=80
    )
)
def test_whatever_happens_a_server_can_always_come_back(sequence: list[tuple[str, float, float]]) -> None:
    status, now = Status(State.CONNECTING), 0.0
    for name, seconds, jitter in sequence:
        now += seconds
        before = status
        try:
            status = step(status, HAPPENINGS[name], now=now, jitter=jitter)
        except IllegalTransition:
            assert status is before
            continue
        assert status.since <= now
        if status.state in (State.BACKOFF, State.PARKED):
            assert status.next_attempt is not None
            assert now < status.next_attempt <= now + 360
            assert status.failure is not None
        else:
            assert status.next_attempt is None
        assert len(status.recent) <= lifecycle.FLAP_LIMIT
    if status.state not in lifecycle.ROUTED and status.state is not State.CONNECTING:
        status = step(status, Attempt(), now=now + 1, jitter=0.5)
    if status.state is State.CONNECTING:
        status = step(status, Connected(), now=now + 2, jitter=0.5)
    assert status.state in lifecycle.ROUTED
