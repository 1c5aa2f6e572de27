"""Signs of life: from the supervisor's own task, not from the loop alone."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mcp_multi_server.core.config.config import parse
from mcp_multi_server.core.lifecycle import State, Status
from mcp_multi_server.daemon.config_file import lookup_in
from mcp_multi_server.daemon.fleet import Fleet
from mcp_multi_server.daemon.systemd import Service
from mcp_multi_server.servers.heartbeat import Heartbeat
from mcp_multi_server.telemetry.events import Events
from tests import virtual
from tests.systemd.manager import Manager

pytestmark = pytest.mark.anyio
PERIOD = 0.1
NO_SERVERS = parse(b'{"mcpServers":{}}', lookup_in("/"))


async def test_a_task_that_has_its_turns_shows_it_again_and_again() -> None:
    heartbeat = Heartbeat()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat)
        with anyio.fail_after(10):
            for _ in range(100):
                await heartbeat.next_beat()
        tasks.cancel_scope.cancel()


async def test_who_gave_up_waiting_for_a_beat_does_not_keep_the_next_from_it() -> None:
    heartbeat = Heartbeat()
    with anyio.move_on_after(0.01):
        await heartbeat.next_beat()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.beat)
        with anyio.fail_after(10):
            await heartbeat.next_beat()
            await heartbeat.next_beat()
        tasks.cancel_scope.cancel()


def test_the_watchdog_is_fed_only_while_the_supervisors_task_answers() -> None:
    """A loop that runs is not enough: here it runs, and the supervisor has not begun."""

    async def scenario(manager: Manager) -> None:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(round(PERIOD * 3e6))}
        fleet = Fleet(NO_SERVERS, events=Events())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Service(environ, tell=Events().tell).run, fleet)
            await anyio.sleep(PERIOD * 100)
            assert manager.hear_all() == [("READY=1",), ("STATUS=no servers",)]
            await tasks.start(fleet.run)
            for _ in range(5):  # a socket keeps ten datagrams that nobody reads
                await anyio.sleep(PERIOD)
                manager.hear_all()
            assert manager.hear_all().count(("WATCHDOG=1",)) == 5
            tasks.cancel_scope.cancel()

    with Manager() as manager:
        virtual.run(scenario(manager))


def test_a_wait_that_grows_shorter_is_told_again_without_anything_having_happened() -> None:
    async def scenario(manager: Manager) -> None:
        fleet = Fleet(parse(b'{"mcpServers":{"away":{"command":"x"}}}', lookup_in("/")), events=Events())
        waiting: Any = SimpleNamespace(status=Status(State.BACKOFF, next_attempt=anyio.current_time() + 12))
        snapshot = replace(fleet.snapshot, servers=MappingProxyType({"away": waiting}))
        shown = cast("Any", SimpleNamespace(snapshot=snapshot, reloads=fleet.reloads))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Service({"NOTIFY_SOCKET": manager.address}, tell=Events().tell).run, shown)
            await anyio.sleep(11)
            tasks.cancel_scope.cancel()

    with Manager() as manager:
        virtual.run(scenario(manager))
        told = [int(words[0].rpartition("next ")[2].removesuffix(" s")) for words in manager.hear_all()[1:]]
        assert manager.hear_all()[1] == ("STATUS=0/1 ready, 1 backoff, next 12 s",)
        assert len(told) > 3
        assert told == sorted(set(told), reverse=True)


async def test_a_reload_is_told_only_between_ready_and_stopping() -> None:
    with Manager() as manager:
        service = Service({"NOTIFY_SOCKET": manager.address}, tell=Events().tell)
        fleet = Fleet(NO_SERVERS, events=Events())
        with service.reloading():
            assert manager.hear_all() == []
        assert manager.hear_all() == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run, fleet)
            await anyio.wait_all_tasks_blocked()
            assert len(manager.hear_all()) == 2, "that it is ready, and how"
            with service.reloading():
                with service.reloading():
                    pass
                assert [words[0] for words in manager.hear_all()[2:]] == ["RELOADING=1", "RELOADING=1"]
                service.stopping("SIGTERM", 3)
            tasks.cancel_scope.cancel()
        assert manager.hear_all()[4:] == [("STOPPING=1", "EXTEND_TIMEOUT_USEC=3000000", "STATUS=stopping (SIGTERM)")]


async def test_who_is_told_to_stop_before_it_is_ready_never_says_that_it_is() -> None:
    with Manager() as manager:
        service = Service({"NOTIFY_SOCKET": manager.address}, tell=Events().tell)
        service.stopping("SIGTERM", 3)
        await service.run(Fleet(NO_SERVERS, events=Events()))
        assert [words[0] for words in manager.hear_all()] == ["STOPPING=1"]
