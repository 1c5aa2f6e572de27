"""The table of requests that wait for one server."""

import asyncio
import math

import pytest

from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.servers.pending import PendingRequests

from ..scripted import Recorded

pytestmark = pytest.mark.anyio


def table(cancelled: list[int] | None = None) -> PendingRequests:
    """A table that keeps which requests were given up."""
    given_up = [] if cancelled is None else cancelled
    return PendingRequests(lambda id, waiter, reason: given_up.append(id), late=lambda id: None)


def waiting(seconds: float) -> Recorded:
    return Recorded(deadline=asyncio.get_running_loop().time() + seconds)


async def test_deadlines_pass_in_their_own_order_and_the_server_is_told() -> None:
    cancelled: list[int] = []
    pending = table(cancelled)
    late, soon, never = waiting(0.06), waiting(0.02), waiting(math.inf)
    ids = [pending.add(waiter) for waiter in (late, soon, never)]
    await asyncio.wait_for(late.done.wait(), 5)
    assert (late.told, soon.told) == (["expired"], ["expired"])
    assert cancelled == [ids[1], ids[0]]
    assert len(pending) == 1
    assert never.told == []


async def test_a_deadline_that_moved_is_kept() -> None:
    pending = table()
    moved, other = waiting(0.02), waiting(0.05)
    pending.add(moved)
    pending.add(other)
    moved.deadline += 1000
    await asyncio.wait_for(other.done.wait(), 5)
    assert (moved.told, other.told) == ([], ["expired"])


async def test_ids_are_never_used_twice() -> None:
    pending = table()
    seen = set()
    for _ in range(100):
        id = pending.add(waiting(10))
        pending.take(id)
        assert id not in seen
        assert pending.was_issued(id)
        seen.add(id)
    assert not pending.was_issued(max(seen) + 1)
    assert not pending.was_issued(0)


async def test_the_end_of_the_exchange_is_told_to_everyone_once() -> None:
    pending = table()
    waiters = [waiting(0.02), waiting(10)]
    for waiter in waiters:
        pending.add(waiter)
    pending.fail_all(Failure(Reason.EXIT, "exited with code 3"))
    pending.fail_all(Failure(Reason.EXIT, "again"))
    assert [waiter.told for waiter in waiters] == [["exited with code 3"]] * 2
    await asyncio.sleep(0)
    assert len(pending) == 0
