"""Input requests as a program answers them: with its callbacks, or a refusal."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest

from mcp_multi_server import ServerRequestContext
from mcp_multi_server.core import jsonrpc
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcp_multi_server.core.jsonrpc import Message
from mcp_multi_server.library.callbacks import Callbacks
from mcp_multi_server.library.input_requests import InputRequestHandler
from mcp_multi_server.library.time_limits import TimeLimits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def elicit(context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"for": context.server_name, "meta": str(context.meta)})


def message(method: str, params: object = None) -> Message:
    """A request from the daemon."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": method}
    return jsonrpc.decode(jsonrpc.encode(body if params is None else body | {"params": params}))


WHO = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


def handler(callbacks: Callbacks) -> InputRequestHandler:
    return InputRequestHandler(callbacks, TimeLimits())


async def test_it_says_what_it_has_callbacks_for() -> None:
    assert handler(Callbacks()).capabilities == {}
    given = handler(Callbacks(elicitation=elicit)).capabilities
    assert given == {"elicitation": {"form": {}, "url": {}}}


@pytest.mark.parametrize(
    ("meta", "server", "left"),
    [({"serverName": "one"}, "one", "None"), ({"serverName": "one", "a": 1}, "one", "{'a': 1}"), (None, "", "None")],
)
async def test_the_callback_learns_who_asks(meta: dict[str, Any] | None, server: str, left: str) -> None:
    params = WHO if meta is None else WHO | {"_meta": meta}
    answer = await handler(Callbacks(elicitation=elicit)).answer(message("elicitation/create", params))
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
        await handler(Callbacks(elicitation=elicit)).answer(message(method, params))
    assert refused.value.code == code


@pytest.mark.parametrize("meta", ["5", "[" * 100_000 + "]" * 100_000])
async def test_whatever_is_wrong_with_a_request_is_an_error_of_its_own(meta: str) -> None:
    """It must not end the connection, which serves all other calls."""
    raw = jsonrpc.encode(WHO | {"_meta": "META"}).replace(b'"META"', meta.encode())
    asked = Message(jsonrpc="2.0", id=jsonrpc.Raw(b"1"), method="elicitation/create", params=jsonrpc.Raw(raw))
    with pytest.raises(RpcError) as refused:
        await handler(Callbacks(elicitation=elicit)).answer(asked)
    assert refused.value.code in (INVALID_PARAMS, INTERNAL_ERROR)
