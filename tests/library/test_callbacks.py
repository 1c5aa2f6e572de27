"""What servers ask of a program and tell it, by callbacks: servers of its own and a daemon's, of both eras."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from pydantic import FileUrl

from mcp_multi_server import MultiServerClient, ServerRequestContext, SyncMultiServerClient
from mcp_multi_server.library.callbacks import CallbackOptions

from ..e2e.entries import Entry, fixture
from ..polling import until
from .clients import SOON, DaemonWith, Opened, journalled, owning, shared_daemons, structured

pytestmark = pytest.mark.anyio

ALL = ["sampling", "elicitation", "roots"]
SERVERS: dict[str, Entry] = {
    "new": fixture("new", "--era", "modern"),
    "old": fixture("old", "--era", "legacy", mayAsk=ALL),
}
each = pytest.mark.parametrize("server", list(SERVERS))
SECRET = "the password is swordfish"


@pytest.fixture(scope="module")
def daemon_with() -> Iterator[DaemonWith]:
    with shared_daemons() as daemon_with:
        yield daemon_with


@pytest.fixture(params=["owning", "attached"])
def opened(request: pytest.FixtureRequest, daemon_with: DaemonWith) -> Opened:
    """A client with servers of its own, or one of the daemon that has these servers."""

    @asynccontextmanager
    async def attached(
        servers: dict[str, Entry], **callbacks: Unpack[CallbackOptions]
    ) -> AsyncIterator[MultiServerClient]:
        async with MultiServerClient.connect(str(daemon_with(servers).socket), **callbacks) as client:
            yield client

    return owning if request.param == "owning" else attached


@pytest.fixture(autouse=True)
def library_logger() -> Iterator[logging.Logger]:
    """The library's logger, whose level is as before afterwards."""
    logger = logging.getLogger("mcp_multi_server")
    level = logger.level
    yield logger
    logger.setLevel(level)


class Host:
    """Callbacks that answer, and keep what they were asked."""

    def __init__(self) -> None:
        self.contexts: list[ServerRequestContext] = []
        self.asked: list[object] = []
        self.logged: list[types.LoggingMessageNotificationParams] = []

    async def sample(
        self, context: ServerRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult:
        self.contexts.append(context)
        self.asked.append(params)
        content = params.messages[0].content
        assert isinstance(content, types.TextContent)
        said = types.TextContent(type="text", text=content.text.upper())
        return types.CreateMessageResult(role="assistant", content=said, model="loud")

    async def elicit(self, context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.contexts.append(context)
        self.asked.append(params)
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def list_roots(self, context: ServerRequestContext) -> types.ListRootsResult:
        self.contexts.append(context)
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///srv"), name="srv")])

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append(params)


async def answer_of(client: MultiServerClient, tool: str, server: str, **options: Any) -> dict[str, Any]:
    """What the server's tool got from its client."""
    result = await client.call_tool(tool, server_name=server, **options)
    found: dict[str, Any] = structured(result)
    return found


# --- questions -------------------------------------------------------------------------------------------------------


@each
async def test_a_server_has_the_programs_model_write(opened: Opened, server: str) -> None:
    host = Host()
    async with opened(SERVERS, sampling_callback=host.sample) as client:
        answer = await answer_of(client, "sample", server, arguments={"text": "héllo"})
    assert answer["result"] == {"role": "assistant", "content": {"type": "text", "text": "HÉLLO"}, "model": "loud"}
    assert [context.server_name for context in host.contexts] == [server]
    (params,) = host.asked
    assert isinstance(params, types.CreateMessageRequestParams)
    assert params.max_tokens == 100


@each
async def test_a_server_asks_the_user(opened: Opened, server: str) -> None:
    host = Host()
    async with opened(SERVERS, elicitation_callback=host.elicit) as client:
        answer = await answer_of(client, "ask", server)
    assert answer["result"] == {"action": "accept", "content": {"name": "Ada"}}
    (params,) = host.asked
    assert isinstance(params, types.ElicitRequestFormParams)
    assert (params.message, params.requested_schema["required"]) == ("Who are you?", ["name"])
    assert [context.server_name for context in host.contexts] == [server]


@each
async def test_a_server_learns_the_roots(opened: Opened, server: str) -> None:
    host = Host()
    async with opened(SERVERS, list_roots_callback=host.list_roots) as client:
        answer = await answer_of(client, "roots", server)
    assert answer["result"] == {"roots": [{"uri": "file:///srv", "name": "srv"}]}
    assert [context.server_name for context in host.contexts] == [server]


@each
async def test_without_a_callback_nothing_can_be_asked(opened: Opened, server: str) -> None:
    host = Host()
    async with opened(SERVERS, elicitation_callback=host.elicit) as client:
        try:
            answer = await answer_of(client, "sample", server)
        except MCPError as refused:
            assert "needs sampling" in refused.error.message
        else:
            assert answer["error"]["code"] == -32601


async def test_servers_of_ones_own_are_told_of_exactly_what_there_is_a_callback_for() -> None:
    host = Host()
    servers = {"old": fixture("old", "--era", "legacy"), "some": fixture("some", "--era", "legacy", mayAsk=["roots"])}
    async with owning(servers, sampling_callback=host.sample, list_roots_callback=host.list_roots) as client:
        assert (await answer_of(client, "roots", "old"))["result"]["roots"]
        assert (await answer_of(client, "sample", "old"))["result"]["model"] == "loud"
        assert (await answer_of(client, "roots", "some"))["result"]["roots"]
        for tool, server in (("ask", "old"), ("sample", "some")):
            with pytest.raises(MCPError, match="needs"):
                await client.call_tool(tool, server_name=server)


async def test_servers_of_ones_own_may_ask_before_anybody_calls_them(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    servers = {"eager": fixture("eager", "--era", "legacy", "--asks-roots", "--journal", journal)}
    host = Host()
    async with owning(servers, list_roots_callback=host.list_roots):
        await until(lambda: any("answered" in line for line in journalled(journal)))
    (answer,) = [line for line in journalled(journal) if line.startswith("answered ")]
    assert json.loads(answer.removeprefix("answered "))["result"]["roots"][0]["uri"] == "file:///srv"
    assert host.contexts[0].server_name == "eager"


@each
async def test_a_callback_that_fails_is_logged_and_its_words_go_nowhere(
    opened: Opened, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def sample(context: ServerRequestContext, params: types.CreateMessageRequestParams) -> types.ErrorData:
        raise ValueError(SECRET)

    async with opened(SERVERS, sampling_callback=sample) as client:
        said = await refusal_of(client, server)
        assert "the callback for sampling/createMessage failed" in said
        assert SECRET not in said
    assert f"the callback for sampling/createMessage of server {server!r} failed" in caplog.text
    assert SECRET in caplog.text


async def refusal_of(client: MultiServerClient, server: str) -> str:
    """All that is known of why the client's answer was none: a legacy server's tool says so, a modern one's fails."""
    try:
        return json.dumps((await answer_of(client, "sample", server))["error"])
    except MCPError as refused:
        return f"{refused.error.message} {refused.error.data}"


@each
async def test_a_callback_may_refuse(opened: Opened, server: str) -> None:
    async def sample(context: ServerRequestContext, params: types.CreateMessageRequestParams) -> types.ErrorData:
        return types.ErrorData(code=-1, message="rather not", data={"x": 1})

    async with opened(SERVERS, sampling_callback=sample) as client:
        assert "rather not" in await refusal_of(client, server)


async def test_a_callback_that_returns_something_else_has_failed(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async def sample(context: ServerRequestContext, params: types.CreateMessageRequestParams) -> Any:
        return {"role": "assistant"}

    async with opened(SERVERS, sampling_callback=sample) as client:
        assert "the callback for sampling/createMessage failed" in await refusal_of(client, "old")
    assert "it returned dict, not CreateMessageResult" in caplog.text


@each
async def test_a_callback_may_call_other_servers(opened: Opened, server: str) -> None:
    connected: list[MultiServerClient] = []
    (other,) = SERVERS.keys() - {server}

    async def elicit(context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        nested = await answer_of(connected[0], "echo", other, arguments={"n": 1})
        return types.ElicitResult(action="accept", content={"name": nested["server"]})

    async with opened(SERVERS, elicitation_callback=elicit) as client:
        connected.append(client)
        assert (await answer_of(client, "ask", server))["result"]["content"] == {"name": other}


@each
async def test_who_thinks_longer_than_the_call_may_take_is_not_cut_off(opened: Opened, server: str) -> None:
    """The time of calls of other servers runs on meanwhile, which also shows that enough of it has passed."""
    connected: list[MultiServerClient] = []
    (other,) = SERVERS.keys() - {server}

    async def elicit(context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        with pytest.raises(MCPError, match="was not answered within 1 s"):
            await connected[0].call_tool("slow", {"seconds": 30}, 1, server_name=other)
        return types.ElicitResult(action="decline")

    async with opened(SERVERS, elicitation_callback=elicit) as client:
        connected.append(client)
        answer = await answer_of(client, "ask", server, read_timeout_seconds=1)
        assert answer["result"] == {"action": "decline"}
        with pytest.raises(MCPError, match=r"was not answered within 0\.1 s"):
            await client.call_tool("slow", {"seconds": 30}, 0.1, server_name=server)


@each
async def test_with_its_call_cancelled_a_callback_is_cancelled(opened: Opened, server: str) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def elicit(context: ServerRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return types.ElicitResult(action="cancel")

    async with opened(SERVERS, elicitation_callback=elicit) as client:
        call = asyncio.create_task(client.call_tool("ask", server_name=server))
        with anyio.fail_after(SOON):
            await begun.wait()
            call.cancel()
            await cancelled.wait()
        assert (await answer_of(client, "echo", server))["server"] == server


@each
async def test_many_are_asked_at_a_time_and_get_their_own_answers(server: str) -> None:
    host = Host()
    async with owning(SERVERS, sampling_callback=host.sample) as client, anyio.create_task_group() as tasks:

        async def one(number: int) -> None:
            answer = await answer_of(client, "sample", server, arguments={"text": f"number {number}"})
            assert answer["result"]["content"]["text"] == f"NUMBER {number}"

        for number in range(50):
            tasks.start_soon(one, number)


# --- log messages ----------------------------------------------------------------------------------------------------


async def log(client: MultiServerClient, server: str, level: str, data: object = "x") -> None:
    await client.call_tool("log", {"level": level, "data": data}, server_name=server)


async def test_log_messages_of_both_eras_come_from_their_level_on(opened: Opened) -> None:
    host = Host()
    async with opened(SERVERS, logging_callback=host.log) as client:
        await log(client, "old", "emergency")
        await client.set_logging_level("warning")
        for server in SERVERS:
            await log(client, server, "info")
            await log(client, server, "error", {"n": 1.5})
        await until(lambda: len(host.logged) == 2)
        await client.set_logging_level("debug")
        await log(client, "old", "debug")
        await until(lambda: len(host.logged) == 3)
    first = host.logged[0]
    assert (first.level, first.data, first.logger) == ("error", {"n": 1.5}, "new")
    assert [(one.meta or {})["serverName"] for one in host.logged] == ["new", "old", "old"]


async def test_servers_of_the_legacy_era_are_told_the_level(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    servers = {"old": fixture("old", "--era", "legacy", "--journal", journal)}
    async with owning(servers) as client:
        await client.set_logging_level("notice")
        await until(lambda: "level notice" in journalled(journal))


async def test_log_messages_are_told_in_order_one_at_a_time() -> None:
    busy, told = False, []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        nonlocal busy
        assert not busy
        busy = True
        await anyio.sleep(0)
        busy = False
        told.append(params.data)

    async with owning(SERVERS, logging_callback=take) as client:
        await client.set_logging_level("info")
        for number in range(30):
            await log(client, "old", "info", number)
        await until(lambda: len(told) == 30)
    assert told == list(range(30))


async def test_a_logging_callback_that_fails_is_logged_and_gets_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    async def take(params: types.LoggingMessageNotificationParams) -> None:
        told.append(params.data)
        raise ValueError("no")

    async with owning(SERVERS, logging_callback=take) as client:
        await client.set_logging_level("info")
        for number in range(2):
            await log(client, "old", "info", number)
        await until(lambda: told == [0, 1])
    assert "the logging callback failed" in caplog.text


@pytest.mark.parametrize("kind", ["sampling", "elicitation", "list_roots", "logging"])
@pytest.mark.parametrize("client", [MultiServerClient, SyncMultiServerClient])
def test_what_cannot_be_called_is_refused_at_once(client: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{kind}_callback must be callable, not int"):
        client.from_dict({"mcpServers": {}}, **{f"{kind}_callback": 3})


def test_only_what_can_be_called_can_be_told_of_changes() -> None:
    with pytest.raises(TypeError, match="callback must be callable, not str"):
        MultiServerClient.from_dict({"mcpServers": {}}).on_change("me")  # type: ignore[arg-type]  # that is the point


async def test_the_level_is_the_librarys_own_too(opened: Opened, library_logger: logging.Logger) -> None:
    levels = {"debug": 10, "info": 20, "notice": 30, "warning": 30, "error": 40, "critical": 50, "alert": 50}
    async with opened({}) as client:
        for level, number in levels.items():
            await client.set_logging_level(level)  # type: ignore[arg-type]  # each of them is one
            assert library_logger.level == number


async def test_a_level_that_is_none_is_refused_and_changes_nothing(
    opened: Opened, library_logger: logging.Logger
) -> None:
    before = library_logger.level
    async with opened({}) as client:
        with pytest.raises(ValueError, match=r"level must be one of debug, info, .*, emergency, not 'loud'"):
            await client.set_logging_level("loud")  # type: ignore[arg-type]  # that is the point
    assert library_logger.level == before
