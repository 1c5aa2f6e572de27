"""All clients together: who gets in, who is turned away and told why, and how everybody is parted with."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket

import pytest

from mcp_multi_server.clients import gateway, refusals
from mcp_multi_server.clients.access import Peer
from mcp_multi_server.core.errors import INVALID_REQUEST
from mcp_multi_server.core.events import ClientConnected, ClientGone, Rejected
from mcp_multi_server.core.lifecycle import State
from tests.fixtures.fixture import member

from ..client import Client, Message
from ..fleet import Fleet, Script, configured, fleet

pytestmark = pytest.mark.anyio

CLOSED_TO_ALL: Message = {"access": {"allowDescendants": False}}


async def apply(running: Fleet, *scripts: Script, daemon: Message) -> None:
    running.scripts |= {script.name: script for script in scripts}
    running.supervisor.apply(configured(scripts, daemon))


async def test_a_client_is_known_by_its_process_and_its_user() -> None:
    async with fleet(Script("one")) as running:
        client = await running.client()
        await client.result("ping")
        assert await running.event(ClientConnected) == ClientConnected(1, os.getpid(), os.geteuid())
        (session,) = running.gateway.sessions.values()
        assert session.peer == Peer(os.getpid(), os.geteuid(), os.getegid())
        client.close()
        assert await running.event(ClientGone) == ClientGone(1, "closed")
        assert not running.gateway.sessions


@pytest.mark.parametrize(
    ("said", "id"),
    [
        (b"", None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n', 1),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n{"jsonrpc":"2.0","id":"a","method":"ping"}\n', "a"),
        (b'{"jsonrpc":"2.0","id":1,"method":"unfinished', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":"' + b"x" * 100_000, 7),
        (b"no JSON\n", None),
    ],
    ids=["says nothing", "has spoken already", "a notification first", "half a request", "a long request", "nonsense"],
)
@pytest.mark.parametrize("hasty", [False, True])
async def test_who_may_not_connect_is_told_why_in_answer_to_the_first_request(
    said: bytes, id: object, hasty: bool
) -> None:
    """`hasty`: the client has already spoken when it is turned away."""
    async with fleet(Script("one"), daemon=CLOSED_TO_ALL) as running:
        made = socket.socket(socket.AF_UNIX)
        made.connect(running.path)
        made.setblocking(False)
        client = Client(made, modern=False)
        running.clients.append(client)
        if not hasty:
            await running.event(Rejected)
        await client.write(said)
        (told,) = await client.ended()
        assert (told["id"], told["error"]["code"]) == (id, INVALID_REQUEST)
        assert told["error"]["data"]["reason"] == "access"
        assert "daemon.access.allowDescendants" in told["error"]["message"]
        assert (await running.event(Rejected)).reason == "access"
        assert not running.gateway.sessions


async def test_a_flood_of_clients_that_are_turned_away_and_say_nothing_is_told_at_once() -> None:
    async with fleet(Script("one"), daemon=CLOSED_TO_ALL) as running:
        silent = [await running.client() for _ in range(2 * refusals.MOST_WAITING)]
        began = asyncio.get_running_loop().time()
        for client in silent[refusals.MOST_WAITING :]:
            assert [told["id"] for told in await client.ended()] == [None]
        assert asyncio.get_running_loop().time() - began < refusals.FIRST_REQUEST
        running.gateway.close("the daemon stops")
        for client in silent[: refusals.MOST_WAITING]:
            assert [told["id"] for told in await client.ended()] == [None]


async def test_one_client_too_many_is_told_so_and_gets_in_later() -> None:
    async with fleet(Script("one"), daemon={"access": {"allowDescendants": True}, "limits": {"clients": 2}}) as running:
        first, second = await running.client(), await running.client()
        for client in (first, second):
            await client.result("ping")
        (told,) = await (await running.client()).ended()
        assert "more than 2 clients" in told["error"]["message"]
        assert (await running.event(Rejected)).reason == "clients"
        first.close()
        await running.event(ClientGone)
        assert await (await running.client()).result("ping") == {}


async def test_without_a_free_descriptor_it_waits_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "ACCEPT_PAUSE", 0.05)
    async with fleet(Script("one")) as running:
        earlier = await running.client()
        await earlier.result("ping")
        real = running.gateway._listener
        assert real is not None
        listener, attempts = real, 0

        class Exhausted:
            """The listener while the process has no descriptor left."""

            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                nonlocal attempts
                attempts += 1
                if attempts <= 4:  # a try is one with the reserve still held, and one with it given up
                    raise OSError(errno.EMFILE, "Too many open files")
                return listener.accept()

        running.gateway._listener = Exhausted()  # type: ignore[assignment]  # has all that is used
        late = await running.client()
        assert await earlier.result("ping") == {}, "who is there is served meanwhile"
        assert await late.result("ping") == {}
        assert attempts >= 5
        assert len([event for event in running.events if isinstance(event, Rejected)]) == 2, "one try a pause"


async def test_many_clients_at_once_are_all_served() -> None:
    async with fleet(Script("one")) as running:
        clients = [await running.client() for _ in range(150)]
        for client in clients:
            await client.post("tools/list", {"_meta": {}})
            await client.post("ping", id=2)
        for client in clients:
            assert {(await client.message())["id"] for _ in range(2)} == {1, 2}
        assert len(running.gateway.sessions) == 150


async def test_at_the_end_everybody_is_parted_with_and_servers_are_told() -> None:
    one = Script("one")
    one.replies["tools/call"] = None
    async with fleet(one) as running:
        busy, idle = await (await running.rested()).legacy(), await running.client()
        await idle.result("ping")
        await busy.post("tools/call", {"name": "echo"})
        sent = await one.got("tools/call")
        running.gateway.close("the daemon stops")
        assert await idle.ended() == []
        assert await busy.ended() == []
        told = json.loads(await one.got("notifications/cancelled"))
        assert told["params"]["requestId"] == json.loads(member(sent, "id"))
        reasons = {event.reason for event in running.events if isinstance(event, ClientGone)}
        assert reasons == {"the daemon stops"}
        running.gateway.close("once more")


async def test_new_limits_hold_for_new_clients() -> None:
    one = Script("one")
    async with fleet(one) as running:
        old = await running.client()
        await old.result("ping")
        limits = {"access": {"allowDescendants": True}, "limits": {"clientLine": 2048, "clients": 2}}
        await apply(running, one, daemon=limits)
        new = await running.client()
        long = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": "x" * 3000}}) + "\n"
        await new.write(long)
        assert "2048 bytes" in (await new.message())["error"]["message"]
        await old.write(long)
        assert (await old.message())["result"] == {}
        (told,) = await (await running.client()).ended()
        assert "more than 2 clients" in told["error"]["message"]


async def test_new_access_rules_hold_at_once() -> None:
    one = Script("one")
    async with fleet(one) as running:
        old = await running.client()
        await old.result("ping")
        await apply(running, one, daemon=CLOSED_TO_ALL)
        (told,) = await (await running.client()).ended()
        assert "allowDescendants" in told["error"]["message"]
        assert await old.result("ping") == {}, "who is in stays in"


async def test_another_naming_is_told_of_and_answered_to_at_once() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await (await running.rested()).legacy()
        await apply(running, one, daemon={"access": {"allowDescendants": True}, "naming": "qualified"})
        assert [tool["name"] for tool in (await client.result("tools/list"))["tools"]] == ["one__echo"]
        assert "Unknown tool" in (await client.error("tools/call", {"name": "echo"}))["message"]
        assert await client.result("tools/call", {"name": "one__echo"})
        assert (await client.notification())["method"] == "notifications/tools/list_changed"
        assert one.opened == 1, "no new connection for it"


async def test_a_blip_sends_no_list_changed() -> None:
    one = Script("one")
    async with fleet(one) as running:
        client = await (await running.rested()).legacy()
        one.die()
        await one.tried(2)
        await running.state("one", State.READY)
        await running.rested()
        assert await client.settled() == []


async def test_a_client_is_told_of_no_change_that_was_before_it() -> None:
    async with fleet(Script("one")) as running:
        client = await running.legacy()
        await running.rested()
        assert await client.settled() == []


async def test_several_servers_that_come_up_together_are_told_of_once() -> None:
    servers = [Script(name, tools=[f"tool_{name}"]) for name in ("one", "two", "three")]
    for server in servers:
        server.away = True
    async with fleet(*servers, up=False) as running:
        client = await running.legacy()
        for server in servers:
            server.come()
        for server in servers:
            await running.state(server.name, State.READY)
        assert (await client.notification())["method"] == "notifications/tools/list_changed"
        await running.rested()
        names = {tool["name"] for tool in (await client.result("tools/list"))["tools"]}
        assert names == {"tool_one", "tool_two", "tool_three"}
        kinds = [message["method"] for message in await client.settled()]
        assert "notifications/tools/list_changed" not in kinds


async def test_a_client_that_resets_in_the_middle_disturbs_nobody() -> None:
    one = Script("one")
    one.replies["tools/call"] = json.dumps({"content": [{"type": "text", "text": "x" * 200_000}]})
    async with fleet(one) as running:
        other = await running.legacy()
        for _ in range(20):
            rude = await running.client(modern=True)
            await rude.post("tools/call", {"name": "echo"})
            await rude.write('{"half')
            rude.close()
        assert await other.result("tools/call", {"name": "echo"})
        await running.until(lambda: len(running.gateway.sessions) == 1)
        assert await asyncio.wait_for(other.result("ping"), 5) == {}
