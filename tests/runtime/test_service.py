"""Signs of life: from the supervisor's own task, not from the loop alone."""

from __future__ import annotations

import anyio
import pytest

from mcp_multi_server.core.config import parse
from mcp_multi_server.runtime.config_file import lookup_in
from mcp_multi_server.runtime.fleet import Fleet
from mcp_multi_server.runtime.heartbeat import Heartbeat
from mcp_multi_server.runtime.service import Service
from tests.systemd.manager import Manager

pytestmark = pytest.mark.anyio
PERIOD = 0.1
NO_SERVERS = parse(b'{"mcpServers":{}}', lookup_in("/"))


async def test_a_heart_that_beats_is_felt_again_and_again() -> None:
    heartbeat = Heartbeat()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat)
        with anyio.fail_after(10):
            for _ in range(100):
                await heartbeat.feel()
        tasks.cancel_scope.cancel()


async def test_who_gave_up_feeling_does_not_keep_the_next_from_it() -> None:
    heartbeat = Heartbeat()
    with anyio.move_on_after(0.01):
        await heartbeat.feel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat)
        with anyio.fail_after(10):
            await heartbeat.feel()
            await heartbeat.feel()
        tasks.cancel_scope.cancel()


async def test_the_watchdog_is_fed_only_while_the_supervisors_task_answers() -> None:
    """A loop that runs is not enough: here it runs, and the supervisor has not begun."""
    with Manager() as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(round(PERIOD * 3e6))}
        fleet = Fleet("", NO_SERVERS, observe=lambda event: None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Service(environ, warn=lambda problem: None).run, fleet)
            await anyio.sleep(PERIOD * 5)
            assert manager.hear_all() == [("READY=1",), ("STATUS=no servers",)]
            await tasks.start(fleet.run)
            with anyio.fail_after(10):
                while manager.hear_all().count(("WATCHDOG=1",)) < 3:
                    await anyio.sleep(PERIOD)
            tasks.cancel_scope.cancel()
