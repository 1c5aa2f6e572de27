"""By which transport a server is reached: streamable HTTP, or else the older SSE."""

from __future__ import annotations

import pytest

from mcp_multi_server.core.lifecycle import Failure, Reason, State, http_failure

from ..scripted import Scripted, legacy, silence
from .one_server import One, running

pytestmark = pytest.mark.anyio


async def refuse(one: One, opener: Scripted, status: int) -> None:
    """Answer the first request as an HTTP server that refuses it."""
    await one.log.until(lambda: opener.scripts)
    await opener.server.request("server/discover")
    opener.server.last_status = status
    opener.server.die(http_failure(status))


@pytest.mark.parametrize("status", [400, 404, 405, 406])
async def test_a_server_that_knows_only_sse_is_reached_in_the_same_attempt(status: int) -> None:
    opener = Scripted(legacy(server_discover=silence), legacy())
    async with running(opener, command=None, url="http://127.0.0.1/x") as one:
        assert one.server.transport_kind == "http"
        await refuse(one, opener, status)
        assert await one.attempt() is State.READY
        assert one.log.states() == [State.READY]
        assert one.server.transport_kind == "sse"
        opener.server.die(Failure(Reason.CLOSED, "the event stream ended"))
        await one.ready(2)
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
        opener.server.die(http_failure(502))
        await one.ready(2)
        assert opener.kinds == ["http", "http"]
