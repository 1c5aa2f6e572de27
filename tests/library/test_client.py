"""The library, over servers of its own and over a real daemon's: the same methods, results and errors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from pydantic import AnyUrl

from mcp_multi_server import MultiServerClient

from ..e2e.entries import Entry, fixture, module
from ..e2e.harness import Daemon
from ..polling import until
from .clients import (
    SERVERS,
    SOON,
    Held,
    Opened,
    assert_nothing_more_than,
    both,
    pid_of,
    states,
    structured,
    words,
)

pytestmark = pytest.mark.anyio

Fresh: TypeAlias = Callable[[], MultiServerClient]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["owning", "attached"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """Makes clients of `SERVERS`; attached ones share a daemon."""
    if request.param == "owning":
        yield lambda: MultiServerClient.from_dict({"mcpServers": SERVERS})
    else:
        with Daemon(SERVERS) as daemon:
            daemon.await_up()
            yield lambda: MultiServerClient.connect(str(daemon.socket))


@pytest.fixture(scope="module")
async def client(fresh: Fresh) -> AsyncIterator[MultiServerClient]:
    """One that many tests ask and none hurts."""
    async with fresh() as client:
        yield client


def code(refused: pytest.ExceptionInfo[MCPError]) -> int:
    return refused.value.error.code


# --- what there is ---------------------------------------------------------------------------------------------------


async def test_each_tool_is_listed_with_its_server(client: MultiServerClient) -> None:
    tools = client.list_tools().tools
    assert {(tool.meta or {})["serverName"] for tool in tools} == set(SERVERS)
    assert [tool.name for tool in tools if tool.name.endswith("echo")] == ["echo", "two__echo", "old__echo"]
    assert tools[0].description == "by one, version 1"


async def test_each_prompt_is_listed_with_its_server(client: MultiServerClient) -> None:
    listed = {prompt.name: (prompt.meta or {})["serverName"] for prompt in client.list_prompts().prompts}
    assert listed == {"greet": "one", "two__greet": "two", "old__greet": "old"}


async def test_resources_have_their_servers_name_in_front(client: MultiServerClient) -> None:
    listed = {resource.uri: (resource.meta or {})["serverName"] for resource in client.list_resources().resources}
    own = ("note://one", "note://blob")
    assert listed == {f"{server}:{uri}": server for server in SERVERS for uri in own}


async def test_without_namespaces_resources_have_their_own_uris(client: MultiServerClient) -> None:
    listed = client.list_resources(use_namespace=False).resources
    assert [resource.uri for resource in listed] == ["note://one", "note://blob"] * 3
    assert [(resource.meta or {})["serverName"] for resource in listed[::2]] == list(SERVERS)


async def test_templates_are_listed_with_and_without_namespaces(client: MultiServerClient) -> None:
    listed = [template.uri_template for template in client.list_resource_templates().resource_templates]
    assert listed == [f"{server}:note://{server}/{{path}}" for server in SERVERS]
    own = [template.uri_template for template in client.list_resource_templates(use_namespace=False).resource_templates]
    assert own == [f"note://{server}/{{path}}" for server in SERVERS]


@pytest.mark.parametrize("method", ["list_tools", "list_prompts", "list_resources", "list_resource_templates"])
async def test_lists_are_one_page(client: MultiServerClient, method: str) -> None:
    for given in ({"cursor": "x"}, {"cursor": ""}, {"params": types.PaginatedRequestParams()}):
        with pytest.raises(ValueError, match="not supported"):
            getattr(client, method)(**given)
    assert getattr(client, method)(None).next_cursor is None


async def test_who_changes_a_list_changes_no_other(client: MultiServerClient) -> None:
    client.list_tools().tools.clear()
    client.list_resources(use_namespace=False).resources.clear()
    client.capabilities.clear()
    client.status()["servers"].clear()
    client.collisions().clear()
    assert client.list_tools().tools
    assert client.list_resources(use_namespace=False).resources
    assert client.capabilities
    assert client.status()["servers"]
    assert client.collisions()


async def test_capabilities_have_the_names_that_servers_gave(client: MultiServerClient) -> None:
    assert list(client.capabilities) == list(SERVERS)
    for name, offered in client.capabilities.items():
        assert offered.name == name
        assert offered.tools is not None
        assert offered.prompts is not None
        assert offered.resources is not None
        assert offered.resource_templates is not None
        assert {"echo", "slow"} <= {tool.name for tool in offered.tools.tools}
        assert [prompt.name for prompt in offered.prompts.prompts] == ["greet"]
        assert [resource.uri for resource in offered.resources.resources] == ["note://one", "note://blob"]
        assert [one.uri_template for one in offered.resource_templates.resource_templates] == [
            f"note://{name}/{{path}}"
        ]


async def test_each_listed_name_has_a_server(client: MultiServerClient) -> None:
    assert client.tool_to_server.keys() == {tool.name for tool in client.list_tools().tools}
    assert (client.tool_to_server["echo"], client.tool_to_server["two__echo"]) == ("one", "two")
    assert client.prompt_to_server == {"greet": "one", "two__greet": "two", "old__greet": "old"}


async def test_status_and_collisions_are_known(client: MultiServerClient) -> None:
    assert states(client) == dict.fromkeys(SERVERS, "ready")
    (greet,) = [one for one in client.collisions() if one["kind"] == "prompt"]
    assert greet == {"kind": "prompt", "name": "greet", "owner": "one", "shadowed": ["two", "old"]}


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "server", "answers"),
    [
        ("echo", None, "one"),
        ("two__echo", None, "two"),
        ("one__echo", None, "one"),
        ("echo", "old", "old"),
        ("echo", "one", "one"),
    ],
)
async def test_a_call_finds_its_server(client: MultiServerClient, name: str, server: str | None, answers: str) -> None:
    said = structured(await client.call_tool(name, {"é": [1, None, 1.5, 10**30]}, server_name=server))
    assert said["server"] == answers
    assert said["arguments"] == {"é": [1, None, 1.5, 10**30]}
    assert said["exact"]["big"] == 123456789012345678901234567890


async def test_arguments_may_be_left_out(client: MultiServerClient) -> None:
    assert structured(await client.call_tool("echo"))["arguments"] == {}


@pytest.mark.parametrize(
    ("name", "server", "message"),
    [
        ("nope", None, "Unknown tool: nope"),
        ("nope__echo", None, "Unknown tool: nope__echo"),
        ("echo", "nope", "Unknown server: nope"),
        ("nope", "two", "Tool 'nope' not found in server 'two'"),
        ("two__echo", "two", "Tool 'two__echo' not found in server 'two'"),
    ],
)
async def test_what_cannot_be_called_is_an_error_result(
    client: MultiServerClient, name: str, server: str | None, message: str
) -> None:
    result = await client.call_tool(name, {}, server_name=server)
    assert result.is_error
    assert words(result) == message


async def test_a_servers_error_result_comes_through(client: MultiServerClient) -> None:
    result = await client.call_tool("fail", {})
    assert result.is_error
    assert words(result) == "it failed"


async def test_a_servers_error_is_raised_with_its_code_and_data(client: MultiServerClient) -> None:
    with pytest.raises(MCPError, match="no such luck") as refused:
        await client.call_tool("rpc_error", {"code": 4242})
    assert code(refused) == 4242
    assert refused.value.error.data == {"exact": 123456789012345678901234567890, "keep": [1.0, None]}


@pytest.mark.parametrize("server", SERVERS)
async def test_meta_is_passed_on(client: MultiServerClient, server: str) -> None:
    meta = {"vendor.example/a": {"b": [1, "é"]}}
    line = structured(await client.call_tool("received", {}, meta=meta, server_name=server))["line"]
    assert '"vendor.example/a":{"b":[1,"é"]}' in line


async def test_arguments_are_what_pydantic_can_write_as_json(client: MultiServerClient) -> None:
    model = types.TextContent(type="text", text="x")
    given = {"url": AnyUrl("http://x/"), "model": model, "tuple": (1, 2), "set": {3}}
    said = structured(await client.call_tool("echo", given))["arguments"]
    assert said["url"] == "http://x/"
    assert said["model"]["text"] == "x"
    assert (said["tuple"], said["set"]) == ([1, 2], [3])


@pytest.mark.parametrize("argument", [object(), "\ud800"])
async def test_arguments_that_are_no_json_are_refused_and_leave_nothing(
    client: MultiServerClient, argument: object
) -> None:
    with pytest.raises(ValueError, match=r"serialize|surrogates"):
        await client.call_tool("echo", {"argument": argument})
    assert structured(await client.call_tool("echo", {"argument": 1}))["arguments"] == {"argument": 1}


@pytest.mark.parametrize("seconds", [0.2, timedelta(milliseconds=200)], ids=["float", "timedelta"])
@pytest.mark.parametrize("with_progress", [False, True])
async def test_a_call_that_takes_too_long_is_given_up(
    client: MultiServerClient, seconds: float | timedelta, with_progress: bool
) -> None:
    async def ignore(progress: float, total: float | None, message: str | None) -> None: ...

    tag = f"late {seconds} {with_progress}"
    with pytest.raises(MCPError, match=r"not answered within 0\.2 s") as refused:
        await client.call_tool("slow", {"seconds": 30, "tag": tag}, seconds, ignore if with_progress else None)
    assert code(refused) == types.REQUEST_TIMEOUT
    await until(lambda: was_cancelled(client, tag))


@pytest.mark.parametrize(("limit", "expected"), [("3", TypeError), (float("nan"), ValueError)])
async def test_a_time_limit_that_is_none_is_refused_by_name(
    client: MultiServerClient, limit: Any, expected: type[Exception]
) -> None:
    with pytest.raises(expected, match="read_timeout_seconds must be a number of seconds"):
        await client.call_tool("echo", read_timeout_seconds=limit)


async def test_a_cancelled_call_is_cancelled_at_its_server(client: MultiServerClient) -> None:
    call = asyncio.create_task(client.call_tool("slow", {"seconds": 30, "tag": "given up"}))
    await until(lambda: is_running(client, "given up"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: was_cancelled(client, "given up"))


async def test_the_scope_of_a_call_can_be_cancelled(client: MultiServerClient) -> None:
    with anyio.move_on_after(0.1) as scope:
        await client.call_tool("slow", {"seconds": 30, "tag": "moved on"})
    assert scope.cancelled_caught
    await until(lambda: was_cancelled(client, "moved on"))


async def was_cancelled(client: MultiServerClient, tag: str) -> bool:
    said = structured(await client.call_tool("cancelled_ids", {}))
    return tag in [one["tag"] for one in said["cancelled"]]


async def is_running(client: MultiServerClient, tag: str) -> bool:
    return tag in structured(await client.call_tool("cancelled_ids", {}))["running"]


@pytest.mark.parametrize("server", SERVERS)
async def test_progress_is_told_in_order_and_before_the_result(client: MultiServerClient, server: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        await anyio.sleep(0.05 if progress == 1 else 0)  # a slow one delays those after it
        told.append((progress, total, message))

    call = {"seconds": 0.1, "steps": 4}
    await client.call_tool("slow", call, progress_callback=tell, server_name=server)
    assert told == [(float(step), 4, f"step {step}") for step in range(1, 5)]


async def test_progress_of_several_calls_is_kept_apart(client: MultiServerClient) -> None:
    told: dict[int, list[float]] = {steps: [] for steps in range(1, 6)}

    async def call(steps: int) -> None:
        async def tell(progress: float, total: float | None, message: str | None) -> None:
            told[steps].append(progress)

        await client.call_tool("slow", {"seconds": 0.1, "steps": steps}, progress_callback=tell)

    async with anyio.create_task_group() as tasks:
        for steps in told:
            tasks.start_soon(call, steps)
    assert told == {steps: list(range(1, steps + 1)) for steps in told}


async def test_a_progress_callback_that_fails_does_not_hurt_the_call(
    client: MultiServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    async def fail(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)
        raise ValueError("of its own")

    assert words(await client.call_tool("slow", {"seconds": 0.1, "steps": 3}, progress_callback=fail)) == "done"
    assert told == [1, 2, 3]
    assert "a progress callback failed" in caplog.text


async def test_errors_are_the_same_with_progress(client: MultiServerClient) -> None:
    async def ignore(progress: float, total: float | None, message: str | None) -> None: ...

    with pytest.raises(MCPError, match="no such luck"):
        await client.call_tool("rpc_error", {}, progress_callback=ignore)
    assert words(await client.call_tool("nope", {}, progress_callback=ignore)) == "Unknown tool: nope"


async def test_two_hundred_calls_at_a_time_get_their_own_answers(client: MultiServerClient) -> None:
    servers = list(SERVERS)
    calls = (client.call_tool("echo", {"n": n}, server_name=servers[n % 3]) for n in range(200))
    said = [structured(result) for result in await asyncio.gather(*calls)]
    assert [(one["arguments"]["n"], one["server"]) for one in said] == [(n, servers[n % 3]) for n in range(200)]


async def test_more_calls_than_a_daemon_takes_at_a_time_wait_for_their_turn(client: MultiServerClient) -> None:
    calls = [client.call_tool("slow", {"seconds": 0.3, "steps": 0, "tag": n}) for n in range(400)]
    growing = client.call_tool("grow", {"by": 0}, server_name="old")  # lists are read again meanwhile
    grown, *results = await asyncio.gather(growing, *calls)
    assert not grown.is_error
    said = [structured(result) for result in results]
    assert [one["tag"] for one in said] == list(range(400))


# --- resources and prompts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "server", "back"),
    [
        ("two:note://one", None, "two:note://one"),
        (AnyUrl("two:note://one"), None, "two:note://one"),
        ("note://one", "two", "note://one"),
        (AnyUrl("note://one"), "two", "note://one"),
        ("note://two/x%20y", None, "note://two/x%20y"),
        ("two:note://two/deep", None, "two:note://two/deep"),
    ],
)
async def test_a_resource_is_read(client: MultiServerClient, uri: str | AnyUrl, server: str | None, back: str) -> None:
    (content,) = (await client.read_resource(uri, server)).contents
    assert isinstance(content, types.TextResourceContents)
    assert content.uri == back
    assert content.text == f"{back.removeprefix('two:')} of two"


async def test_every_listed_resource_can_be_read(client: MultiServerClient) -> None:
    for resource in client.list_resources().resources:
        (content,) = (await client.read_resource(resource.uri)).contents
        assert content.uri == resource.uri


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("nope:note://one", None),
        ("note://one", "nope"),
        ("note://nope", None),
        ("note://one", None),  # which of the three?
        ("nothing", None),
    ],
)
async def test_a_resource_that_leads_nowhere_is_not_found(
    client: MultiServerClient, uri: str, server: str | None
) -> None:
    with pytest.raises(MCPError) as refused:
        await client.read_resource(uri, server)
    assert code(refused) == types.METHOD_NOT_FOUND


async def test_a_server_says_itself_what_it_does_not_have(client: MultiServerClient) -> None:
    with pytest.raises(MCPError, match="Resource not found"):
        await client.read_resource("one:note://nope")


async def test_a_prompt_is_got(client: MultiServerClient) -> None:
    for name, server, speaker in (("greet", None, "one"), ("two__greet", None, "two"), ("greet", "old", "old")):
        got = await client.get_prompt(name, {"language": "Suomi"}, server)
        assert isinstance(got.messages[0].content, types.TextContent)
        assert got.messages[0].content.text == f"Greet in Suomi, says {speaker}"


@pytest.mark.parametrize(
    ("name", "server", "message"),
    [
        ("nope", None, "Unknown prompt: nope"),
        ("greet", "nope", "Unknown server: nope"),
        ("nope", "two", "Prompt 'nope' not found in server 'two'"),
    ],
)
async def test_a_prompt_that_is_not_there_is_not_found(
    client: MultiServerClient, name: str, server: str | None, message: str
) -> None:
    with pytest.raises(MCPError, match=message) as refused:
        await client.get_prompt(name, server_name=server)
    assert code(refused) == types.METHOD_NOT_FOUND


async def test_links_in_results_can_be_read(client: MultiServerClient) -> None:
    linked = [one.uri for one in (await client.call_tool("two__link")).content if isinstance(one, types.ResourceLink)]
    got = await client.get_prompt("old__greet")
    linked += [one.content.uri for one in got.messages if isinstance(one.content, types.ResourceLink)]
    assert len(linked) == 3
    linked.remove("note://hidden")  # no resource that its server lists: a link like any other
    for uri in linked:
        (content,) = (await client.read_resource(uri)).contents
        assert content.uri == uri


@pytest.mark.parametrize(
    ("ref", "begun", "completed"),
    [
        (types.PromptReference(name="two__greet"), "D", ["Dansk", "Deutsch"]),
        (types.ResourceTemplateReference(uri="two:note://two/{path}"), "on", ["one"]),
        (types.ResourceTemplateReference(uri="note://old/{path}"), "o", ["one", "other"]),
    ],
)
async def test_arguments_are_completed(
    client: MultiServerClient,
    ref: types.PromptReference | types.ResourceTemplateReference,
    begun: str,
    completed: list[str],
) -> None:
    found = await client.complete(ref, {"name": "path", "value": begun}, {"other": "x"})
    assert found.completion.values == completed


async def test_what_is_not_there_cannot_be_completed(client: MultiServerClient) -> None:
    with pytest.raises(MCPError, match="no server offers the prompt 'nope'"):
        await client.complete(types.PromptReference(name="nope"), {"name": "x", "value": ""})


# --- changes ---------------------------------------------------------------------------------------------------------


@both
async def test_lists_follow_their_servers(opened: Opened) -> None:
    async with opened(SERVERS) as client:
        told: list[Mapping[str, Any]] = []
        client.on_change(told.append)
        for kind, listed in (("tools", client.list_tools), ("prompts", client.list_prompts)):
            await client.call_tool("grow", {"kind": kind}, server_name="old")
            await until(lambda kind=kind, listed=listed: "grown_0" in {one.name for one in getattr(listed(), kind)})
        assert {"event": "lists"} in told
        assert client.tool_to_server["grown_0"] == "old"
        assert structured(await client.call_tool("grown_0", server_name="old"))["server"] == "old"
        assert client.prompt_to_server["grown_0"] == "old"


@both
async def test_a_killed_server_is_told_of_and_comes_back(opened: Opened) -> None:
    async with opened(SERVERS) as client:
        told: list[Mapping[str, Any]] = []
        client.on_change(told.append)
        before = await pid_of(client, "two")
        os.kill(before, signal.SIGKILL)
        await until(lambda: [one for one in told if one.get("server") and one["server"]["state"] == "backoff"])
        assert await pid_of(client, "two") != before  # held until it is there again
        await until(lambda: states(client)["two"] == "ready")
        found = [one["server"]["state"] for one in told if one["event"] == "server" and one["server"]["name"] == "two"]
        assert found[0] == "backoff"
        assert found[-1] == "ready"


@both
async def test_a_callback_that_fails_is_logged_and_keeps_nobody_from_being_told(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Mapping[str, Any]) -> None:
        raise ValueError("of its own")

    async with opened(SERVERS) as client:
        told: list[Mapping[str, Any]] = []
        client.on_change(fail)
        client.on_change(told.append)
        await client.call_tool("old__grow", {})
        await until(lambda: told)
        await until(lambda: "grown_0" in client.tool_to_server)
    assert "a callback of on_change failed" in caplog.text


# --- servers that are away -------------------------------------------------------------------------------------------


@both
async def test_a_program_that_calls_on_does_not_notice_that_its_server_was_killed(opened: Opened) -> None:
    async with opened({"one": fixture("one", "--delay", 0.3)}) as client:
        told: list[Mapping[str, Any]] = []
        client.on_change(told.append)
        listed = client.list_tools().tools
        for _ in range(2):
            told.clear()
            os.kill(await pid_of(client, "one"), signal.SIGKILL)
            await until(lambda: "backoff" in [one["server"]["state"] for one in told if one["event"] == "server"])
            calls = [client.call_tool("echo", {"n": n}) for n in range(10)]
            assert [structured(one)["arguments"]["n"] for one in await asyncio.gather(*calls)] == list(range(10))
            assert [tool.name for tool in client.list_tools().tools] == [tool.name for tool in listed]


@both
async def test_a_call_that_was_under_way_fails_with_server_state_and_next_attempt(opened: Opened) -> None:
    async with opened(SERVERS) as client:
        with pytest.raises(MCPError, match=r"server 'two': exited with code 3; .* may or may not") as refused:
            await client.call_tool("exit", {"code": 3}, server_name="two")
        data = refused.value.error.data
        assert data["server"] == "two"
        assert (data["state"], data["reason"]) == ("backoff", "exit")
        assert data["retryAt"] is not None
        assert await pid_of(client, "two")


@both
@pytest.mark.parametrize("named", [("echo", "gone"), ("gone__echo", None)])
async def test_a_server_that_never_came_up_is_named_with_its_state_and_next_attempt(
    opened: Opened, named: tuple[str, str | None]
) -> None:
    servers = {"one": fixture("one"), "gone": {"command": "/nonexistent/server"}}
    async with opened(servers) as client:
        await until(lambda: states(client) == {"one": "ready", "gone": "parked"})
        with pytest.raises(MCPError, match="server 'gone' is parked") as refused:
            await client.call_tool(named[0], {}, server_name=named[1])
        assert refused.value.error.data["server"] == "gone"
        assert refused.value.error.data["retryAt"] is not None
        assert "gone" not in client.capabilities
        with pytest.raises(MCPError, match="server 'gone' is parked"):
            await client.get_prompt("greet", server_name="gone")
        assert structured(await client.call_tool("echo"))["server"] == "one"


@both
async def test_a_disabled_server_says_so(opened: Opened) -> None:
    async with opened({"one": fixture("one"), "off": fixture("off", disabled=True)}) as client:
        result = await client.call_tool("echo", server_name="off")
        assert result.is_error
        assert words(result) == "Server 'off' is disabled"
        with pytest.raises(MCPError, match="Server 'off' is disabled"):
            await client.get_prompt("greet", server_name="off")


@both
async def test_a_server_without_tools_says_so(opened: Opened) -> None:
    async with opened({"one": fixture("one", "--offers", "resources")}) as client:
        result = await client.call_tool("echo", server_name="one")
        assert words(result) == "Server 'one' has no tools"
        with pytest.raises(MCPError, match="Server 'one' has no prompts"):
            await client.get_prompt("greet", server_name="one")
        assert client.capabilities["one"].tools is None


@both
async def test_one_server_with_malformed_tools_spoils_no_list(
    opened: Opened, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    script = tmp_path / "malformed.py"
    script.write_text(MALFORMED)
    entry = fixture("malformed")
    entry = entry | {"args": ["-I", "-S", str(script)]}
    async with opened({"malformed": entry, "one": fixture("one")}) as client:
        await until(lambda: set(states(client).values()) == {"ready"})
        await until(lambda: {"good", "echo"} <= client.tool_to_server.keys())
        assert "worse" not in client.tool_to_server
        (schema,) = [tool.input_schema for tool in client.list_tools().tools if tool.name == "bad"]
        assert schema == {"type": "object"}, "it is mended where it is read"
    assert "as it is malformed" not in caplog.text


MALFORMED = """
import json, sys
TOOLS = [{"name": "bad", "title": None}, {"name": ["worse"]}, {"name": "good", "inputSchema": {"type": "object"}}]
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        info = {"name": "malformed", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    elif asked.get("method") == "tools/list":
        result = {"tools": TOOLS}
    elif asked.get("method") == "ping":
        result = {}
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


# --- names that could be mistaken ------------------------------------------------------------------------------------


@both
async def test_the_named_server_is_the_one_that_answers(opened: Opened) -> None:
    servers = {"a": fixture("a"), "my server": fixture("my server"), "Ünïcode:x": fixture("Ünïcode:x")}
    async with opened(servers) as client:
        await until(lambda: set(states(client).values()) == {"ready"})
        await until(lambda: len(client.list_resources().resources) == 6)
        for name in servers:
            assert structured(await client.call_tool("echo", server_name=name))["server"] == name
            (content,) = (await client.read_resource("note://one", name)).contents
            assert content.uri == "note://one"
            assert (await client.get_prompt("greet", server_name=name)).messages
        assert client.tool_to_server["my_server__echo"] == "my server"


@both
async def test_names_can_all_be_qualified(opened: Opened) -> None:
    servers = {"one": fixture("one"), "two": fixture("two", prefix="zwei")}
    async with opened(servers, {"naming": "qualified", "separator": "."}) as client:
        await until(lambda: {"one.echo", "zwei.echo"} <= client.tool_to_server.keys())
        assert "echo" not in client.tool_to_server
        assert structured(await client.call_tool("echo", server_name="two"))["server"] == "two"
        assert structured(await client.call_tool("zwei.echo"))["server"] == "two"
        tools = client.capabilities["two"].tools
        assert tools is not None
        assert "echo" in {tool.name for tool in tools.tools}


# --- the end ---------------------------------------------------------------------------------------------------------


@both
async def test_closing_ends_the_calls_that_are_under_way_and_leaves_nothing(opened: Opened) -> None:
    async with opened(SERVERS):
        pass  # whatever the first use opens for good is open
    before = Held()
    async with opened(SERVERS) as client:
        await until(lambda: "old__slow" in client.tool_to_server)
        calls = [
            asyncio.create_task(client.call_tool("slow", {"seconds": 30}, server_name=server)) for server in SERVERS
        ]
        await until(lambda: is_running(client, ""))
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SOON)
    assert [type(one) for one in ended] == [MCPError] * 3
    del calls, ended
    await assert_nothing_more_than(before)


@both
async def test_an_exception_in_the_block_comes_out_as_it_is(opened: Opened) -> None:
    with pytest.raises(KeyError, match="of the program"):
        async with opened(SERVERS):
            raise KeyError("of the program")


async def test_it_is_entered_again_after_it_was_left(fresh: Fresh) -> None:
    client = fresh()
    for _ in range(3):
        async with client:
            assert structured(await client.call_tool("echo"))["server"] == "one"
        with pytest.raises(RuntimeError, match="not connected"):
            await client.call_tool("echo")


async def test_it_cannot_be_entered_twice(client: MultiServerClient) -> None:
    with pytest.raises(RuntimeError, match="connected already"):
        await client.__aenter__()
    assert structured(await client.call_tool("echo"))["server"] == "one"


async def test_nothing_is_there_before_it_is_entered(fresh: Fresh) -> None:
    client = fresh()
    assert client.list_tools().tools == []
    assert client.capabilities == {}
    assert client.status() == {}
    for ask in (client.call_tool("echo"), client.read_resource("one:note://one"), client.get_prompt("greet")):
        with pytest.raises(RuntimeError, match="use `async with`"):
            await ask
    await client.aclose()


async def test_two_clients_live_in_one_loop(fresh: Fresh) -> None:
    async with fresh() as one:
        async with fresh() as other:
            assert structured(await one.call_tool("echo"))["server"] == "one"
            assert structured(await other.call_tool("echo"))["server"] == "one"
        assert structured(await one.call_tool("echo"))["server"] == "one"


@pytest.mark.parametrize("run", [asyncio.run, lambda main: anyio.run(lambda: main)], ids=["asyncio", "anyio"])
def test_it_runs_in_every_loop(fresh: Fresh, run: Callable[[Awaitable[None]], None]) -> None:
    client = fresh()

    async def main() -> None:
        async with client:
            assert structured(await client.call_tool("echo"))["server"] == "one"

    for _ in range(2):
        run(main())


# --- servers of every kind -------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_server(*options: str) -> AsyncIterator[str]:
    """A server written on the SDK, at the URL that is given."""
    command = [sys.executable, "-m", "tests.fixtures.http_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = (await anyio.to_thread.run_sync(process.stdout.readline)).split()[1]
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


@both
async def test_servers_of_the_sdk_are_reached_by_pipe_and_by_url(opened: Opened) -> None:
    async with http_server() as url:
        servers: dict[str, Entry] = {"time": module("mcp_server_time"), "web": {"url": url}}
        async with opened(servers) as client:
            await until(lambda: {"get_current_time", "stall"} <= client.tool_to_server.keys(), within=25)
            assert "UTC" in words(await client.call_tool("get_current_time", {"timezone": "UTC"}))
            assert structured(await client.call_tool("echo", {"a": 1}, server_name="web")) == {"a": 1}
            told: list[float] = []

            async def tell(progress: float, total: float | None, message: str | None) -> None:
                told.append(progress)

            assert words(await client.call_tool("slow", {"steps": 3}, progress_callback=tell)) == "done"
            assert told == [0, 1, 2]
            with pytest.raises(MCPError, match="not answered within"):
                await client.call_tool("stall", {}, 0.2)


@both
async def test_a_server_whose_name_is_no_scheme_is_named_as_in_the_config(opened: Opened) -> None:
    async with opened({"my_server": fixture("my_server")}) as client:
        await until(lambda: states(client) == {"my_server": "ready"})
        assert client.list_resources().resources[0].uri == "my_server:note://one"
        assert client.list_resources(use_namespace=False).resources[0].uri == "note://one"
        templates = client.list_resource_templates().resource_templates
        assert templates[0].uri_template == "my_server:note://my_server/{path}"
        for spelled in ("my_server", "my-server"):  # by its own name, and as other clients have it listed
            (content,) = (await client.read_resource(f"{spelled}:note://one")).contents
            assert content.uri == f"{spelled}:note://one"
