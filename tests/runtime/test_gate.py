"""Starts are limited by what they burn, not by how many they are."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from mcp_multi_server.runtime import gate
from mcp_multi_server.runtime.gate import Gate

pytestmark = pytest.mark.anyio


def costs(*burning: bool) -> tuple[list[int], Callable[[int], float]]:
    """Processes of which some burn a whole processor and some nothing."""
    time = asyncio.get_running_loop().time
    return list(range(len(burning))), lambda pid: time() if burning[pid] else 0.0


async def seconds_to_admit(*burning: bool) -> float:
    pids, cpu_seconds = costs(*burning)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with anyio.fail_after(10):
        await Gate(starting=lambda: pids, cpu_seconds=cpu_seconds, cores=2).admit()
    return loop.time() - begun


async def test_a_free_processor_admits_at_once() -> None:
    assert await seconds_to_admit(True) < gate.LOOK_EVERY


async def test_servers_that_merely_wait_hold_no_place() -> None:
    assert await seconds_to_admit(*[False] * 20) < gate.LONGEST_WAIT / 2


async def test_starts_that_burn_every_processor_are_waited_for_a_second_at_most() -> None:
    waited = await seconds_to_admit(True, True, False)
    assert gate.LONGEST_WAIT <= waited < 3 * gate.LONGEST_WAIT


async def test_a_process_that_is_gone_counts_for_nothing() -> None:
    with anyio.fail_after(5):
        await Gate(starting=lambda: [1, 2, 3], cpu_seconds=lambda pid: None, cores=2).admit()


async def test_those_who_wait_are_admitted_in_turn() -> None:
    order: list[int] = []
    barrier = Gate(starting=list, cpu_seconds=lambda pid: None, cores=2)

    async def start(number: int) -> None:
        await barrier.admit()
        order.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(start, number)
    assert order == [0, 1, 2, 3, 4]
