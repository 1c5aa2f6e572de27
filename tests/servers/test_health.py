"""Whether a server that is ready still answers: probes, lost requests, and what a suspend means."""

from __future__ import annotations

import math

import anyio
import pytest

from mcp_multi_server.core import lifecycle
from mcp_multi_server.core.events import Probed
from mcp_multi_server.core.lifecycle import Failure, Lost, Reason, State, http_failure
from mcp_multi_server.servers import health

from ..scripted import SOON, Answer, Scripted, legacy, modern, result, silence, unknown
from .one_server import One, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("answers", "method"), [(legacy(), "ping"), (modern(), "server/discover")])
async def test_an_idle_server_is_probed(answers: dict[str, Answer], method: str) -> None:
    opener = Scripted(answers)
    async with running(opener) as one:
        await one.log.until(lambda: len(one.log.of(Probed)) >= 2)
        assert all(probed.good for probed in one.log.of(Probed))
        await opener.server.request(method, nth=2)
        assert one.log.states() == [State.READY]


async def test_a_server_that_answers_is_not_probed() -> None:
    opener = Scripted(legacy(tools_call=result({})))
    async with running(opener) as one:
        await one.until(State.READY)
        for _ in range(100):
            call = one.call()
            with anyio.fail_after(SOON):
                await call.done.wait()
            await anyio.sleep(health.PROBE_EVERY - 1)
        assert one.log.of(Probed) == []


async def test_after_a_suspend_a_server_is_probed_at_once_however_lately_it_answered() -> None:
    opener = Scripted(legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        one.server.check_now()
        await one.log.until(lambda: one.log.of(Probed), within=5)
        assert one.log.of(Probed) == [Probed("one", True)]
        opener.server.answers["ping"] = silence
        one.server.check_now()
        await opener.server.request("ping", nth=2)


@pytest.mark.usefixtures("long_backoff")
@pytest.mark.parametrize("permanent", [False, True])
async def test_after_a_suspend_a_planned_attempt_is_made_at_once_and_others_stay_as_they_are(permanent: bool) -> None:
    opener = Scripted(Lost(Failure(Reason.UNREACHABLE, "refused", permanent)), Lost(Failure(Reason.CONFIG, "", True)))
    async with running(opener) as one:
        await one.ended()
        assert one.server.status.next_attempt is not None
        one.server.check_now()
        await one.ended(2)
        one.server.check_now()
        assert one.server._retry_at == math.inf
        assert one.state is State.PARKED


async def test_an_error_answers_a_probe_too() -> None:
    async with running(Scripted(legacy(ping=unknown))) as one:
        await one.log.until(lambda: one.log.of(Probed))
        assert one.log.of(Probed) == [Probed("one", True)]


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


async def test_a_server_that_hangs_is_replaced() -> None:
    opener = Scripted(legacy(ping=silence), legacy())
    async with running(opener) as one:
        await one.until(State.READY)
        call = one.call()
        await one.ready(2)
        assert one.log.states() == [State.READY, State.DEGRADED, State.BACKOFF, State.CONNECTING, State.READY]
        assert one.failure == Failure(Reason.HANG, "missed 3 probes in a row")
        assert call.told == ["missed 3 probes in a row"]
        assert [probed.good for probed in one.log.of(Probed)][:3] == [False] * 3


async def test_a_probe_that_the_end_cuts_off_is_no_bad_probe() -> None:
    opener = Scripted(legacy(ping=silence))
    async with running(opener) as one:
        await one.until(State.READY)
        await opener.server.request("ping")
        opener.server.die()
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
            await anyio.sleep(0.001)
            one.call()
            opener.server.answer(opener.server.sent[-1], result={})
        assert one.state is State.READY
