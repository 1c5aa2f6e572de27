"""How long a message of a program, and one for it, may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp import MCPError
from mcp_types import CallToolResult

from mcp_multi_server import MultiServerClient
from mcp_multi_server.core.config.config import Config
from mcp_multi_server.core.config.settings import DaemonConfig
from mcp_multi_server.core.config.values import MAX_BYTES
from mcp_multi_server.library.fleets import _own_limits

from ..e2e.entries import fixture
from .clients import SOON, Opened, both, owning, structured

pytestmark = pytest.mark.anyio

KIB = 1024
SMALL = {"limits": {"clientLine": 64 * KIB, "serverLine": 32 * KIB}}


def slow_one(client: MultiServerClient) -> asyncio.Task[CallToolResult]:
    """A call that is under way, at the same server and from the same client."""
    return asyncio.create_task(client.call_tool("slow", {"seconds": 0.5, "tag": "other"}))


async def assert_unharmed(call: asyncio.Task[CallToolResult]) -> None:
    assert structured(await asyncio.wait_for(call, SOON))["tag"] == "other"


@both
async def test_a_call_that_is_too_long_is_refused_unsent_and_harms_no_other(opened: Opened) -> None:
    async with opened({"one": fixture("one")}, SMALL) as client:
        under_way, pid = slow_one(client), client.status()["servers"][0]["pid"]
        with pytest.raises(MCPError, match=r"daemon\.limits\.clientLine") as refused:
            await client.call_tool("echo", {"text": "x" * 70 * KIB})
        data = refused.value.error.data
        assert (refused.value.code, data["limit"], data["most"]) == (-32600, "daemon.limits.clientLine", 64 * KIB)
        assert data["bytes"] > 70 * KIB
        await assert_unharmed(under_way)
        assert client.status()["servers"][0]["pid"] == pid


@both
async def test_a_result_that_is_too_long_ends_its_own_call_and_nothing_else(opened: Opened) -> None:
    async with opened({"one": fixture("one")}, SMALL) as client:
        under_way, before = slow_one(client), client.status()["servers"][0]
        with pytest.raises(MCPError, match=r"more than daemon\.limits\.serverLine allows"):
            await client.call_tool("echo", {"text": "x" * 60 * KIB})
        await assert_unharmed(under_way)
        after = client.status()["servers"][0]
        assert (after["pid"], after["state"], after["restarts"]) == (before["pid"], "ready", 0)


async def test_messages_between_a_program_and_its_own_servers_may_be_of_any_length() -> None:
    async with owning({"one": fixture("one")}) as client:
        text = "x" * 5 * 1024 * KIB  # over what a daemon takes of a client
        assert structured(await client.call_tool("echo", {"text": text}))["arguments"] == {"text": text}


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({}, (MAX_BYTES, MAX_BYTES, 4 * MAX_BYTES, 256)),
        ({"limits": {"inFlight": 3}}, (MAX_BYTES, MAX_BYTES, 4 * MAX_BYTES, 3)),
        ({"limits": {"clientLine": 2048}}, (2048, MAX_BYTES, 4 * MAX_BYTES, 256)),
        ({"limits": {"outgoing": 67108864}}, (64 * KIB * KIB, 64 * KIB * KIB, 64 * KIB * KIB, 256)),
    ],
)
def test_what_the_config_sets_holds_and_nothing_else_is_limited(given: dict[str, Any], own: tuple[int, ...]) -> None:
    limits = _own_limits(Config((), {}, {}, DaemonConfig.model_validate(given)))
    assert (limits.client_line, limits.server_line, limits.outgoing, limits.in_flight) == own
    assert limits.outgoing >= max(limits.client_line, limits.server_line)
