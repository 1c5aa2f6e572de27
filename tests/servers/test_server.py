"""One server: its task, seen through what it observes. Scripted transports make failures exact, children real."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.catalog import Kind
from mcp_multi_server.core.config import LimitsConfig, ServerConfig
from mcp_multi_server.core.events import (
    CatalogRead,
    Event,
    InternalError,
    InvalidLine,
    Probed,
    RefreshFailed,
    StateChanged,
)
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State, exit_failure, http_failure
from mcp_multi_server.core.protocol import Era
from mcp_multi_server.servers import health
from mcp_multi_server.servers import server as module
from mcp_multi_server.servers import session as conversation_module
from mcp_multi_server.servers.opener import TransportOpener
from mcp_multi_server.servers.server import Opener, Server, ServerContext
from mcp_multi_server.transport import Receiver
from mcp_multi_server.transport.link import Flusher
from mcp_multi_server.transport.stdio import EXIT_GRACE

from .nobody import nobody
from .test_session import LEGACY, MODERN, SOON, UNKNOWN, Answer, Json, Script, Waiter, paged, refusal, result, silence

pytestmark = pytest.mark.anyio

E = TypeVar("E")
SERVERS = Path(__file__).parents[1] / "fixtures"
GONE = exit_failure(3)
TOOLS = {"capabilities": {"tools": {"listChanged": True}}}


def tools(*names: str, **more: Any) -> Answer:
    return result({"tools": [{"name": name} for name in names], **more})


def legacy(**answers: Answer) -> dict[str, Answer]:
    """A legacy server with one tool."""
    known = {"initialize": result(LEGACY | TOOLS), "tools/list": tools("t"), "ping": result({}), "tools/call": silence}
    return known | {name.replace("_", "/"): answer for name, answer in answers.items()}


def modern(**answers: Answer) -> dict[str, Answer]:
    """A modern server with one tool, which says when its list changes."""
    known = {"server/discover": result(MODERN | TOOLS), "tools/list": tools("t"), "subscriptions/listen": silence}
    return known | {name.replace("_", "/"): answer for name, answer in answers.items()}


class Log:
    """An observer that can be waited on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = anyio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.wake()

    def wake(self, *_: object) -> None:
        self._news.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self, server: str = "one") -> list[State]:
        return [event.new for event in self.of(StateChanged) if event.server == server]

    async def until(self, check: Callable[[], object], *, within: float = 10.0) -> None:
        """Wait until what was observed makes `check` true."""
        with anyio.move_on_after(within):
            while not check():
                self._news = anyio.Event()
                await self._news.wait()
        assert check(), f"did not come true within {within} s; observed: {self.events}"


Opening = dict[str, Answer] | BaseException | None
"""Answers by method; an exception raised; None: it never opens."""


class Scripted:
    """An `Opener` whose nth opening is as the nth argument says, the last again and again."""

    def __init__(self, *openings: Opening) -> None:
        self.openings = deque(openings)
        self.kinds: list[str] = []
        self.at: list[float] = []
        self.scripts: list[Script] = []
        self.open = 0
        self.at_most = 1
        """How many transports there may be at a time."""
        self.may_leave = anyio.Event()
        self.may_leave.set()
        self.failing_to_leave: Exception | None = None
        self.news: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def __call__(self, kind: str, config: ServerConfig, receiver: Receiver) -> AsyncIterator[Script]:
        self.kinds.append(kind)
        self.at.append(asyncio.get_running_loop().time())
        self.news()
        opening = self.openings.popleft() if len(self.openings) > 1 else self.openings[0]
        if opening is None:
            await anyio.sleep_forever()
        if isinstance(opening, BaseException):
            raise opening
        assert opening is not None
        script = Script(dict(opening), receiver)
        script.kind = kind
        self.scripts.append(script)
        self.open += 1
        assert self.open <= self.at_most, "too many transports of one server at a time"
        try:
            yield script
        finally:
            with anyio.move_on_after(SOON, shield=True):
                await self.may_leave.wait()
            self.open -= 1
            self.news()
            if self.failing_to_leave is not None:
                raise self.failing_to_leave

    @property
    def server(self) -> Script:
        """The server behind the transport that is open."""
        return self.scripts[-1]


def timers() -> set[asyncio.TimerHandle]:
    """What the loop still means to do later."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # CPython's
    return {handle for handle in scheduled if not handle.cancelled()}


class One:
    """A connection that runs, and all that is told about it."""

    def __init__(self, opener: Opener, config: ServerConfig, *, jitter: float) -> None:
        self.log = Log()
        self.opener = opener
        self.published = 0
        self.admitted = anyio.Event()
        self.admitted.set()
        if isinstance(opener, Scripted):
            opener.news = self.log.wake
        context = ServerContext(
            open=opener,
            tell=self.log,
            jitter=lambda: jitter,
            admit=self._admit,
            changed=self._changed,
            host=nobody(self.log),
        )
        self.server = Server("one", config, context)

    async def _admit(self, server: Server) -> None:
        await self.admitted.wait()

    def _changed(self, server: Server) -> None:
        assert server is self.server
        self.published += 1
        self.log.wake()

    @property
    def state(self) -> State:
        return self.server.status.state

    @property
    def failure(self) -> Failure:
        assert self.server.status.failure is not None
        return self.server.status.failure

    def names(self) -> list[str]:
        catalog = self.server.catalog
        return [] if catalog is None else [item.name for item in catalog.items[Kind.TOOL]]

    async def until(self, state: State) -> None:
        await self.log.until(lambda: self.state is state)

    async def ended(self, nth: int = 1) -> None:
        """Wait until the server was away so many times."""
        away = (State.BACKOFF, State.PARKED)
        await self.log.until(lambda: sum(state in away for state in self.log.states()) >= nth)

    async def attempt(self) -> State:
        """The state after the attempt that is being made."""
        with anyio.fail_after(SOON):
            await self.server.attempted.wait()
        return self.state

    def call(self, method: str = "tools/call", params: bytes = b"{}") -> Call:
        live = self.server.live
        assert live is not None
        call = Call(self.server)
        live.send(live.pending.add(call), method, params)
        return call


class Call(Waiter):
    """A waiter that also keeps the state in which it was told of its failure."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.done = anyio.Event()
        self.state: State | None = None

    def settle(self, message: Any) -> None:
        super().settle(message)
        self.done.set()

    def fail(self, failure: Failure) -> None:
        super().fail(failure)
        self.state = self.server.status.state
        self.done.set()


def config_of(**fields: Any) -> ServerConfig:
    return ServerConfig.model_validate({"command": "scripted", "startTimeout": 5, "stopTimeout": 1} | fields)


@asynccontextmanager
async def running(opener: Opener, *, jitter: float = 0.0, trouble: bool = False, **fields: Any) -> AsyncIterator[One]:
    """Run a connection; at the end it is stopped and nothing of it is left. `trouble`: internal errors are expected."""
    tasks_before, timers_before = asyncio.all_tasks(), timers()
    one = One(opener, config_of(**fields), jitter=jitter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.server.run)
        yield one
        tasks.cancel_scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert one.state is State.STOPPING
    assert one.server.session is None
    assert asyncio.all_tasks() <= tasks_before
    soon = asyncio.get_running_loop().time() + EXIT_GRACE
    assert all(timer.when() <= soon for timer in timers() - timers_before)
    if isinstance(opener, Scripted):
        assert opener.open == 0
    assert bool(one.log.of(InternalError)) is trouble, one.log.of(InternalError)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "PROBE_PATIENCE", 0.05)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY", 0.1)
    monkeypatch.setattr(health, "PROBE_WHEN_DEGRADED", 0.05)
    monkeypatch.setattr(health, "PROBE_DEADLINE", 0.15)


@pytest.fixture
def quick_refreshes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEBOUNCE", 0.02)
    monkeypatch.setattr(module, "RELISTEN", 0.02)


@pytest.fixture
def long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt is made but for a reason."""
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 60.0)


# --- becoming ready --------------------------------------------------------------------------------------------------


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
        opener.server.receiver.lost(GONE)
        assert await one.attempt() is State.READY
        assert one.log.states() == [State.READY]
        assert opener.server.methods()[0] == "initialize"
        opener.server.receiver.lost(GONE)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert len(opener.scripts) == 3
        assert opener.server.methods()[0] == "initialize"


async def test_a_death_on_the_probe_that_says_it_never_ran_is_believed() -> None:
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener) as one:
        await one.log.until(lambda: opener.scripts)
        await opener.server.request("server/discover")
        opener.server.receiver.lost(exit_failure(127))
        assert await one.attempt() is State.PARKED
        assert len(opener.scripts) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_ignored_the_probe_may_end_like_any_other() -> None:
    """What it said to the probe, or did not, explains no end that comes after it was ready."""
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener) as one:
        assert await one.attempt() is State.READY
        opener.server.receiver.lost(GONE)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert one.log.states() == [State.READY, State.BACKOFF, State.CONNECTING, State.READY]
        assert len(opener.scripts) == 2
        assert opener.server.methods()[0] == "initialize"


async def test_a_verdict_that_is_no_longer_true_is_found_out_anew() -> None:
    opener = Scripted(modern(), legacy(), legacy())
    async with running(opener) as one:
        assert await one.attempt() is State.READY
        opener.server.receiver.lost(GONE)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
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
        opener.server.receiver.lost(GONE)
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
        opener.server.receiver.lost(GONE)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        one.server.restart()
        assert await one.attempt() is State.READY
        assert len(opener.scripts) == 3


async def test_a_bug_while_it_is_ready_fails_its_calls_and_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Scripted(legacy())
    async with running(opener, trouble=True) as one:
        await one.until(State.READY)
        call = one.call()

        async def broken(self: Server, session: object) -> bool:
            raise ValueError("a bug")

        with monkeypatch.context() as patched:
            patched.setattr(Server, "_read_catalog", broken)
            patched.setattr(module, "DEBOUNCE", 0.0)
            opener.server.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
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


# --- HTTP or SSE -----------------------------------------------------------------------------------------------------


async def refuse(one: One, opener: Scripted, status: int) -> None:
    """Answer the first request as an HTTP server that refuses it."""
    await one.log.until(lambda: opener.scripts)
    await opener.server.request("server/discover")
    opener.server.last_status = status
    opener.server.receiver.lost(http_failure(status))


@pytest.mark.parametrize("status", [400, 404, 405, 406])
async def test_a_server_that_knows_only_sse_is_reached_in_the_same_attempt(status: int) -> None:
    opener = Scripted(legacy(server_discover=silence), legacy())
    async with running(opener, command=None, url="http://127.0.0.1/x") as one:
        assert one.server.transport_kind == "http"
        await refuse(one, opener, status)
        assert await one.attempt() is State.READY
        assert one.log.states() == [State.READY]
        assert one.server.transport_kind == "sse"
        opener.server.receiver.lost(Failure(Reason.CLOSED, "the event stream ended"))
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert opener.kinds == ["http", "sse", "sse"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502])
@pytest.mark.usefixtures("long_backoff")
async def test_no_other_refusal_means_sse(status: int) -> None:
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener, command=None, url="http://127.0.0.1/x") as one:
        await refuse(one, opener, status)
        assert await one.attempt() is (State.PARKED if status in (401, 403) else State.BACKOFF)
        assert opener.kinds == ["http"]


async def test_a_type_that_is_given_is_the_only_one_tried() -> None:
    opener = Scripted(legacy(server_discover=silence))
    async with running(opener, command=None, url="http://127.0.0.1/x", type="http") as one:
        await refuse(one, opener, 404)
        assert await one.attempt() is State.PARKED
        assert opener.kinds == ["http"]


async def test_an_http_server_that_was_ready_is_never_taken_for_sse() -> None:
    opener = Scripted(legacy())
    async with running(opener, command=None, url="http://127.0.0.1/x") as one:
        assert await one.attempt() is State.READY
        opener.server.last_status = 404
        opener.server.receiver.lost(http_failure(502))
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert opener.kinds == ["http", "http"]


# --- the end of a connection -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_calls_are_told_of_the_end_when_the_state_says_it_and_before_the_transport_is_left() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        calls = [one.call() for _ in range(3)]
        opener.may_leave = anyio.Event()
        opener.server.receiver.lost(GONE)
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
            one.server._stderr(f"line {number}")
        opener.server.receiver.lost(GONE)
        await one.ended()
        assert one.log.of(StateChanged)[1].stderr_tail == tuple(f"line {number}" for number in range(995, 1000))
        assert len(one.server.stderr) == module.STDERR_LINES


async def test_invalid_lines_are_observed_without_their_content() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.say(b"secret")
        assert one.log.of(InvalidLine) == [InvalidLine("one", "not valid JSON")]


# --- kick ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_backoff")
async def test_a_call_brings_the_next_attempt_forward_but_not_below_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "KICK_BACKOFF", 0.3)
    opener = Scripted(Lost(GONE))
    async with running(opener) as one:
        for attempts in range(1, 4):
            await one.ended(attempts)
            for _ in range(50):
                one.server.kick()
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
    monkeypatch.setattr(lifecycle, "KICK_PARKED", 0.1)
    unreachable = Lost(Failure(Reason.SPAWN, "not found", permanent=True))
    opener = Scripted(unreachable, Lost(Failure(Reason.CONFIG, "wrong", permanent=True)))
    async with running(opener) as one:
        await one.until(State.PARKED)
        one.server.kick()
        await one.ended(2)
        assert one.failure.reason is Reason.CONFIG
        one.server.kick()
        assert one.server._kick_at == math.inf
        assert one.server.status.next_attempt is None


@pytest.mark.usefixtures("long_backoff")
async def test_a_kick_is_spent_on_the_attempt_that_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while the attempt waits for its turn must not cut the backoff after it."""
    monkeypatch.setattr(lifecycle, "KICK_BACKOFF", 0.0)
    opener = Scripted(Lost(GONE))
    async with running(opener) as one:
        await one.ended()
        one.admitted = anyio.Event()
        one.server.kick()
        for _ in range(5):
            await asyncio.sleep(0)
        one.server.kick()
        one.admitted.set()
        await one.ended(2)
        with anyio.move_on_after(0.2):
            await one.log.until(lambda: len(opener.at) > 2, within=1)
        assert len(opener.at) == 2


async def test_a_kick_means_nothing_to_a_server_that_is_ready_or_on_its_way() -> None:
    opener = Scripted(legacy(initialize=silence))
    async with running(opener) as one:
        one.server.kick()
        await one.log.until(lambda: opener.scripts)
        request = await opener.server.request("initialize")
        one.server.kick()
        opener.server.answer(request, result=LEGACY | TOOLS)
        await one.until(State.READY)
        one.server.kick()
        assert len(opener.at) == 1


# --- restart ---------------------------------------------------------------------------------------------------------


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
        opener.may_leave = anyio.Event()
        opener.server.receiver.lost(GONE)
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


# --- stop ------------------------------------------------------------------------------------------------------------


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
            opener.may_leave = anyio.Event()
            call = one.call()
            tasks.start_soon(leave_once_told, call)
    assert (call.told, call.state) == (["the server is being stopped"], State.STOPPING)


# --- health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answers", "method"), [(legacy(), "ping"), (modern(), "server/discover")])
@pytest.mark.usefixtures("quick_probes")
async def test_an_idle_server_is_probed(answers: dict[str, Answer], method: str) -> None:
    opener = Scripted(answers)
    async with running(opener) as one:
        await one.log.until(lambda: len(one.log.of(Probed)) >= 2)
        assert all(probed.good for probed in one.log.of(Probed))
        await opener.server.request(method, nth=2)
        assert one.log.states() == [State.READY]


@pytest.mark.usefixtures("quick_probes")
async def test_a_server_that_answers_is_not_probed() -> None:
    opener = Scripted(legacy(tools_call=result({})))
    async with running(opener) as one:
        await one.until(State.READY)
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.5
        while loop.time() < until:
            call = one.call()
            with anyio.fail_after(SOON):
                await call.done.wait()
        assert one.log.of(Probed) == []


async def test_after_a_suspend_a_server_is_probed_at_once_however_lately_it_answered() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        one.server.doubt()
        await one.log.until(lambda: one.log.of(Probed), within=5)
        assert one.log.of(Probed) == [Probed("one", True)]
        opener.server.answers["ping"] = silence
        one.server.doubt()
        await opener.server.request("ping", nth=2)


@pytest.mark.usefixtures("long_backoff")
@pytest.mark.parametrize("permanent", [False, True])
async def test_after_a_suspend_a_planned_attempt_is_made_at_once_and_others_stay_as_they_are(permanent: bool) -> None:
    opener = Scripted(Lost(Failure(Reason.UNREACHABLE, "refused", permanent)), Lost(Failure(Reason.CONFIG, "", True)))
    async with running(opener) as one:
        await one.ended()
        assert one.server.status.next_attempt is not None
        one.server.doubt()
        await one.ended(2)
        one.server.doubt()
        assert one.server._kick_at == math.inf
        assert one.state is State.PARKED


@pytest.mark.usefixtures("quick_probes")
async def test_an_error_answers_a_probe_too() -> None:
    async with running(Scripted(legacy(ping=lambda request: UNKNOWN))) as one:
        await one.log.until(lambda: one.log.of(Probed))
        assert one.log.of(Probed) == [Probed("one", True)]


@pytest.mark.usefixtures("quick_probes")
async def test_one_late_probe_degrades_and_two_good_ones_mend() -> None:
    opener = Scripted(legacy(ping=silence))
    async with running(opener) as one:
        await one.until(State.DEGRADED)
        assert one.server.live is not None
        opener.server.answers["ping"] = result({})
        await one.log.until(lambda: one.log.states()[-1] is State.READY)
        assert [probed.good for probed in one.log.of(Probed)] == [False, True, True]
        assert one.log.states() == [State.READY, State.DEGRADED, State.READY]
        assert len(opener.scripts) == 1


@pytest.mark.usefixtures("quick_probes")
async def test_a_server_that_hangs_is_replaced() -> None:
    opener = Scripted(legacy(ping=silence), legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        call = one.call()
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert one.log.states() == [State.READY, State.DEGRADED, State.BACKOFF, State.CONNECTING, State.READY]
        assert one.failure == Failure(Reason.HANG, "missed 3 probes in a row")
        assert call.told == ["missed 3 probes in a row"]
        assert [probed.good for probed in one.log.of(Probed)][:3] == [False] * 3


@pytest.mark.usefixtures("quick_probes")
async def test_a_probe_that_the_end_cuts_off_is_no_bad_probe() -> None:
    opener = Scripted(legacy(ping=silence))
    async with running(opener) as one:
        await one.until(State.READY)
        await opener.server.request("ping")
        opener.server.receiver.lost(GONE)
        await one.ended()
        await one.until(State.READY)
        assert one.log.of(Probed) == []
        assert State.DEGRADED not in one.log.states()


def fail_a_call(one: One, opener: Scripted) -> None:
    one.call()
    opener.server.receiver.failed(opener.server.sent[-1]["id"], http_failure(502))


async def test_five_requests_lost_in_a_row_degrade() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(lifecycle.TRANSPORT_FAILURES):
            assert one.state is State.READY
            fail_a_call(one, opener)
        assert one.state is State.DEGRADED


async def test_requests_lost_with_answers_between_them_are_not_in_a_row() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(4 * lifecycle.TRANSPORT_FAILURES):
            fail_a_call(one, opener)
            one.call()
            opener.server.answer(opener.server.sent[-1], result={})
        assert one.state is State.READY


# --- the catalog -----------------------------------------------------------------------------------------------------

CHANGED: Json = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.mark.usefixtures("quick_refreshes")
async def test_a_changed_list_is_read_again_and_published_where_it_differs() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(100):
            opener.server.say(CHANGED)
        await one.log.until(lambda: len(one.log.of(CatalogRead)) == 2)
        assert one.published == 1, "nothing is different"
        opener.server.answers["tools/list"] = tools("t", "u")
        opener.server.say(CHANGED)
        await one.log.until(lambda: one.published == 2)
        assert one.names() == ["t", "u"]
        assert opener.server.methods().count("tools/list") == 3, "a burst is read once"


@pytest.mark.usefixtures("quick_refreshes")
async def test_a_change_that_comes_while_the_list_is_read_is_not_lost() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = silence
        opener.server.say(CHANGED)
        request = await opener.server.request("tools/list", nth=2)
        opener.server.say(CHANGED)
        opener.server.answers["tools/list"] = tools("newest")
        opener.server.answer(request, result={"tools": [{"name": "newer"}]})
        await one.log.until(lambda: one.names() == ["newest"])
        assert one.published == 3


@pytest.mark.usefixtures("quick_refreshes")
async def test_what_changed_between_the_first_reading_and_the_subscription_is_read() -> None:
    opener = Scripted(modern())
    async with running(opener) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = tools("t", "new in between")
        request = await opener.server.request("subscriptions/listen")
        meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
        acknowledged = {"_meta": meta, "notifications": {"toolsListChanged": True}}
        opener.server.say(
            {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged}
        )
        await one.log.until(lambda: one.names() == ["t", "new in between"])


async def test_lists_are_read_now_and_then() -> None:
    async with running(Scripted(legacy()), refreshInterval=0.05) as one:
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 4)
        assert one.published == 1


async def test_the_time_to_live_that_a_server_gives_counts_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TTL_FLOOR", 0.05)
    async with running(Scripted(legacy(tools_list=tools("t", ttlMs=1)))) as one:
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 3)
        assert one.server._refresh_in() == 0.05


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(-32000), "tools/list failed: error -32000"),
        (result({"tools": 3}), "tools/list: tools in the result of tools/list is no list"),
        (silence, "not answered within 0.2 s"),
    ],
)
@pytest.mark.usefixtures("quick_refreshes")
async def test_a_failed_refresh_keeps_what_was_there(answer: Answer, message: str) -> None:
    opener = Scripted(legacy())
    async with running(opener, timeout=0.2) as one:
        await one.until(State.READY)
        opener.server.answers["tools/list"] = answer
        opener.server.say(CHANGED)
        await one.log.until(lambda: one.log.of(RefreshFailed))
        assert one.log.of(RefreshFailed) == [RefreshFailed("one", message)]
        assert (one.state, one.names(), one.server.stale) == (State.READY, ["t"], True)
        opener.server.answers["tools/list"] = tools("t")
        opener.server.say(CHANGED)
        await one.log.until(lambda: not one.server.stale)
        assert one.published == 1


@pytest.mark.usefixtures("quick_refreshes")
async def test_settings_that_need_no_new_connection_are_taken_over() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        one.server.update(config_of(refreshInterval=0.05))
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 4)
        assert len(opener.scripts) == 1


# --- subscriptions ---------------------------------------------------------------------------------------------------


async def test_a_modern_server_is_asked_to_say_what_changes() -> None:
    offered = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"listChanged": True}}
    lists = {kind.list_method: paged(kind.member, kind.key, 1) for kind in Kind}
    opener = Scripted(modern() | lists | {"server/discover": result(MODERN | {"capabilities": offered})})
    async with running(opener) as one:
        await one.until(State.READY)
        request = await opener.server.request("subscriptions/listen")
        assert request["params"]["notifications"] == {"toolsListChanged": True, "resourcesListChanged": True}


@pytest.mark.parametrize(
    "answers",
    [legacy(), modern(server_discover=result(MODERN | {"capabilities": {"tools": {}}}))],
    ids=["legacy", "nothing announced"],
)
async def test_nothing_is_subscribed_to_where_nothing_would_come(answers: dict[str, Answer]) -> None:
    opener = Scripted(answers, modern())
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(5):
            await asyncio.sleep(0)
        assert "subscriptions/listen" not in opener.server.methods()


@pytest.mark.parametrize("how", ["result", "failed"])
@pytest.mark.usefixtures("quick_refreshes")
async def test_a_subscription_that_ends_is_opened_again_and_what_was_missed_is_read(how: str) -> None:
    opener = Scripted(modern())
    async with running(opener) as one:
        request = await begun(one, opener, "subscriptions/listen")
        opener.server.answers["tools/list"] = tools("t", "missed")
        if how == "result":
            opener.server.answer(request, result={})
        else:
            opener.server.receiver.failed(request["id"], Failure(Reason.UNREACHABLE, "the stream broke"))
        await opener.server.request("subscriptions/listen", nth=2)
        await one.log.until(lambda: one.names() == ["t", "missed"])
        assert one.state is State.READY


async def begun(one: One, opener: Scripted, method: str) -> Json:
    await one.log.until(lambda: opener.scripts)
    return await opener.server.request(method)


@pytest.mark.usefixtures("quick_refreshes")
async def test_a_subscription_that_does_not_exist_is_not_asked_for_again() -> None:
    opener = Scripted(modern(subscriptions_listen=lambda request: UNKNOWN))
    async with running(opener, refreshInterval=0.05) as one:
        await one.log.until(lambda: len(one.log.of(CatalogRead)) >= 6)
        assert opener.server.methods().count("subscriptions/listen") == 1


@pytest.mark.usefixtures("quick_refreshes")
async def test_a_subscription_that_is_refused_or_ended_at_once_is_asked_for_less_and_less() -> None:
    opener = Scripted(modern(subscriptions_listen=refusal(-32000)))
    async with running(opener) as one:
        times: list[float] = []
        await one.log.until(lambda: opener.scripts)
        for nth in range(1, 6):
            await opener.server.request("subscriptions/listen", nth=nth)
            times.append(asyncio.get_running_loop().time())
        pauses = [late - early for early, late in pairwise(times)]
        assert pauses[0] >= 0.02
        assert pauses[3] >= 0.16


# --- children --------------------------------------------------------------------------------------------------------


def fixture(*options: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-I", "-S", str(SERVERS / "fixture.py"), *options]}


@pytest.fixture
def children() -> TransportOpener:
    return TransportOpener(LimitsConfig, Flusher(), dict(os.environ))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def starts(journal: Path) -> list[int]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith("start ")]


@pytest.mark.parametrize(
    ("era", "spoken", "spawned"),
    [("legacy", "legacy", 1), ("modern", "modern", 1), ("both", "modern", 1), ("dies-on-probe", "legacy", 2)],
)
async def test_a_child_of_each_era_is_ready_and_its_pages_are_all_read(
    children: TransportOpener, tmp_path: Path, era: str, spoken: str, spawned: int
) -> None:
    journal = tmp_path / "journal"
    entry = fixture("--era", era, "--tools", "25", "--page-size", "7", "--journal", str(journal))
    async with running(children, **entry) as one:
        assert await one.attempt() is State.READY
        assert one.server.negotiated is not None
        assert one.server.negotiated.era == spoken
        assert {f"extra_{number}" for number in range(25)} < set(one.names())
        assert one.log.states() == [State.READY]
        assert len(starts(journal)) == spawned
        pid = one.server.pid
        assert pid == starts(journal)[-1]
        os.kill(pid, signal.SIGKILL)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert len(starts(journal)) == spawned + 1, "the verdict is remembered"
    assert not any(map(is_alive, starts(journal)))


@pytest.mark.usefixtures("impatient")
async def test_a_child_that_ignores_the_probe_is_ready_and_comes_back(children: TransportOpener) -> None:
    async with running(children, **fixture("--era", "silent-on-probe")) as one:
        assert await one.attempt() is State.READY
        pid = one.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await one.log.until(lambda: one.log.states().count(State.READY) == 2)
        assert one.log.states() == [State.READY, State.BACKOFF, State.CONNECTING, State.READY]


@pytest.mark.parametrize(
    ("tool", "reason", "said"),
    [("exit", Reason.EXIT, "exited with code 3"), ("crash_mid_call", Reason.SIGNAL, "killed by signal 9 (SIGKILL)")],
)
async def test_a_child_that_ends_within_a_call_fails_every_call_with_its_end(
    children: TransportOpener, tool: str, reason: Reason, said: str
) -> None:
    async with running(children, **fixture("--era", "legacy")) as one:
        await one.until(State.READY)
        calls = [one.call(params=b'{"name":"slow","arguments":{"seconds":60}}') for _ in range(20)]
        calls.append(one.call(params=b'{"name":"%b"}' % tool.encode()))
        with anyio.fail_after(SOON):
            for call in calls:
                await call.done.wait()
        assert {tuple(call.told) for call in calls} == {(said,)}
        assert {call.state for call in calls} == {State.BACKOFF}
        assert one.failure.reason is reason


async def test_a_mute_child_is_ended_after_the_start_timeout(children: TransportOpener, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with running(children, jitter=0.99, **fixture("--mute", "--journal", str(journal)), startTimeout=0.5) as one:
        assert await one.attempt() is State.BACKOFF
        assert one.failure.reason is Reason.START_TIMEOUT
        assert not is_alive(starts(journal)[0])


@pytest.mark.usefixtures("quick_probes")
async def test_a_stopped_child_is_replaced_and_calls_learn_of_it_at_once(children: TransportOpener) -> None:
    async with running(children, **fixture(), stopTimeout=0.4) as one:
        await one.until(State.READY)
        pid = one.server.pid
        assert pid is not None
        call = one.call(params=b'{"name":"pid"}')
        with anyio.fail_after(SOON):
            await call.done.wait()
        os.kill(pid, signal.SIGSTOP)
        call = one.call(params=b'{"name":"pid"}')
        with anyio.fail_after(SOON):
            await call.done.wait()
        assert (call.told, call.state) == (["missed 3 probes in a row"], State.BACKOFF)
        assert is_alive(pid), "it is being ended meanwhile"
        await one.until(State.READY)
        assert not is_alive(pid)
        assert one.server.pid != pid


async def test_restart_replaces_the_child(children: TransportOpener) -> None:
    async with running(children, **fixture()) as one:
        await one.until(State.READY)
        pid = one.server.pid
        assert pid is not None
        one.server.restart()
        assert await one.attempt() is State.READY
        assert one.server.pid not in (None, pid)
        assert not is_alive(pid)


async def test_a_missing_command_parks_with_its_name(children: TransportOpener) -> None:
    async with running(children, command="/no/such/program") as one:
        assert await one.attempt() is State.PARKED
        assert one.failure.reason is Reason.SPAWN
        assert "/no/such/program" in one.failure.message


async def test_a_child_that_floods_stdout_is_ended(children: TransportOpener) -> None:
    entry: dict[str, Any] = {"command": sys.executable, "args": ["-I", "-S", str(SERVERS / "faulty.py"), "flood"]}
    async with running(children, jitter=0.99, **entry) as one:
        await one.until(State.READY)
        one.call(params=b'{"name":"trigger"}')
        await one.ended()
        assert one.failure.reason is Reason.PROTOCOL
        assert len(one.log.of(InvalidLine)) <= conversation_module.FLOOD_LINES + 1
