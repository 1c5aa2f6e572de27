"""Log messages of servers on their way to a callback that is slow, absent, or not to be troubled with garbage."""

from __future__ import annotations

import asyncio

import anyio
import mcp_types as types
import pytest

from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.jsonrpc import Message
from mcp_multi_server.library import log_delivery
from mcp_multi_server.library.log_delivery import LogDelivery

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def log(data: object, level: str = "info") -> Message:
    """A log message from the daemon."""
    params = {"level": level, "data": data}
    return jsonrpc.decode(jsonrpc.encode({"jsonrpc": "2.0", "method": "notifications/message", "params": params}))


async def test_a_callback_that_is_slow_misses_messages_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_delivery, "LOGS_KEPT", 2)
    told = []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        told.append(params.data)

    delivery = LogDelivery(take)
    for number in range(10):
        delivery.add(log(number))
    work = asyncio.create_task(delivery.run())
    with anyio.fail_after(5):
        while len(told) < 2:
            await anyio.sleep(0)
    delivery.add(log("next"))
    with anyio.fail_after(5):
        while len(told) < 3:
            await anyio.sleep(0)
    work.cancel()
    assert told == [0, 1, "next"]
    assert caplog.text.count("the logging callback is slow") == 1


async def test_a_malformed_message_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        told.append(params.data)

    delivery = LogDelivery(take)
    delivery.add(log("x", level="loud"))
    delivery.add(jsonrpc.decode(b'{"jsonrpc":"2.0","method":"notifications/message"}'))
    delivery.add(log("good"))
    work = asyncio.create_task(delivery.run())
    with anyio.fail_after(5):
        while not told:
            await anyio.sleep(0)
    work.cancel()
    assert told == ["good"]
    assert caplog.text.count("it is malformed") == 2


async def test_without_a_callback_messages_are_not_kept() -> None:
    delivery = LogDelivery(None)
    for number in range(3 * log_delivery.LOGS_KEPT):
        delivery.add(log(number))
