"""The table of requests that wait for one server."""

import asyncio
import math

import pytest

from mcp_multi_server.core.jsonrpc import Members, Message
from mcp_multi_server.core.lifecycle import Failure, Reason
from mcp_multi_server.servers.pending import PendingRequests

pytestmark = pytest.mark.anyio


class Recorded:
    """A waiter that keeps what it is told."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.told = asyncio.get_running_loop().create_future()

    def settle(self, message: Message) -> None:
        self.told.set_result("settled")

    def fail(self, failure: Failure) -> None:
        self.told.set_result(failure.message)

    def expire(self) -> None:
        self.told.set_result("expired")

    def progress(self, params: Members) -> None:
        self.deadline += 1000


async def test_deadlines_pass_in_their_own_order_and_the_server_is_told() -> None:
    cancelled: list[int] = []
    pending = PendingRequests(lambda id, reason: cancelled.append(id))
    late, soon, never = Recorded(0.06), Recorded(0.02), Recorded(math.inf)
    ids = [pending.add(waiter) for waiter in (late, soon, never)]
    assert await asyncio.wait_for(late.told, 5) == "expired"
    assert soon.told.result() == "expired"
    assert cancelled == [ids[1], ids[0]]
    assert len(pending) == 1
    assert not never.told.done()


async def test_a_deadline_that_moved_is_kept() -> None:
    pending = PendingRequests(lambda id, reason: None)
    moved, other = Recorded(0.02), Recorded(0.05)
    pending.add(moved)
    pending.add(other)
    moved.progress({})
    assert await asyncio.wait_for(other.told, 5) == "expired"
    assert not moved.told.done()


async def test_ids_are_never_used_twice() -> None:
    pending = PendingRequests(lambda id, reason: None)
    seen = set()
    for _ in range(100):
        id = pending.add(Recorded(10))
        pending.take(id)
        assert id not in seen
        assert pending.was_issued(id)
        seen.add(id)
    assert not pending.was_issued(max(seen) + 1)
    assert not pending.was_issued(0)


async def test_the_end_of_the_connection_is_told_to_everyone_once() -> None:
    pending = PendingRequests(lambda id, reason: None)
    waiters = [Recorded(0.02), Recorded(10)]
    for waiter in waiters:
        pending.add(waiter)
    pending.fail_all(Failure(Reason.EXIT, "exited with code 3"))
    pending.fail_all(Failure(Reason.EXIT, "again"))
    assert [waiter.told.result() for waiter in waiters] == ["exited with code 3"] * 2
    await asyncio.sleep(0)
    assert len(pending) == 0
