"""Starts are limited by what they burn, not by how many they are."""

import asyncio

import anyio
import pytest

from mcp_multi_server.servers import start_limit
from mcp_multi_server.servers.start_limit import StartLimit

pytestmark = pytest.mark.anyio


async def seconds_to_admit(*burning: bool) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with anyio.fail_after(10):
        await StartLimit(starting=lambda: range(len(burning)), is_burning=burning.__getitem__, cores=2).admit()
    return loop.time() - begun


async def test_a_free_processor_admits_at_once() -> None:
    assert await seconds_to_admit(True) < start_limit.LONGEST_WAIT / 2


async def test_servers_that_merely_wait_hold_no_place() -> None:
    assert await seconds_to_admit(*[False] * 20, True) < start_limit.LONGEST_WAIT / 2


async def test_starts_that_burn_every_processor_are_waited_for_a_second_at_most() -> None:
    waited = await seconds_to_admit(True, True, False)
    assert start_limit.LONGEST_WAIT <= waited < 3 * start_limit.LONGEST_WAIT


async def test_the_next_start_begins_as_soon_as_one_before_it_waits() -> None:
    burning = {1, 2}
    admitted = anyio.Event()

    async def start() -> None:
        await StartLimit(starting=lambda: [1, 2], is_burning=burning.__contains__, cores=2).admit()
        admitted.set()

    with anyio.fail_after(start_limit.LONGEST_WAIT / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await anyio.wait_all_tasks_blocked()
            assert not admitted.is_set()
            burning.remove(1)
            await admitted.wait()


async def test_those_who_wait_are_admitted_in_turn() -> None:
    order: list[int] = []
    barrier = StartLimit(starting=list, is_burning=lambda pid: False, cores=2)

    async def start(number: int) -> None:
        await barrier.admit()
        order.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(start, number)
    assert order == [0, 1, 2, 3, 4]
