"""Real SDK clients on `stdio` while the daemon is killed, stopped, replaced and frozen: they see one server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from tests.polling import eventually, until

from .entries import MARK, RUN, fixture, npm
from .harness import Daemon
from .sdk import Mode
from .sdk_host import TypeScriptHost

SLOW: dict[str, Any] = {"name": "slow", "arguments": {"seconds": 60, "steps": 0}}
MAY_OR_MAY_NOT = "the call may or may not have been carried out"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up()
        # The next daemon knows from there what `one` offers, also where this one is killed.
        eventually(lambda: list((daemon.directory / "state").rglob("catalogs-*")), what="lists on disk")
        yield daemon


def slow_call(daemon: Daemon, host: TypeScriptHost, **meta: Any) -> int:
    """A call that the server works on."""
    asked = host.ask("call", **SLOW, meta=meta)
    eventually(lambda: daemon.server("one")["inFlight"] == 1, what="a call under way")
    return asked


def kill(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait()


def test_a_typescript_client_sees_one_server_while_the_daemon_is_killed_stopped_upgraded_and_frozen(
    daemon: Daemon,
) -> None:
    """In one life of the client, as a host has it: all that may be seen is what the four acts say."""
    with TypeScriptHost(daemon.socket) as host:
        assert host.call("echo", text="before")
        for act in (killed, stopped, upgraded, frozen):
            act(daemon, host)
        assert host.call("echo", text="after")
        assert not host.has_seen("close")
        assert not host.has_seen("error")


def killed(daemon: Daemon, host: TypeScriptHost) -> None:
    """The call under way fails, the next one is held."""
    lost = slow_call(daemon, host)
    kill(daemon)
    error = host.outcome(lost)["error"]
    assert error["code"] == -32603
    assert MAY_OR_MAY_NOT in error["message"]
    assert error["data"]["reason"] == "daemon_lost"
    held = host.ask("call", name="echo", arguments={"text": "held"})
    daemon.start()
    assert host.outcome(held)["result"]["structuredContent"]["arguments"] == {"text": "held"}
    assert "answered with an error" in host.stderr


def stopped(daemon: Daemon, host: TypeScriptHost) -> None:
    """The call under way is answered, and the next daemon serves the next request."""
    asked = host.ask("call", name="slow", arguments={"seconds": 0.5, "steps": 0})
    eventually(lambda: daemon.server("one")["inFlight"] == 1, what="a call under way")
    daemon.stop()
    assert "result" in host.outcome(asked)
    listed = host.ask("tools")
    daemon.start()
    assert "echo" in host.outcome(listed)["result"]
    assert not host.has_seen("list_changed"), "the lists are the same"


def upgraded(daemon: Daemon, host: TypeScriptHost) -> None:
    """Another daemon with other tools, of which the client hears."""
    before = host.result("tools")
    daemon.stop()
    daemon.rewrite({"one": fixture(), "two": fixture("two", "--tools", 2)})
    daemon.start()
    eventually(lambda: host.has_seen("list_changed"), what="a notice of changed tools")
    eventually(lambda: set(host.result("tools")) > set(before), what="the new tools")


def frozen(daemon: Daemon, host: TypeScriptHost) -> None:
    """The wait is bounded, and the daemon goes on where it was."""
    lost = slow_call(daemon, host, **{"mcp-multi-server/timeout": 1.0})
    daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        error = host.outcome(lost)["error"]
        assert time.monotonic() - began < 10
        assert f"the daemon does not answer; {MAY_OR_MAY_NOT}" in error["message"]
    finally:
        daemon.signal(signal.SIGCONT)


def test_a_daemon_whose_socket_systemd_holds_is_replaced_behind_it(daemon: Daemon) -> None:
    """The connection is taken by the socket's queue before the next daemon runs."""
    daemon.stop()
    start = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    serve = [sys.executable, "-m", "mcp_multi_server", "serve", "--config", str(daemon.config)]

    def activate() -> subprocess.Popen[bytes]:
        with daemon.log_file.open("ab") as log:
            words = ["bash", "-c", start, "_", str(listener.fileno()), *serve]
            return subprocess.Popen(words, pass_fds=[listener.fileno()], stderr=log, env=daemon.environment)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(16)
        daemon.process = activate()
        with TypeScriptHost(daemon.socket) as host:
            assert host.call("echo", text="first")
            daemon.signal(signal.SIGTERM)
            daemon.wait()
            held = host.ask("call", name="echo", arguments={"text": "second"})
            daemon.process = activate()
            assert host.outcome(held)["result"]["structuredContent"]["arguments"] == {"text": "second"}
            assert not host.has_seen("close")
        daemon.signal(signal.SIGTERM)
        daemon.wait()
    daemon.socket.unlink()
    daemon.start()


def test_the_last_progress_is_not_lost_in_the_result_behind_it(daemon: Daemon) -> None:
    """The TypeScript SDK drops a progress notification that it reads together with the result."""
    daemon.rewrite({"everything": npm("everything")})
    daemon.reload()
    daemon.await_up()
    with TypeScriptHost(daemon.socket) as host:
        for _ in range(3):
            done = host.call("trigger-long-running-operation", duration=0.2, steps=4)
            assert done["progress"] == [1, 2, 3, 4]
        assert not host.has_seen("error")


def test_a_typescript_client_that_closes_has_nobody_killed(daemon: Daemon) -> None:
    with TypeScriptHost(daemon.socket) as host:
        began = time.monotonic()
        host.result("close")
        assert time.monotonic() - began < 1.5, "it kills after 2 s"


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "how"), [("legacy", kill), ("auto", Daemon.stop)])
async def test_a_python_client_of_either_era_goes_on_with_the_next_daemon(
    daemon: Daemon, mode: Mode, how: Callable[[Daemon], None]
) -> None:
    daemon.rewrite({"one": fixture()}, settings={"drain": 0})
    daemon.reload()
    words = ["-m", "mcp_multi_server", "--socket", str(daemon.socket), "stdio"]
    parameters = StdioServerParameters(command=sys.executable, args=words, env={MARK: RUN})
    with open(os.devnull, "w") as nowhere, anyio.fail_after(40):
        async with Client(stdio_client(parameters, errlog=nowhere), mode=mode, read_timeout_seconds=20) as client:
            failures: list[MCPError] = []

            async def call_slowly() -> None:
                with pytest.raises(MCPError) as failure:
                    await client.call_tool(SLOW["name"], SLOW["arguments"])
                failures.append(failure.value)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_slowly)
                await until(lambda: daemon.server("one")["inFlight"] == 1)
                how(daemon)
                await until(lambda: failures)
            assert failures[0].error.code == -32603
            daemon.start()
            done = await client.call_tool("echo", {"text": "again"})
            assert done.structured_content is not None
            assert done.structured_content["arguments"] == {"text": "again"}
