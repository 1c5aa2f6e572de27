"""What servers ask and log reaches the SDK's own client through the daemon, whatever era each of them speaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from pydantic import FileUrl

from mcp_multi_server import MultiServerClient, ServerRequestContext
from tests.polling import eventually, until

from .entries import Entry, fixture, npm
from .harness import Daemon
from .sdk import Mode, connected, sdk_client
from .wire import texts

ALL = ["sampling", "elicitation", "roots"]
MODES: tuple[Mode, ...] = ("legacy", "auto")
SERVERS = ("old", "new", "both")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def daemon(files: Path) -> Iterator[Daemon]:
    servers: dict[str, Entry] = {
        "old": fixture("old", "--era", "legacy", mayAsk=ALL),
        "new": fixture("new", "--era", "modern"),
        "both": fixture("both"),
        "refused-old": fixture("refused-old", "--era", "legacy"),
        "refused-new": fixture("refused-new", "--era", "modern"),
        "everything": npm("everything", "stdio", mayAsk=ALL),
        "filesystem": npm("filesystem", str(files)),
    }
    with Daemon(servers, settings={"naming": "qualified"}) as running:
        yield running.await_up(within=40)


class Host:
    """Callbacks for the SDK's client."""

    def __init__(self, name: str = "Ada") -> None:
        self.name = name
        self.asked: list[str] = []
        self.servers: set[str | None] = set()
        self.logged: list[types.LoggingMessageNotificationParams] = []

    async def sample(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult:
        self._note("sampling", context)
        said = types.TextContent(type="text", text=f"{self.name} said")
        return types.CreateMessageResult(role="assistant", content=said, model="m")

    async def elicit(self, context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        self._note("elicitation", context)
        return types.ElicitResult(action="accept", content={"name": self.name, "check": True})

    async def list_roots(self, context: ClientRequestContext) -> types.ListRootsResult:
        self._note("roots", context)
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///srv"), name="srv")])

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append(params)

    def client(self, daemon: Daemon, mode: Mode, **settings: Any) -> Client:
        return sdk_client(
            daemon.socket,
            mode,
            sampling_callback=self.sample,
            elicitation_callback=self.elicit,
            list_roots_callback=self.list_roots,
            logging_callback=self.log,
            **settings,
        )

    def _note(self, what: str, context: ClientRequestContext) -> None:
        self.asked.append(what)
        server = (context.meta or {}).get("serverName")
        self.servers.add(None if server is None else str(server))


async def answer_of(client: Client, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", SERVERS)
def test_each_server_gets_its_answers_from_a_client_of_each_era(server: str, mode: Mode, daemon: Daemon) -> None:
    host = Host()

    async def main() -> None:
        async with connected(host.client(daemon, mode)) as client:
            sampled = await answer_of(client, f"{server}__sample", {"text": "hi"})
            assert sampled["result"]["content"] == {"type": "text", "text": "Ada said"}
            asked = await answer_of(client, f"{server}__ask")
            assert asked["result"] == {"action": "accept", "content": {"name": "Ada", "check": True}}
            listed = await answer_of(client, f"{server}__roots")
            assert listed["result"] == {"roots": [{"uri": "file:///srv", "name": "srv"}]}

    anyio.run(main)
    assert host.asked == ["sampling", "elicitation", "roots"]
    between_modern = mode == "auto" and server != "old"
    assert host.servers == ({None} if between_modern else {server}), "what passes untouched is not even named"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["refused-old", "refused-new"])
def test_what_a_client_refuses_fails_its_call_alone(server: str, mode: Mode, daemon: Daemon) -> None:
    async def refuse(context: ClientRequestContext, params: types.CreateMessageRequestParams) -> types.ErrorData:
        return types.ErrorData(code=-1, message="rather not")

    async def main() -> None:
        async with connected(sdk_client(daemon.socket, mode, sampling_callback=refuse)) as client:
            try:
                told = str((await answer_of(client, f"{server}__sample"))["error"])
            except MCPError as refused:
                told = refused.error.message
            assert "rather not" in told
            assert (await answer_of(client, f"{server}__echo"))["server"] == server

    anyio.run(main)


@pytest.mark.filterwarnings("ignore:The logging capability is deprecated")  # by 2026-07-28; legacy clients have it
@pytest.mark.parametrize("mode", MODES)
def test_log_messages_come_from_the_level_that_the_client_wants(mode: Mode, daemon: Daemon) -> None:
    host = Host()

    async def main() -> None:
        settings = {} if mode == "legacy" else {"log_level": "warning"}
        async with connected(host.client(daemon, mode, **settings)) as client:
            if mode == "legacy":
                await client.set_logging_level("warning")
            for server in SERVERS:
                for level in ("info", "error"):
                    await client.call_tool(f"{server}__log", {"level": level, "data": server})
            await until(lambda: len(host.logged) >= len(SERVERS))

    anyio.run(main)
    assert [(one.level, one.data) for one in host.logged] == [("error", server) for server in SERVERS]
    assert [(one.meta or {})["serverName"] for one in host.logged] == list(SERVERS)


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_server_gets_its_answers(mode: Mode, daemon: Daemon) -> None:
    host = Host()

    async def main() -> None:
        async with connected(host.client(daemon, mode)) as client:
            sampled = await client.call_tool("everything__trigger-sampling-request", {"prompt": "x", "maxTokens": 9})
            assert "Ada said" in str(sampled.content)
            elicited = await client.call_tool("everything__trigger-elicitation-request", {})
            assert "Name: Ada" in str(elicited.content)
            listed = await client.call_tool("everything__get-roots-list", {})
            assert "file:///srv" in str(listed.content)

    anyio.run(main)
    assert set(host.asked) >= {"sampling", "elicitation"}
    assert host.servers == {"everything"}


def test_with_calls_of_two_clients_nobody_is_asked_and_both_hear_so(daemon: Daemon) -> None:
    with daemon.legacy({"sampling": {}}) as one, daemon.legacy({"sampling": {}}) as other:
        waits = other.post("tools/call", {"name": "old__slow", "arguments": {"seconds": 30, "tag": "two clients"}})
        eventually(lambda: "two clients" in running_at(daemon), within=10, what="the other client's call")
        error = one.call("old__sample")["structuredContent"]["error"]
        assert (error["code"], "several clients" in error["message"]) == (-32603, True)
        assert [message for message in other.drain(quiet=0.2) if "id" in message] == []
        other.notify("notifications/cancelled", {"requestId": waits})
        eventually(lambda: "two clients" not in running_at(daemon), within=10, what="its end")
        asked = one.post("tools/call", {"name": "old__sample", "arguments": {}})
        question = one.notification("sampling/createMessage")
        one.send({"jsonrpc": "2.0", "id": question["id"], "result": {"x": 1}})
        assert one.answer(asked)["result"]["structuredContent"] == {"result": {"x": 1}}


def running_at(daemon: Daemon) -> list[str]:
    """The tags of the slow calls that the old server works on."""
    with daemon.legacy() as wire:
        found: list[str] = wire.call("old__cancelled_ids")["structuredContent"]["running"]
    return found


def test_a_client_that_is_killed_while_it_is_asked_frees_its_server(daemon: Daemon) -> None:
    with daemon.legacy({"sampling": {}}) as gone:
        gone.post("tools/call", {"name": "old__sample", "arguments": {}})
        gone.notification("sampling/createMessage")
    with daemon.legacy({"sampling": {}}) as wire:
        asked = wire.post("tools/call", {"name": "old__sample", "arguments": {}})
        question = wire.notification("sampling/createMessage")
        wire.send({"jsonrpc": "2.0", "id": question["id"], "result": {"mine": 1}})
        assert wire.answer(asked)["result"]["structuredContent"] == {"result": {"mine": 1}}


def test_a_servers_own_directories_stay_where_it_may_not_ask_for_roots(daemon: Daemon, files: Path) -> None:
    with daemon.legacy({"roots": {}}) as wire:
        assert str(files) in texts(wire.call("filesystem__list_allowed_directories"))[0]


def test_a_programs_own_server_takes_the_roots_that_it_is_given(tmp_path: Path) -> None:
    """server-filesystem asks once, as soon as it is initialized, and replaces its directories by the answer."""
    given = tmp_path / "given"
    given.mkdir()

    async def list_roots(context: ServerRequestContext) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl(given.as_uri()))])

    async def main() -> None:
        config = {"mcpServers": {"filesystem": npm("filesystem", str(tmp_path / "given"), str(tmp_path))}}
        async with MultiServerClient.from_dict(config, list_roots_callback=list_roots) as client:

            async def allowed() -> list[str]:
                result = await client.call_tool("list_allowed_directories")
                return str(result.content[0].text).splitlines()[1:]  # type: ignore[union-attr]  # it is a text

            async def replaced() -> bool:
                return await allowed() == [str(given)]

            await until(replaced)

    anyio.run(main)
