"""A program as the host of its servers: what is answered without its callbacks, and how time limits stand still."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import mcp_types as types
import pytest

from mcp_multi_server import ServerRequestContext
from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcp_multi_server.core.jsonrpc import Message
from mcp_multi_server.library import callback_runner
from mcp_multi_server.library.callback_runner import CallbackRunner
from mcp_multi_server.library.callbacks import Callbacks
from mcp_multi_server.library.time_limits import TimeLimits
from tests.polling import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def elicit(context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"for": context.server_name, "meta": str(context.meta)})


def message(method: str, params: object = None, *, id: object = 7) -> Message:
    """What comes from the daemon."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    body |= {} if id is None else {"id": id}
    return jsonrpc.decode(jsonrpc.encode(body if params is None else body | {"params": params}))


def log(data: object, level: str = "info") -> Message:
    return message("notifications/message", {"level": level, "data": data}, id=None)


WHO = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


# --- questions -------------------------------------------------------------------------------------------------------


async def test_it_says_what_it_has_callbacks_for() -> None:
    assert CallbackRunner(Callbacks(), TimeLimits()).capabilities == {}
    given = CallbackRunner(Callbacks(elicitation=elicit), TimeLimits()).capabilities
    assert given == {"elicitation": {"form": {}, "url": {}}}


@pytest.mark.parametrize(
    ("meta", "server", "left"),
    [({"serverName": "one"}, "one", "None"), ({"serverName": "one", "a": 1}, "one", "{'a': 1}"), (None, "", "None")],
)
async def test_the_callback_learns_who_asks(meta: dict[str, Any] | None, server: str, left: str) -> None:
    params = WHO if meta is None else WHO | {"_meta": meta}
    answer = await CallbackRunner(Callbacks(elicitation=elicit), TimeLimits()).answer(
        message("elicitation/create", params)
    )
    assert jsonrpc.value(answer) == {"action": "accept", "content": {"for": server, "meta": left}}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("elicitation/create", {}, INVALID_PARAMS),
        ("elicitation/create", None, INVALID_PARAMS),
        ("elicitation/create", {"mode": "dance"}, INVALID_PARAMS),
        ("sampling/createMessage", {"messages": [], "maxTokens": 1}, METHOD_NOT_FOUND),
        ("roots/list", None, METHOD_NOT_FOUND),
        ("no/such", None, METHOD_NOT_FOUND),
    ],
)
async def test_what_no_callback_can_take_is_refused(method: str, params: object, code: int) -> None:
    with pytest.raises(RpcError) as refused:
        await CallbackRunner(Callbacks(elicitation=elicit), TimeLimits()).answer(message(method, params))
    assert refused.value.code == code


@pytest.mark.parametrize("meta", ["5", "[" * 100_000 + "]" * 100_000])
async def test_whatever_is_wrong_with_a_question_is_an_error_of_its_own(meta: str) -> None:
    """It must not end the connection, which serves all other calls."""
    raw = jsonrpc.encode(WHO | {"_meta": "META"}).replace(b'"META"', meta.encode())
    asked = Message(jsonrpc="2.0", id=jsonrpc.Raw(b"1"), method="elicitation/create", params=jsonrpc.Raw(raw))
    with pytest.raises(RpcError) as refused:
        await CallbackRunner(Callbacks(elicitation=elicit), TimeLimits()).answer(asked)
    assert refused.value.code in (INVALID_PARAMS, INTERNAL_ERROR)


# --- log messages ----------------------------------------------------------------------------------------------------


async def test_a_callback_that_is_slow_misses_messages_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callback_runner, "LOGS_KEPT", 2)
    told = []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        told.append(params.data)

    host = CallbackRunner(Callbacks(logging=take), TimeLimits())
    for number in range(10):
        host.log(log(number))
    work = asyncio.create_task(host.run())
    await until(lambda: len(told) >= 2)
    host.log(log("next"))
    await until(lambda: len(told) >= 3)
    work.cancel()
    assert told == [0, 1, "next"]
    assert caplog.text.count("the logging callback is slow") == 1


async def test_a_malformed_message_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        told.append(params.data)

    host = CallbackRunner(Callbacks(logging=take), TimeLimits())
    host.log(log("x", level="loud"))
    host.log(message("notifications/message", id=None))
    host.log(log("good"))
    work = asyncio.create_task(host.run())
    await until(lambda: told)
    work.cancel()
    assert told == ["good"]
    assert caplog.text.count("it is malformed") == 2


async def test_without_a_callback_messages_are_not_kept() -> None:
    host = CallbackRunner(Callbacks(), TimeLimits())
    for number in range(3 * callback_runner.LOGS_KEPT):
        host.log(log(number))


# --- time limits -----------------------------------------------------------------------------------------------------


async def test_a_limit_that_is_paused_does_not_pass_and_goes_on_afterwards() -> None:
    limits = TimeLimits()
    with pytest.raises(TimeoutError), limits.within(0.05, lambda server: server == "one"):
        with limits.paused("one"), limits.paused("one"), anyio.move_on_after(0.1):
            await anyio.sleep_forever()
        await anyio.sleep_forever()


async def test_only_limits_that_concern_the_server_are_paused() -> None:
    limits = TimeLimits()
    with pytest.raises(TimeoutError), limits.within(0.05, lambda server: server == "one"), limits.paused("two"):
        await anyio.sleep_forever()


async def test_without_a_limit_nothing_is_paused() -> None:
    limits = TimeLimits()
    with limits.within(None, lambda server: True), limits.paused("one"):
        await anyio.sleep(0)


async def test_a_limit_whose_call_ended_meanwhile_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    limits = TimeLimits()
    paused = limits.paused("one")
    with limits.within(5, lambda server: True):
        paused.__enter__()
    paused.__exit__(None, None, None)
    await anyio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
