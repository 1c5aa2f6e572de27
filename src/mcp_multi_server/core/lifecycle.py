"""The states of one server, and what takes it from one to the next.

`step` is the only way from one `Status` to the next. Time (monotonic seconds) and jitter (a random number 0 ≤ n < 1)
are arguments, so a ten-minute outage is an ordinary function call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from signal import Signals
from typing import TypeAlias

BACKOFF_BASE = 0.5
BACKOFF_CAP = 30.0
BACKOFF_FLOOR = 0.1
"""Seconds: the first ceiling of the wait in backoff, the highest one, and the shortest wait."""
PARKED_RETRY = 300.0
PARKED_SPREAD = 0.2
"""Seconds between two attempts when parked, and the share by which they vary."""
STABLE_AFTER = 60.0
"""Seconds of being up after which earlier failures are forgotten."""
FLAP_LIMIT = 10
FLAP_WINDOW = 600.0
"""More failures than this, within so many seconds, park a server."""
CALL_RETRY_BACKOFF = 2.0
CALL_RETRY_PARKED = 30.0
"""Seconds between two attempts that calls may cause, in backoff and when parked."""
RISE = 2
FALL = 3
TRANSPORT_FAILURES = 5
"""Good probes that end `degraded`, bad ones that end the connection, transport failures in a row that begin it."""


class State(StrEnum):
    """The states of a server. `ROUTED` holds those in which calls are sent to it."""

    DISABLED = "disabled"
    CONNECTING = "connecting"
    READY = "ready"
    DEGRADED = "degraded"
    BACKOFF = "backoff"
    PARKED = "parked"
    STOPPING = "stopping"


ROUTED = frozenset({State.READY, State.DEGRADED})
"""States in which calls are forwarded."""


class Reason(StrEnum):
    """Why a session failed or could not be had, or a server is degraded. The set is closed: metrics have the words."""

    CONFIG = "config"
    SPAWN = "spawn"
    EXIT = "exit"
    SIGNAL = "signal"
    CLOSED = "closed"
    HANG = "hang"
    BUSY = "busy"
    PROTOCOL = "protocol"
    START_TIMEOUT = "start_timeout"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    SESSION = "session"
    FLAPPING = "flapping"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a session could not be had, why it ended, or why a request was lost.

    `permanent`: trying again soon cannot help. `undone`: it is certain that the request was not carried out, as it
    never left us or was refused for want of a session; so it may be sent again.
    """

    reason: Reason
    message: str
    permanent: bool = False
    undone: bool = False


BUSY = Failure(Reason.BUSY, "has answered nothing since the time of a call was up")
"""Why a server is degraded that may still work on a call which nobody waits for any more."""


class Lost(Exception):
    """Raised where a session is needed and there is none, or none any more. `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def exit_failure(returncode: int) -> Failure:
    """The failure of a child that ended by itself; as in a shell, 126 and 127 say that it never ran."""
    if returncode < 0:
        name = next((f" ({signal.name})" for signal in Signals if signal == -returncode), "")
        return Failure(Reason.SIGNAL, f"killed by signal {-returncode}{name}")
    return Failure(Reason.EXIT, f"exited with code {returncode}", permanent=returncode in (126, 127))


def http_failure(status: int) -> Failure:
    """The failure that an HTTP status means for a connection."""
    if status in (401, 403):
        return Failure(Reason.UNAUTHORIZED, f"HTTP {status}", permanent=True)
    return Failure(Reason.UNREACHABLE, f"HTTP {status}", permanent=status == 404)


@dataclass(frozen=True, slots=True)
class Status:
    """One server's state and everything that decides the next one. The server's task keeps it; `step` makes the next.

    Times are monotonic seconds.
    """

    state: State = State.CONNECTING
    since: float = 0.0
    failure: Failure | None = None
    """The last failure; kept until the server is stable, so that what happened can be read after it came back."""
    failures: int = 0
    """Failures in a row, without a stable time between them."""
    recent: tuple[float, ...] = ()
    """When it failed, within the last `FLAP_WINDOW` seconds."""
    next_attempt: float | None = None
    """None if no attempt is planned."""
    last_attempt: float = float("-inf")
    good: int = 0
    bad: int = 0
    """Probes in a row, good and bad, while degraded."""
    call_due: float | None = None
    """While it is degraded for being busy: when the time of its calls was, or will be, up. Else None."""
    waited: bool = False
    """Whether a call that came after that has waited for its whole time, too."""
    transport_failures: int = 0
    """Calls lost on their way, in a row."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to connect begins: its time has come, a call needs the server, or somebody asked for a restart."""


@dataclass(frozen=True, slots=True)
class Connected:
    """Transport up, protocol negotiated, every list read."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The server could not be reached, or its session ended without our asking."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered a probe or a call. `probe`: it was a probe."""

    probe: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A probe was late or failed, or the time of a call passed in silence.

    `call_due`: when the time of the calls was, or will be, up that the server may be busy with; None where it has none
    since it last answered.
    """

    call_due: float | None = None


@dataclass(frozen=True, slots=True)
class WaitedInVain:
    """The time of a call passed in silence that came when the server was busy with earlier ones."""


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """A call was lost on its way; an error that the server answers with is no such thing."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The server is to be stopped, or not to be started."""


Happening: TypeAlias = Attempt | Connected | Failed | Answered | Unanswered | WaitedInVain | TransportFailed | Stop
"""What can happen to a server; `step` takes one of them."""


class IllegalTransition(Exception):
    """Something happened that cannot happen in this state; a bug of ours."""


def step(status: Status, happening: Happening, *, now: float, jitter: float) -> Status:
    """The status after `happening`. Raises IllegalTransition where that state does not allow it."""
    state = status.state
    match happening:
        case Attempt() if state in (State.CONNECTING, State.BACKOFF, State.PARKED, State.STOPPING, State.DISABLED):
            return _to(status, State.CONNECTING, now, last_attempt=now)
        case Connected() if state is State.CONNECTING:
            return _to(status, State.READY, now)
        case Failed(failure) if state in (State.CONNECTING, *ROUTED):
            return _failed(status, failure, now, jitter)
        case Answered(probe) if state in ROUTED:
            return _answered(status, probe, now)
        case Unanswered(call_due) if state in ROUTED:
            return _unanswered(status, call_due, now)
        case WaitedInVain() if state is State.DEGRADED:
            return replace(status, waited=status.call_due is not None)
        case TransportFailed() if state in ROUTED:
            return _transport_failed(status, now)
        case Stop():
            return _to(status, State.STOPPING, now)
        case _:
            raise IllegalTransition(f"{type(happening).__name__} in state {state}")


def is_hung(status: Status, *, now: float, patience: float) -> bool:
    """Whether the session of a degraded server is to be ended: it has missed too many probes, or was busy for too long.

    `patience`: seconds that a busy one may be silent after the time of its calls was up; infinite where it is never
    ended for that. It counts less where somebody has waited for it since: a call for its whole time, in silence.
    """
    if status.state is not State.DEGRADED:
        return False
    return status.bad >= FALL if status.call_due is None else now >= busy_until(status, patience)


def busy_until(status: Status, patience: float) -> float:
    """When a busy server is taken for one that hangs; infinite where it is not busy or never taken for it."""
    if status.call_due is None or patience == float("inf"):
        return float("inf")
    return status.call_due + (0.0 if status.waited else patience)


def degraded_because(status: Status) -> Failure | None:
    """Why a server is degraded, where there is a word for it."""
    return BUSY if status.state is State.DEGRADED and status.call_due is not None else None


def is_stable(status: Status, now: float) -> bool:
    """Whether the server has been up for so long that its failures no longer count."""
    return status.state in ROUTED and now - status.since >= STABLE_AFTER


def call_retry_due(status: Status, now: float) -> float | None:
    """When a call may cause the next attempt; None where calls cause none in this state."""
    if status.state is State.BACKOFF:
        return max(now, status.last_attempt + CALL_RETRY_BACKOFF)
    if status.state is State.PARKED and not _is_config(status):
        return max(now, status.last_attempt + CALL_RETRY_PARKED)
    return None


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row (full jitter): `jitter × min(30, 0.5 × 2ⁿ⁻¹)`, at least 0.1."""
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(failures - 1, 60))  # larger powers overflow
    return max(BACKOFF_FLOOR, jitter * ceiling)


def _to(status: Status, state: State, now: float, **changes: object) -> Status:
    """`status` in another state; what belongs to the old one alone is cleared."""
    cleared: dict[str, object] = {
        "next_attempt": None,
        "good": 0,
        "bad": 0,
        "call_due": None,
        "waited": False,
        "transport_failures": 0,
    }
    return replace(status, state=state, since=now, **(cleared | changes))  # type: ignore[arg-type]  # keyword by name


def _failed(status: Status, failure: Failure, now: float, jitter: float) -> Status:
    # A server that was up for long enough starts from zero, both in what backoff counts and in what flapping counts.
    earlier = () if is_stable(status, now) else status.recent
    recent = (*(time for time in earlier if now - time < FLAP_WINDOW), now)
    failures = 1 if is_stable(status, now) else status.failures + 1
    if not failure.permanent and len(recent) > FLAP_LIMIT:
        failure = Failure(Reason.FLAPPING, f"failed {len(recent)} times in 10 min; last: {failure.message}", True)
        recent = ()  # or the first failure after the pause would park it again
    if failure.permanent:
        # Only an edit can help a broken entry; anything else may have been put right meanwhile, so try now and then.
        retry = None if failure.reason is Reason.CONFIG else now + PARKED_RETRY * (1 + PARKED_SPREAD * (2 * jitter - 1))
        state = State.PARKED
    else:
        retry, state = now + backoff(failures, jitter), State.BACKOFF
    return _to(status, state, now, failure=failure, failures=failures, recent=recent, next_attempt=retry)


def _answered(status: Status, probe: bool, now: float) -> Status:
    if is_stable(status, now) and status.failures:  # the last failure itself is kept, for people who look later
        status = replace(status, failures=0, recent=())
    if status.state is State.READY or not probe:
        return replace(status, transport_failures=0)
    # Of a busy one it was only in doubt whether it would ever be done.
    if status.call_due is not None or status.good + 1 >= RISE:
        return _to(status, State.READY, now)
    return replace(status, good=status.good + 1, bad=0, transport_failures=0)


def _unanswered(status: Status, call_due: float | None, now: float) -> Status:
    # One that missed a probe before it was given the call is not busy with it: it was silent already.
    is_busy = call_due is not None and status.bad == 0
    degraded = status if status.state is State.DEGRADED else _to(status, State.DEGRADED, now)
    return replace(
        degraded,
        good=0,
        bad=0 if is_busy else status.bad + 1,
        call_due=call_due if is_busy else None,
        waited=is_busy and status.waited and call_due == status.call_due,
    )


def _transport_failed(status: Status, now: float) -> Status:
    if status.state is State.READY and status.transport_failures + 1 >= TRANSPORT_FAILURES:
        return _to(status, State.DEGRADED, now)
    return replace(status, transport_failures=status.transport_failures + 1)


def _is_config(status: Status) -> bool:
    return status.failure is not None and status.failure.reason is Reason.CONFIG
