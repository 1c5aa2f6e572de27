"""Where a client with servers of its own and one of a daemon's differ: configs, files, daemons that come and go."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from pydantic import ValidationError

from mcp_multi_server import MCPServersConfig, MultiServerClient, ServerConfig

from ..e2e.entries import Entry, fixture
from ..e2e.harness import Daemon
from ..polling import until
from .clients import (
    SERVERS,
    SOON,
    Held,
    assert_nothing_more_than,
    pid_of,
    states,
    structured,
    words,
)

pytestmark = pytest.mark.anyio

ONE = {"one": fixture("one")}
MUTE = {"mute": fixture("mute", "--mute", startTimeout=60)}
GONE = {"gone": {"command": "/nonexistent/server"}}
STRICT = "MCP_MULTI_SERVER_STRICT_CONNECT"


def written(path: Path, servers: dict[str, Entry], **more: Any) -> Path:
    """A config file, put in place in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"mcpServers": servers, **more}))
    return fresh.replace(path)


# --- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, FileNotFoundError),
        ("{", json.JSONDecodeError),
        ("", json.JSONDecodeError),
        ("{}", ValidationError),
        ("[]", ValidationError),
        ("5", ValidationError),
        ('{"mcpServers": []}', ValidationError),
        ('{"mcpServers": {"a": {}}}', ValidationError),
        ('{"mcpServers": {"a": {"command": 5}}}', ValidationError),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', ValidationError),
    ],
)
async def test_a_config_that_cannot_be_used_is_refused_on_entering(
    tmp_path: Path, text: str | None, expected: type[Exception]
) -> None:
    path = tmp_path / "servers.json"
    if text is not None:
        path.write_text(text)
    client = MultiServerClient(path)
    for _ in range(2):
        with pytest.raises(expected):
            await client.__aenter__()
    written(path, ONE)
    async with client:
        assert structured(await client.call_tool("echo"))["server"] == "one"


@pytest.mark.parametrize("config", [{}, {"mcpServers": None}, {"mcpServers": {"a": {"args": []}}}])
def test_a_dict_that_is_no_config_is_refused_at_once(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MultiServerClient.from_dict(config)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (
            '{"mcpServers": {"a": {"command": "x", "env": {"TOKEN": "hunter2${env:NOT_SET_ANYWHERE}"}}}}',
            ("mcpServers", "a", "env", "TOKEN"),
            "environment variable NOT_SET_ANYWHERE is not set",
        ),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "hunter2"}}}', ("mcpServers", "a"), "two servers of"),
        ('{"mcpServers": {}, "daemon": {"hold": "hunter2"}}', ("daemon", "hold"), "must be a number"),
    ],
)
async def test_what_only_we_refuse_is_an_error_of_the_same_class_and_shows_no_value(
    tmp_path: Path, text: str, field: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "servers.json"
    path.write_text(text)
    with pytest.raises(ValidationError, match=message) as refused:
        await MultiServerClient(path).__aenter__()
    assert [error["loc"] for error in refused.value.errors()] == [field]
    assert "hunter2" not in str(refused.value) + repr(refused.value.errors())


def test_a_dict_that_cannot_be_a_file_is_refused_as_a_config() -> None:
    with pytest.raises(ValidationError, match=r"mcpServers\.a"):
        MultiServerClient.from_dict({"mcpServers": {"a": object()}})


async def test_models_make_a_config() -> None:
    entry = fixture("one")
    server = ServerConfig(command=entry["command"], args=entry["args"], start_timeout=20)
    config = MCPServersConfig(mcpServers={"one": server})
    assert MCPServersConfig.model_validate(config.model_dump()) == config
    assert server.args == entry["args"]
    assert server.model_dump(exclude_unset=True) == {
        "command": entry["command"],
        "args": entry["args"],
        "startTimeout": 20,
    }
    for given in (config.model_dump(), {"mcpServers": {"one": server}}):
        async with MultiServerClient.from_dict(given) as client:
            assert structured(await client.call_tool("echo"))["server"] == "one"


async def test_what_is_changed_in_a_dict_afterwards_does_not_matter() -> None:
    config = {"mcpServers": {"one": fixture("one")}}
    client = MultiServerClient.from_dict(config)
    config["mcpServers"].clear()
    async with client:
        assert list(client.capabilities) == ["one"]


async def test_variables_in_a_config_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIXTURE_NAME", "from the environment")
    monkeypatch.setenv("NOWHERE", "http://127.0.0.1:9/mcp")
    servers = {"one": fixture("${env:FIXTURE_NAME}"), "web": {"url": "${NOWHERE}", "startTimeout": 1}}
    async with MultiServerClient.from_dict({"mcpServers": servers}) as client:
        assert structured(await client.call_tool("echo"))["server"] == "from the environment"
        assert states(client)["web"] in ("backoff", "parked", "connecting")


async def test_a_config_for_no_server_makes_a_client_without_tools() -> None:
    async with MultiServerClient.from_dict({"mcpServers": {}}) as client:
        assert client.list_tools().tools == []
        assert words(await client.call_tool("echo")) == "Unknown tool: echo"
        with pytest.raises(MCPError):
            await client.read_resource("a:b://c")


@pytest.mark.parametrize("broken", [{}, {"command": 5}, {"command": "x", "url": "http://x/"}, "nothing"])
async def test_a_broken_entry_parks_its_own_server_unless_none_may_be_missing(tmp_path: Path, broken: Any) -> None:
    path = written(tmp_path / "servers.json", {**ONE, "broken": broken})
    for client in (MultiServerClient(path), MultiServerClient.from_dict(json.loads(path.read_text()))):
        async with client:
            assert structured(await client.call_tool("echo"))["server"] == "one"
            assert states(client)["broken"] == "parked"
            assert "broken" not in client.capabilities
            refused = await client.call_tool("echo", server_name="broken")
            assert words(refused).startswith("Server 'broken' is parked: config: mcpServers.broken")
    with pytest.raises(ValidationError):
        await MultiServerClient(path, strict_connect=True).__aenter__()
    with pytest.raises(ValidationError):
        MultiServerClient.from_dict(json.loads(path.read_text()), strict_connect=True)


def test_where_no_asyncio_loop_runs_entering_says_what_is_needed() -> None:
    with pytest.raises(RuntimeError, match="needs a running asyncio event loop; Trio is not supported"):
        MultiServerClient.from_dict({"mcpServers": ONE}).__aenter__().send(None)


# --- entering --------------------------------------------------------------------------------------------------------


async def test_servers_connect_side_by_side() -> None:
    servers = {f"s{n}": fixture(f"s{n}", "--delay", 1) for n in range(6)}
    began = time.monotonic()
    async with MultiServerClient.from_dict({"mcpServers": servers}) as client:
        took = time.monotonic() - began
        assert set(states(client).values()) == {"ready"}
        assert len(client.capabilities) == 6
    assert took < 5, "one after the other they take six seconds"


async def test_a_server_that_fails_or_is_mute_is_waited_for_once() -> None:
    servers = {**ONE, **GONE, "mute": fixture("mute", "--mute", startTimeout=0.5)}
    with anyio.fail_after(SOON):
        async with MultiServerClient.from_dict({"mcpServers": servers}) as client:
            assert structured(await client.call_tool("echo"))["server"] == "one"
            assert states(client)["gone"] == "parked"
            assert states(client)["mute"] in ("backoff", "connecting")


@pytest.mark.parametrize("how", ["argument", "variable"])
async def test_strict_connecting_raises_what_went_wrong_and_leaves_nothing(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STRICT, "yes" if how == "variable" else "no")
    before = Held()
    config = {"mcpServers": {**ONE, **GONE}}
    client = MultiServerClient.from_dict(config, strict_connect=True if how == "argument" else None)
    with pytest.raises(ConnectionError, match=r"server 'gone': .*not found"):
        await client.__aenter__()
    await assert_nothing_more_than(before)


async def test_what_the_program_says_of_strictness_counts_more_than_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STRICT, "1")
    async with MultiServerClient.from_dict({"mcpServers": {**ONE, **GONE}}, strict_connect=False) as client:
        assert states(client) == {"one": "ready", "gone": "parked"}


async def test_entering_can_be_cancelled_at_once_and_leaves_nothing() -> None:
    before = Held()
    client = MultiServerClient.from_dict({"mcpServers": {**ONE, **MUTE}})
    with anyio.fail_after(SOON):
        with anyio.move_on_after(0.3) as scope:
            async with client:
                raise AssertionError("it was entered")
        assert scope.cancelled_caught
        await assert_nothing_more_than(before)
        entering = asyncio.create_task(client.__aenter__())
        await until(lambda: len(Held().children - before.children) == 2)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await assert_nothing_more_than(before)


async def test_leaving_in_a_cancelled_scope_waits_for_the_servers_to_end() -> None:
    before = Held()
    with anyio.move_on_after(SOON) as scope:
        async with MultiServerClient.from_dict({"mcpServers": ONE}) as client:
            pid = await pid_of(client, "one")
            scope.cancel()
            await anyio.sleep_forever()
    assert not Path(f"/proc/{pid}").exists()
    await assert_nothing_more_than(before)


async def test_a_stack_holds_the_connection() -> None:
    client = MultiServerClient.from_dict({"mcpServers": ONE})
    async with AsyncExitStack() as stack:
        await client.connect_all(stack)
        assert structured(await client.call_tool("echo"))["server"] == "one"
        with pytest.raises(RuntimeError, match="connected already"):
            await client.connect_all(stack)
    with pytest.raises(RuntimeError, match="not connected"):
        await client.call_tool("echo")


async def test_closing_by_hand_is_enough_and_can_be_done_twice() -> None:
    client = MultiServerClient.from_dict({"mcpServers": ONE})
    await client.__aenter__()
    pid = await pid_of(client, "one")
    await asyncio.gather(client.aclose(), client.aclose())
    await client.aclose()
    assert not Path(f"/proc/{pid}").exists()


async def test_leaving_in_another_task_than_entering_is_fine() -> None:
    client = MultiServerClient.from_dict({"mcpServers": ONE})
    await asyncio.create_task(client.__aenter__())
    assert structured(await client.call_tool("echo"))["server"] == "one"
    await asyncio.create_task(client.aclose())


# --- the file --------------------------------------------------------------------------------------------------------


async def test_an_edit_of_the_file_is_followed_and_disturbs_no_other_server(tmp_path: Path) -> None:
    path = written(tmp_path / "servers.json", ONE)
    async with MultiServerClient.from_config(path) as client:
        pid = await pid_of(client, "one")
        written(path, {**ONE, "two": fixture("two")})
        await until(lambda: "two__echo" in client.tool_to_server)
        assert structured(await client.call_tool("echo", server_name="two"))["server"] == "two"
        path.write_text("{ no config")
        await until(lambda: client.status()["config"]["lastReload"]["outcome"] == "rejected")
        assert structured(await client.call_tool("two__echo"))["server"] == "two"
        written(path, ONE)
        await until(lambda: "two" not in client.capabilities)
        assert "two__echo" not in client.tool_to_server
        assert words(await client.call_tool("echo", server_name="two")) == "Unknown server: two"
        assert await pid_of(client, "one") == pid


async def test_a_file_with_comments_is_read_too(tmp_path: Path) -> None:
    path = written(tmp_path / "servers.json", ONE)
    path.write_text("{ // one\n" + path.read_text().strip()[1:-1] + ",\n}")
    async with MultiServerClient.from_config(path) as client:
        assert structured(await client.call_tool("echo"))["server"] == "one"


async def test_each_entering_reads_the_file_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "servers.json", ONE)
    client = MultiServerClient(str(path))
    async with client:
        assert list(client.capabilities) == ["one"]
    written(path, {"two": fixture("two")})
    async with client:
        assert list(client.capabilities) == ["two"]


async def test_a_relative_path_is_that_of_the_directory_in_which_the_client_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "mcp_servers.json", ONE)
    monkeypatch.chdir(tmp_path)
    client = MultiServerClient()
    monkeypatch.chdir("/")
    async with client:
        assert list(client.capabilities) == ["one"]


# --- servers that stay away ------------------------------------------------------------------------------------------


async def test_a_call_to_a_server_whose_names_were_withdrawn_says_who_is_away(tmp_path: Path) -> None:
    flag = tmp_path / "may start"
    flag.touch()
    script = 'test -e "$0" && exec "$@"; sleep 60'
    started = fixture("one")
    entry = {"command": "/bin/sh", "args": ["-c", script, str(flag), started["command"], *started["args"]]}
    settings = {"grace": 0.1, "hold": 0.2}
    async with MultiServerClient.from_dict({"mcpServers": {"one": entry}, "daemon": settings}) as client:
        flag.unlink()
        with pytest.raises(MCPError, match="exited"):
            await client.call_tool("exit")
        await until(lambda: client.list_tools().tools == [])
        for call in (client.call_tool("echo"), client.get_prompt("greet"), client.call_tool("echo", server_name="one")):
            with pytest.raises(MCPError, match="server 'one' is") as refused:
                await call
            assert refused.value.error.data["server"] == "one"
        assert words(await client.call_tool("nope")) == "Unknown tool: nope"


# --- the daemon ------------------------------------------------------------------------------------------------------


async def test_no_daemon_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "mcp.sock"
    client = MultiServerClient.connect(str(path))
    before = Held()
    for _ in range(2):
        with pytest.raises(ConnectionError, match=rf"the daemon cannot be reached at {path} \(No such file"):
            await client.__aenter__()
    await assert_nothing_more_than(before)


@pytest.mark.parametrize(("name", "reason"), [("file", "Connection refused"), ("x" * 200, "path too long")])
async def test_a_socket_that_is_none_says_why(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConnectionError, match=reason):
        await MultiServerClient.connect(tmp_path / name).__aenter__()


async def test_the_usual_socket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with Daemon(ONE) as daemon:
        monkeypatch.setenv("MCP_MULTI_SERVER_SOCKET", str(daemon.socket))
        async with MultiServerClient.connect() as client:
            assert structured(await client.call_tool("echo"))["server"] == "one"


async def test_entering_waits_for_the_servers_that_a_daemon_is_starting() -> None:
    with Daemon({"slow": fixture("slow", "--delay", 1), **GONE}) as daemon:
        async with MultiServerClient.connect(daemon.socket) as client:
            assert states(client) == {"slow": "ready", "gone": "parked"}
            assert structured(await client.call_tool("echo"))["server"] == "slow"


async def test_a_broken_entry_of_the_daemons_config_says_what_is_wrong_with_it() -> None:
    with Daemon({**ONE, "broken": {"command": "x", "timeout": -1}}) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            result = await client.call_tool("echo", server_name="broken")
            assert words(result).startswith("Server 'broken' is parked: config")


async def test_the_daemons_edits_are_followed() -> None:
    with Daemon(ONE) as daemon:
        async with MultiServerClient.connect(str(daemon.socket)) as client:
            daemon.rewrite({**ONE, "two": fixture("two")})
            await until(lambda: "two__echo" in client.tool_to_server)
            daemon.rewrite({"two": fixture("two")})
            await until(lambda: client.tool_to_server.get("echo") == "two")
            assert list(client.capabilities) == ["two"]


async def test_clients_of_one_daemon_share_its_servers() -> None:
    with Daemon(SERVERS) as daemon:
        async with (
            MultiServerClient.connect(str(daemon.socket)) as client,
            MultiServerClient.connect(str(daemon.socket)) as other,
        ):
            assert await pid_of(client, "one") == await pid_of(other, "one") != os.getpid()


async def test_a_client_with_servers_of_its_own_keeps_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    async with MultiServerClient.from_dict({"mcpServers": ONE}) as client:
        assert client.list_tools().tools
    assert list(tmp_path.iterdir()) == []
