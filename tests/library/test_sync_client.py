"""The library without await, over real servers: its own ones, and those of a real daemon."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack

import pytest
from mcp import MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    LoggingMessageNotificationParams,
    PromptReference,
)

from mcp_multi_server import ServerRequestContext
from mcp_multi_server.library import background
from mcp_multi_server.library.callbacks import SyncCallbackOptions
from mcp_multi_server.library.progress import ProgressFnT
from mcp_multi_server.library.sync_client import SyncMultiServerClient
from tests.polling import eventually

from ..e2e.entries import Entry, fixture
from ..e2e.processes import descendants, is_alive, process
from .clients import DaemonWith, shared_daemons

SERVERS = {"one": fixture("one"), "two": fixture("two", "--era", "modern")}
OWN_LOOP = "must not wait for the event loop that runs it"
SHUT_DOWN = "this SyncMultiServerClient is shut down"
MEANWHILE = "this SyncMultiServerClient was shut down before the call ended"
SOON = 5.0
LONG = {"seconds": 30, "steps": 300, "tag": "long"}
BLOCKING: dict[str, Callable[[SyncMultiServerClient, float | None], Any]] = {
    "tool 'echo'": lambda client, timeout: client.call_tool("echo", {}, timeout=timeout),
    "resource 'one:note://one'": lambda client, timeout: client.read_resource("one:note://one", timeout=timeout),
    "prompt 'greet'": lambda client, timeout: client.get_prompt("greet", timeout=timeout),
    "completion of 'greet'": lambda client, timeout: client.complete(
        PromptReference(name="greet"), {"name": "language", "value": "D"}, timeout=timeout
    ),
}
KNOWING = ("list_tools", "list_prompts", "list_resources", "list_resource_templates", "status", "collisions")
Connected = Callable[..., Any]
PROPERTIES = ("capabilities", "tool_to_server", "prompt_to_server")


@contextmanager
def owning(servers: dict[str, Entry], **callbacks: Unpack[SyncCallbackOptions]) -> Iterator[SyncMultiServerClient]:
    with SyncMultiServerClient.from_dict({"mcpServers": servers}, **callbacks) as client:
        yield client


@pytest.fixture(scope="module")
def daemon_with() -> Iterator[DaemonWith]:
    with shared_daemons() as daemon_with:
        yield daemon_with


@pytest.fixture(params=["owning", "attached"])
def connected(request: pytest.FixtureRequest, daemon_with: DaemonWith) -> Connected:
    """A client with servers of its own, or one of the daemon that has these servers."""

    @contextmanager
    def attached(
        servers: dict[str, Entry], **callbacks: Unpack[SyncCallbackOptions]
    ) -> Iterator[SyncMultiServerClient]:
        with SyncMultiServerClient.connect(str(daemon_with(servers).socket), **callbacks) as client:
            yield client

    return owning if request.param == "owning" else attached


def structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def pid_of(client: SyncMultiServerClient, server: str) -> int:
    return int(client.call_tool("pid", server_name=server).content[0].text)  # type: ignore[union-attr]  # it is a text


def cancelled(client: SyncMultiServerClient, server: str) -> list[str]:
    """Tags of the calls that this server was told to forget."""
    found = structured(client.call_tool("cancelled_ids", server_name=server))["cancelled"]
    return [one["tag"] for one in found]


def telling(act: Callable[[], object]) -> ProgressFnT:
    """A progress callback that does something else."""

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        act()

    return progressed


class Held:
    """What this process holds: threads, open files, child processes."""

    def __init__(self) -> None:
        gc.collect()
        self.threads = set(threading.enumerate())
        self.files = {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}
        self.children = {one.pid for one in descendants(os.getpid())}

    def assert_is_all(self) -> None:
        eventually(lambda: set(threading.enumerate()) <= self.threads, within=SOON, what="the end of the threads")
        present = Held()
        assert present.files <= self.files
        assert present.children <= self.children


# --- calls -----------------------------------------------------------------------------------------------------------


def test_a_thousand_calls_from_eight_threads_get_their_own_answers_and_leak_nothing(connected: Connected) -> None:
    with connected(SERVERS):
        pass  # whatever the first use opens for good is open
    before = Held()
    with connected(SERVERS) as client, ThreadPoolExecutor(8) as threads:

        def call(number: int) -> tuple[int, str]:
            server = ("one", "two")[number % 2]
            said = structured(client.call_tool("echo", {"number": number}, server_name=server, timeout=30))
            return said["arguments"]["number"], said["server"]

        answers = list(threads.map(call, range(1000)))
    assert answers == [(number, ("one", "two")[number % 2]) for number in range(1000)]
    before.assert_is_all()


def test_every_method_answers(connected: Connected) -> None:
    with connected(SERVERS) as client:
        assert {tool.meta["serverName"] for tool in client.list_tools().tools if tool.meta} == {"one", "two"}
        assert {prompt.name for prompt in client.list_prompts().prompts} == {"greet", "two__greet"}
        assert "one:note://one" in {resource.uri for resource in client.list_resources().resources}
        assert "note://one" in {resource.uri for resource in client.list_resources(use_namespace=False).resources}
        templates = client.list_resource_templates().resource_templates
        assert {template.uri_template for template in templates} == {"one:note://one/{path}", "two:note://two/{path}"}
        assert client.capabilities.keys() == SERVERS.keys()
        assert client.tool_to_server["echo"] == client.prompt_to_server["greet"] == "one"
        assert {row["name"]: row["state"] for row in client.status()["servers"]} == {"one": "ready", "two": "ready"}
        assert ("tool", "echo", "one") in {(row["kind"], row["name"], row["owner"]) for row in client.collisions()}
        assert "note://one of two" in str(client.read_resource("two:note://one").contents)
        assert "note://one of two" in str(client.read_resource("note://one", "two").contents)
        assert "Greet in Suomi, says two" in str(client.get_prompt("greet", {"language": "Suomi"}, "two").messages)
        found = client.complete(PromptReference(name="greet"), {"name": "language", "value": "D"})
        assert found.completion.values == ["Dansk", "Deutsch"]
        assert "vendor.example/a" in structured(client.call_tool("received", meta={"vendor.example/a": 1}))["line"]
        with pytest.raises(MCPError, match=r"within 0\.1 s"):
            client.call_tool("slow", {"seconds": 30}, timedelta(seconds=0.1))


@pytest.mark.parametrize("timeout", [0.2, timedelta(milliseconds=200)], ids=["float", "timedelta"])
def test_a_call_that_takes_too_long_raises_and_is_cancelled_at_its_server(
    connected: Connected, timeout: float | timedelta
) -> None:
    with connected(SERVERS) as client:
        with pytest.raises(TimeoutError, match=r"^tool 'slow' of server 'one' did not answer within 0\.2 s"):
            client.call_tool("slow", {"seconds": 30, "tag": f"{timeout}"}, timeout=timeout)
        eventually(
            lambda: cancelled(client, "one")[-1:] == [f"{timeout}"],
            within=SOON,
            what="the server's knowing of the cancel",
        )


@pytest.mark.parametrize("what", BLOCKING)
def test_whatever_waits_for_a_server_has_a_timeout(what: str, stopped: SyncMultiServerClient) -> None:
    with pytest.raises(TimeoutError, match=f"^{what}.* did not answer within 0.1 s, the call was cancelled"):
        BLOCKING[what](stopped, 0.1)


@pytest.fixture(scope="module")
def stopped() -> Iterator[SyncMultiServerClient]:
    """A client whose one server stands still."""
    with owning({"one": fixture("one")}) as client:
        pid = pid_of(client, "one")
        os.kill(pid, signal.SIGSTOP)
        yield client
        with suppress(ProcessLookupError):  # it may have been taken for hung, and replaced
            os.kill(pid, signal.SIGCONT)


def test_errors_arrive_as_the_asynchronous_client_raises_them(connected: Connected) -> None:
    with connected(SERVERS) as client:
        with pytest.raises(MCPError) as caught:
            client.read_resource("nobody:note://one")
        assert caught.value.error.code == -32601
        assert any(Path(frame.path).name == "client.py" for frame in caught.traceback)
        assert client.call_tool("no such tool", {}).is_error
        with pytest.raises(ValueError, match="cursor"):
            client.list_tools("page 2")


def test_progress_is_told_while_the_caller_waits(connected: Connected) -> None:
    told: list[tuple[float, str | None]] = []
    threads: set[str] = set()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        threads.add(threading.current_thread().name)

    with connected(SERVERS) as client:
        client.call_tool("slow", {"seconds": 0.1}, progress_callback=progressed)
    assert told == [(1, "step 1"), (2, "step 2")]
    assert threads == {"SyncMultiServerClient"}


def test_changes_are_told(connected: Connected) -> None:
    changed = threading.Event()
    with connected(SERVERS) as client:
        client.on_change(lambda *_: changed.set())
        client.call_tool("grow", {}, server_name="one")
        assert changed.wait(SOON)
        eventually(lambda: "grown_0" in client.tool_to_server, within=SOON, what="the new tool")


# --- loops and threads -----------------------------------------------------------------------------------------------


def test_it_works_inside_a_coroutine_of_another_loop() -> None:
    async def main() -> dict[str, Any]:
        with owning({"one": fixture("one")}) as client:
            return structured(client.call_tool("echo", {"a": 1}))

    assert asyncio.run(main())["arguments"] == {"a": 1}


def test_a_callback_cannot_wait_for_its_own_loop() -> None:
    caught: list[RuntimeError] = []
    listed: list[int] = []

    def ask() -> None:
        listed.append(len(client.list_tools().tools))
        try:
            client.call_tool("echo", {})
        except RuntimeError as error:
            caught.append(error)

    with owning({"one": fixture("one")}) as client:
        client.call_tool("slow", {"seconds": 0.1, "steps": 1}, progress_callback=telling(ask), timeout=SOON)
    assert OWN_LOOP in str(caught[0])
    assert listed[0] > 0


def test_a_callback_can_shut_down() -> None:
    returned: list[None] = []
    with owning({"one": fixture("one")}) as client, pytest.raises(RuntimeError, match=MEANWHILE):
        shut_down = telling(lambda: returned.append(client.shutdown()))  # type: ignore[func-returns-value]  # that it does
        client.call_tool("slow", LONG, progress_callback=shut_down, timeout=SOON)
    assert returned


def test_ctrl_c_during_a_call_cancels_it_and_leaves_the_client_usable(ctrl_c: Callable[[], None]) -> None:
    with owning({"one": fixture("one")}) as client:
        with pytest.raises(KeyboardInterrupt):
            client.call_tool("slow", LONG, progress_callback=telling(ctrl_c), timeout=SOON)
        eventually(lambda: cancelled(client, "one") == ["long"], within=SOON, what="the server's knowing of the cancel")


def test_ctrl_c_while_connecting_leaves_nothing_behind(ctrl_c: Callable[[], None], tmp_path: Path) -> None:
    before, journal = Held(), tmp_path / "journal"

    def interrupt() -> None:
        eventually(journal.exists, within=SOON, what="the start of the server")
        ctrl_c()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        SyncMultiServerClient.from_dict({"mcpServers": {"one": fixture("one", "--mute", "--journal", journal)}})
    interrupter.join()
    before.assert_is_all()


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread, once, by another signal than Ctrl-C's, which belongs to pytest."""
    previous = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    done = threading.Event()

    def interrupt() -> None:
        if not done.is_set():
            done.set()
            os.kill(os.getpid(), signal.SIGUSR1)

    yield interrupt
    signal.signal(signal.SIGUSR1, previous)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_what_is_shut_down_says_so_whatever_is_asked() -> None:
    with owning({"one": fixture("one")}) as client:
        pass
    client.shutdown()
    for name in KNOWING:
        with pytest.raises(RuntimeError, match=SHUT_DOWN):
            getattr(client, name)()
    for name in PROPERTIES:
        with pytest.raises(RuntimeError, match=SHUT_DOWN):
            getattr(client, name)
    for wait in BLOCKING.values():
        with pytest.raises(RuntimeError, match=SHUT_DOWN):
            wait(client, None)
    with pytest.raises(RuntimeError, match=SHUT_DOWN), client:
        pass


def test_shutting_down_ends_the_calls_of_other_threads() -> None:
    begun = threading.Event()
    with owning({"one": fixture("one")}) as client, ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.call_tool, "slow", LONG, progress_callback=telling(begun.set))
        assert begun.wait(SOON)
        client.shutdown()
        with pytest.raises(RuntimeError, match=MEANWHILE):
            call.result(SOON)


def test_a_callback_that_never_returns_does_not_keep_shutdown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, released = threading.Event(), threading.Event()

    def stay() -> None:
        begun.set()
        released.wait(SOON)

    before = Held()
    monkeypatch.setattr(background, "STOP_WITHIN", 0.1)
    client = SyncMultiServerClient.from_dict({"mcpServers": {"one": fixture("one")}})
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.call_tool, "slow", LONG, progress_callback=telling(stay))
        try:
            assert begun.wait(SOON)
            client.shutdown()
            assert "a callback does not return" in caplog.text
        finally:
            released.set()
        with pytest.raises(RuntimeError, match=MEANWHILE):
            call.result(SOON)
    before.assert_is_all()


def test_all_threads_that_shut_down_wait_for_the_end() -> None:
    client = SyncMultiServerClient.from_dict({"mcpServers": {"one": fixture("one")}})
    (server,) = [one for one in descendants(os.getpid()) if one.pid == pid_of(client, "one")]

    def shut_down(_: int) -> bool:
        client.shutdown()
        return is_alive(server)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(shut_down, range(4))) == [False] * 4


def test_a_dropped_client_ends_by_itself_and_warns() -> None:
    client = SyncMultiServerClient.from_dict({"mcpServers": {"one": fixture("one")}})
    server = process(pid_of(client, "one"))
    assert server is not None
    with pytest.warns(ResourceWarning, match="dropped without shutdown"):
        del client
        gc.collect()
    eventually(lambda: not is_alive(server), within=SOON, what="the end of the server")


BEGINNING = """
import asyncio, atexit, contextlib, json, os, sys, threading
from mcp_multi_server.library.sync_client import SyncMultiServerClient
client = SyncMultiServerClient.from_dict(json.loads(sys.argv[1]))
print(client.call_tool("pid").content[0].text, flush=True)
"""
FORGETFUL = {
    "falls off its end": "",
    "exits with a code": "sys.exit(3)",
    "raises": "raise KeyError",
    "leaves a call running in a thread": """
        def call():
            with contextlib.suppress(RuntimeError):
                client.call_tool("slow", {"seconds": 60})
        threading.Thread(target=call, daemon=True).start()
    """,
    "uses it at its exit": "atexit.register(lambda: client.call_tool('echo', {}))",
    "asks from the thread of a loop": """
        async def main():
            client.call_tool('echo', {})
        asyncio.run(main())
    """,
    "forks": """
        child = os.fork()
        if child == 0:
            try:
                client.call_tool('echo', {})
            except RuntimeError as error:
                sys.exit(7 if 'forked' in str(error) else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not client.call_tool('echo', {}).is_error
    """,
}


@pytest.mark.parametrize("how", FORGETFUL)
def test_a_program_that_forgets_to_shut_down_ends_soon_and_its_server_in_good_order(how: str, tmp_path: Path) -> None:
    program = BEGINNING + textwrap.dedent(FORGETFUL[how])
    code = {"exits with a code": 3, "raises": 1}.get(how, 0)
    ended = tmp_path / "ended"
    config = json.dumps({"mcpServers": {"one": noting_its_end(ended)}})
    with in_a_session([sys.executable, "-W", "always::ResourceWarning", "-c", program, config]) as running:
        assert running.stdout is not None
        server = process(int(running.stdout.readline()))  # None where it has ended by now, as it is to
        begun = time.monotonic()
        errors = running.communicate(timeout=15)[1].decode()
    assert running.returncode == code, errors
    assert time.monotonic() - begun < SOON
    assert server is None or not is_alive(server)
    assert ended.read_text() == "0\n", "the server was killed"
    assert ("Traceback" in errors) == (code == 1), errors
    assert "dropped" not in errors


@contextmanager
def in_a_session(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is killed at the end with all that it forked, should it still run."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def noting_its_end(file: Path) -> Entry:
    """A server whose exit code is written down, unless it is killed with its parent."""
    entry = fixture("one")
    script = 'file=$1; shift; "$@"; echo $? >"$file"'
    return entry | {"command": "/bin/sh", "args": ["-c", script, "sh", str(file), entry["command"], *entry["args"]]}


# --- beginnings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected"), [("3", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_none_is_refused_by_name(limit: Any, expected: type[Exception]) -> None:
    with (
        SyncMultiServerClient.from_dict({"mcpServers": {}}) as client,
        pytest.raises(expected, match="timeout must be a number of seconds"),
    ):
        client.call_tool("x", timeout=limit)


def test_one_config_is_needed() -> None:
    for given in ({}, {"config_path": "a.json", "config_dict": {}}):
        with pytest.raises(ValueError, match="Exactly one of config_path and config_dict"):
            SyncMultiServerClient(**given)  # type: ignore[arg-type]  # of two types


def test_a_config_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_text(json.dumps({"mcpServers": {"one": fixture("one")}}))
    with SyncMultiServerClient(path) as client, SyncMultiServerClient.from_config(str(path)) as other:
        assert client.tool_to_server["echo"] == other.tool_to_server["echo"] == "one"


def test_what_keeps_it_from_connecting_is_raised_by_the_constructor(tmp_path: Path) -> None:
    before = Held()
    missing = {"mcpServers": {"gone": {"command": "no-such-program-anywhere", "args": []}}}
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(FileNotFoundError):
        SyncMultiServerClient.from_config(tmp_path / "missing.json")
    with pytest.raises(json.JSONDecodeError):
        SyncMultiServerClient.from_config(broken)
    with pytest.raises(ConnectionError, match="no-such-program-anywhere"):
        SyncMultiServerClient.from_dict(missing, strict_connect=True)
    with pytest.raises(ConnectionError, match=r"no-such\.sock"):
        SyncMultiServerClient.connect(str(tmp_path / "no-such.sock"))
    with SyncMultiServerClient.from_dict(missing) as client:
        assert client.list_tools().tools == []
    before.assert_is_all()


# --- what servers ask ------------------------------------------------------------------------------------------------

ASKING = {"new": fixture("new", "--era", "modern"), "old": fixture("old", "--era", "legacy")}


@pytest.mark.parametrize("server", list(ASKING))
def test_a_callback_runs_off_the_loop_where_it_may_block_and_call(connected: Connected, server: str) -> None:
    clients: list[SyncMultiServerClient] = []
    threads: list[threading.Thread] = []

    def elicit(context: ServerRequestContext, params: ElicitRequestParams) -> ElicitResult:
        threads.append(threading.current_thread())
        nested = structured(clients[0].call_tool("echo", server_name=context.server_name, timeout=SOON))
        return ElicitResult(action="accept", content={"asked by": nested["server"]})

    with connected(ASKING, elicitation_callback=elicit) as client:
        clients.append(client)
        answer = structured(client.call_tool("ask", server_name=server, timeout=2 * SOON))
        assert answer["result"]["content"] == {"asked by": server}
        assert threads[0] is not threading.current_thread()
        assert threads[0].name != SyncMultiServerClient.__name__


def test_each_kind_of_callback_is_called(connected: Connected) -> None:
    def refuse(context: ServerRequestContext, *params: object) -> ErrorData:
        return ErrorData(code=-7, message=f"not for {context.server_name}")

    with connected(ASKING, sampling_callback=refuse, list_roots_callback=refuse) as client:
        assert structured(client.call_tool("sample", server_name="old", timeout=SOON))["error"] == {
            "code": -7,
            "message": "not for old",
        }
        with pytest.raises(MCPError, match="not for new"):
            client.call_tool("roots", server_name="new", timeout=SOON)


def test_log_messages_come_in_order_and_the_callback_may_block(connected: Connected) -> None:
    logger = logging.getLogger("mcp_multi_server")
    level, told, may_go_on = logger.level, [], threading.Event()

    def take(params: LoggingMessageNotificationParams) -> None:
        assert may_go_on.wait(SOON)
        told.append((params.data, (params.meta or {})["serverName"]))

    try:
        with connected(ASKING, logging_callback=take) as client:
            client.set_logging_level("info", timeout=SOON)
            for number, server in enumerate(["old", "new", "old"]):
                client.call_tool("log", {"level": "info", "data": number}, server_name=server, timeout=SOON)
            assert not told
            may_go_on.set()
            eventually(lambda: len(told) == 3, within=SOON, what="three messages")
    finally:
        logger.setLevel(level)
    assert told == [(0, "old"), (1, "new"), (2, "old")]


def test_shutting_down_does_not_wait_for_a_callback() -> None:
    asked, let_go = threading.Event(), threading.Event()

    def elicit(context: ServerRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.set()
        let_go.wait(60)
        return ElicitResult(action="cancel")

    client = SyncMultiServerClient.from_dict({"mcpServers": ASKING}, elicitation_callback=elicit)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.call_tool, "ask", server_name="old")
        try:
            assert asked.wait(SOON)
            client.shutdown()
            with pytest.raises(RuntimeError, match=MEANWHILE):
                call.result(SOON)
        finally:
            let_go.set()
