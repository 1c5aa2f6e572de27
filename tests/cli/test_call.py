"""`call`, `read` and `prompt` as a shell, a pipe and a person see them."""

from __future__ import annotations

import base64
import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeDaemon
from .wire import DEADLINE, Json, Line, run, run_on_terminal, running

BLOB = bytes(range(256))
ENCODED = base64.b64encode(BLOB).decode()
IMAGE = {"type": "image", "mimeType": "image/png", "data": ENCODED}
TOOLS = {
    "tools": [
        {"name": "status", "inputSchema": {"properties": {"id": {"type": "string"}}}, "_meta": {"serverName": "git"}},
        {"name": "hub__status", "inputSchema": {}, "_meta": {"serverName": "hub"}},
        {"name": "odd-log", "inputSchema": {}, "_meta": {"serverName": "odd"}},
    ]
}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("result", "code", "stdout", "stderr"),
    [
        ({"content": [text("hello")]}, 0, "hello\n", ""),
        ({"content": [text("a\nb\n"), text("c")]}, 0, "a\nb\nc\n", ""),
        ({"content": []}, 0, "", ""),
        ({"content": [], "structuredContent": {"n": 1}}, 0, '{\n  "n": 1\n}\n', ""),
        ({"content": [text("one")], "structuredContent": {"n": 1}}, 0, "one\n", ""),
        ({"content": [text("it broke")], "isError": True}, 1, "", "it broke\n"),
        ({"content": [], "isError": True}, 1, "", "error: the tool failed and did not say why\n"),
        ({"content": [IMAGE]}, 0, "[image] image/png, 256 B\n", ""),
        ({"content": [{"type": "resource_link", "name": "n", "uri": "a:b"}]}, 0, "[link] n: a:b\n", ""),
        ({"content": [{"type": "resource", "resource": {"uri": "a:b", "text": "t"}}]}, 0, "[resource] a:b\nt\n", ""),
        (
            {"content": [{"type": "resource", "resource": {"uri": "a:b", "blob": ENCODED}}]},
            0,
            "[resource] a:b: application/octet-stream, 256 B\n",
            "",
        ),
        ({"content": [IMAGE | {"data": "!"}]}, 1, "", "error: the server sent content that is no base64\n"),
        (
            {"content": [{"type": "hologram"}]},
            0,
            "[hologram] content of a type that is not known here; --json shows it\n",
            "",
        ),
        ({"content": [text("half \ud800 a pair")]}, 0, "half \\ud800 a pair\n", ""),
        (
            {"resultType": "input_required", "inputRequests": {}},
            1,
            "",
            "error: t asks for input in between, which a command line cannot give\n",
        ),
    ],
)
def test_a_call_prints_what_the_tool_returned(
    daemon_with: MakeDaemon, result: Json, code: int, stdout: str, stderr: str
) -> None:
    done = run("call", "t", daemon=daemon_with({"tools/call": result}))
    assert (done.returncode, done.stdout, done.stderr) == (code, stdout, stderr)


@pytest.mark.parametrize("failed", [False, True])
def test_json_is_the_result_as_received(daemon_with: MakeDaemon, failed: bool) -> None:
    result = {"content": [text("é \ud800")], "isError": failed, "x-big": 10**30, "_meta": {"a/b": None}}
    done = run("call", "t", "--json", daemon=daemon_with({"tools/call": result}))
    assert json.loads(done.stdout) == result
    assert done.returncode == int(failed)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], {}),
        (['{"id": 5}'], {"id": 5}),
        (["id=5"], {"id": "5"}),
        (["n=5", "who=me", "flag=true"], {"n": 5, "who": "me", "flag": True}),
        (["-"], {"from": "stdin"}),
    ],
)
def test_arguments_reach_the_tool(daemon_with: MakeDaemon, words: list[str], arguments: Json) -> None:
    daemon = daemon_with({"tools/list": TOOLS, "tools/call": {"content": []}})
    assert run("call", "status", *words, daemon=daemon, stdin=b'{"from": "stdin"}').returncode == 0
    request = daemon.next()
    while request["method"] != "tools/call":
        request = daemon.next()
    assert request["params"]["arguments"] == arguments


def test_it_speaks_as_a_modern_client(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/call": {"content": []}})
    run("call", "t", daemon=daemon)
    request = daemon.next()
    assert request["method"] == "tools/call"
    meta = request["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "mcp-multi-server-cli"


@pytest.mark.parametrize(
    ("server", "name", "sent"),
    [
        ("git", "status", "status"),
        ("hub", "status", "hub__status"),
        ("hub", "hub__status", "hub__status"),
        ("odd", "log", "odd-log"),
        ("not.listed", "x", "not_listed__x"),
    ],
)
def test_server_says_whose_tool_is_meant(daemon_with: MakeDaemon, server: str, name: str, sent: str) -> None:
    daemon = daemon_with({"tools/list": TOOLS, "tools/call": {"content": []}})
    run("call", "--server", server, name, daemon=daemon)
    assert [daemon.next()["method"], daemon.next()["params"]["name"]] == ["tools/list", sent]


def test_a_qualified_name_finds_the_schema_of_a_tool_listed_bare(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/list": TOOLS, "tools/call": {"content": []}})
    run("call", "git__status", "id=5", daemon=daemon)
    daemon.next()
    assert daemon.next()["params"]["arguments"] == {"id": "5"}


def test_what_is_no_text_is_saved_under_names_of_our_own(daemon_with: MakeDaemon, tmp_path: Path) -> None:
    daemon = daemon_with({"tools/call": {"content": [IMAGE, IMAGE]}})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "etc_passwd-1.png").write_bytes(b"kept")
    done = run("call", "../etc/passwd", "--output", str(tmp_path / "out"), daemon=daemon)
    assert f"saved as {tmp_path}/out/etc_passwd-2.png" in done.stdout
    assert (tmp_path / "out" / "etc_passwd-1.png").read_bytes() == b"kept"
    assert (tmp_path / "out" / "etc_passwd-3.png").read_bytes() == BLOB


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        ({"code": -32602, "message": "Unknown tool: t"}, ["error: Unknown tool: t"]),
        (
            {
                "code": -32603,
                "message": "away",
                "data": {"server": "git", "state": "parked", "reason": "exit", "retryAt": None},
            },
            ["error: away", "server git is parked (exit)"],
        ),
        ({"code": -32603, "message": "\x1b[2Jboo\x07", "data": 5}, ["error: boo\\x07"]),
        ({"code": -32603}, ["error: the daemon gave no reason"]),
    ],
)
def test_an_error_names_the_server_and_its_state(daemon_with: MakeDaemon, error: Json, lines: list[str]) -> None:
    daemon = daemon_with({"tools/call": lambda line, request: line.send({"id": request["id"], "error": error})})
    done = run("call", "t", daemon=daemon)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", lines)


def test_an_error_says_when_the_server_is_tried_again(daemon_with: MakeDaemon) -> None:
    data = {"server": "git", "state": "backoff", "reason": "exit", "retryAt": "2999-01-01T00:00:00Z"}
    error = {"code": -32603, "message": "away", "data": data}
    daemon = daemon_with({"tools/call": lambda line, request: line.send({"id": request["id"], "error": error})})
    assert "server git is backoff (exit), next attempt in " in run("call", "t", daemon=daemon).stderr


def test_a_call_without_an_answer_is_given_up_and_cancelled(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/call": lambda line, request: None})
    done = run("call", "t", "--timeout", "0.2", daemon=daemon)
    assert done.returncode == 1
    assert done.stderr == "error: no answer from t within 0.2 s (--timeout SECONDS waits longer)\n"
    request, cancelled = daemon.next(), daemon.next()
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == request["id"]


@pytest.mark.parametrize(("waited", "asked"), [("64", None), ("65", None), ("600", 595.0)])
def test_who_waits_longer_than_usual_has_the_daemon_wait_as_well(
    daemon_with: MakeDaemon, waited: str, asked: float | None
) -> None:
    """A little less, so that what the daemon says of a server that is late is what is shown."""
    daemon = daemon_with({"tools/call": lambda line, request: line.send({"id": request["id"], "result": {}})})
    run("call", "t", "--timeout", waited, daemon=daemon)
    assert daemon.next()["params"]["_meta"].get("mcp-multi-server/timeout") == asked


def test_other_messages_do_not_keep_a_call_alive(daemon_with: MakeDaemon) -> None:
    def chatter(line: Line, request: Json) -> None:
        while True:
            line.send({"method": "notifications/message", "params": {"data": "still here"}})

    assert run("call", "t", "--timeout", "0.2", daemon=daemon_with({"tools/call": chatter})).returncode == 1


def test_progress_starts_the_time_anew(daemon_with: MakeDaemon) -> None:
    pause = threading.Event()

    def slow(line: Line, request: Json) -> None:
        token = request["params"]["_meta"]["progressToken"]
        for step in range(4):
            pause.wait(0.5)
            line.send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
        line.send({"id": request["id"], "result": {"content": [text("done")]}})

    done = run("call", "t", "--timeout", "1.5", daemon=daemon_with({"tools/call": slow}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_terminal_shows_whom_it_waits_for_and_how_far_that_is(daemon_with: MakeDaemon) -> None:
    pause = threading.Event()

    def slow(line: Line, request: Json) -> None:
        pause.wait(2.2)
        token = request["params"]["_meta"]["progressToken"]
        progress = {"progressToken": token, "progress": 3, "total": 4, "message": "\x1b[2Jcounting [red]"}
        line.send({"method": "notifications/progress", "params": progress})
        line.send({"id": request["id"], "result": {"content": [text("done")]}})

    daemon = daemon_with({"tools/list": TOOLS, "tools/call": slow})
    code, drawn = run_on_terminal(["call", "status"], daemon=daemon)
    assert code == 0
    assert re.search(r"waiting for git … \d s", drawn)
    assert re.search(r"counting \[red\] … \d s", drawn)
    assert "75%" in drawn
    assert "\x1b[2Jcounting" not in drawn
    assert drawn.endswith("done\n")


def test_ctrl_c_cancels_the_call(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/call": lambda line, request: None})
    with running("call", "t", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        request = daemon.next()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
    cancelled = daemon.next()
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == request["id"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["call"], "Missing argument 'NAME'"),
        (["call", "t", "nothing"], "neither a JSON object nor key=value: 'nothing'"),
        (["call", "t", "{"], "the arguments are no JSON (line 1 column 2)"),
        (["call", "t", "x=1", "x=2"], "'x' is given twice"),
        (["call", "t", "--timeout", "0"], "0.0 is not in the range 0<x<=1000000.0"),
        (["prompt", "p", '{"x": 1}'], "neither a JSON object nor key=value"),
        (["nonsense"], "No such command 'nonsense'"),
        (["tools", "--nonsense"], "No such option"),
        ([], "Usage: mcp-multi-server"),
    ],
)
def test_usage_errors_exit_2_before_anyone_is_asked(words: list[str], complaint: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("contents", "stdout"),
    [
        ([{"uri": "a:b", "text": "no newline"}], b"no newline"),
        ([{"uri": "a:b", "blob": ENCODED}], BLOB),
        ([{"uri": "a:b", "text": "é"}, {"uri": "a:c", "blob": ENCODED}], "é".encode() + BLOB),
    ],
)
def test_a_pipe_gets_a_resource_as_it_is(daemon_with: MakeDaemon, contents: list[Json], stdout: bytes) -> None:
    daemon = daemon_with({"resources/read": {"contents": contents}})
    with running("read", "a:b", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert process.communicate(timeout=DEADLINE) == (stdout, b"")
        assert process.returncode == 0


def test_a_terminal_gets_no_bytes(daemon_with: MakeDaemon) -> None:
    contents = [{"uri": "a:b", "mimeType": "image/png", "blob": ENCODED}, {"uri": "a:c", "text": "text"}]
    code, drawn = run_on_terminal(["read", "a:b"], daemon=daemon_with({"resources/read": {"contents": contents}}))
    assert (code, drawn) == (0, "[resource] a:b: image/png, 256 B\ntext\n")


@pytest.mark.parametrize(
    ("words", "sent"),
    [(["a:b"], "a:b"), (["--server", "git", "a:b"], "git:a:b"), (["--server", "git", "git:a:b"], "git:a:b")],
)
def test_server_says_whose_resource_is_meant(daemon_with: MakeDaemon, words: list[str], sent: str) -> None:
    daemon = daemon_with({"resources/read": {"contents": []}})
    run("read", *words, daemon=daemon)
    assert daemon.next()["params"]["uri"] == sent


def test_a_prompt_is_printed_with_its_roles_and_gets_text_only(daemon_with: MakeDaemon) -> None:
    messages: list[Any] = [{"role": "user", "content": text("Hello")}, {"role": "assistant", "content": IMAGE}]
    daemon = daemon_with({"prompts/get": {"messages": messages}})
    done = run("prompt", "greet", "name=5", daemon=daemon)
    assert (done.returncode, done.stdout) == (0, "[user]\nHello\n[assistant]\n[image] image/png, 256 B\n")
    assert daemon.next()["params"]["arguments"] == {"name": "5"}
