"""How the daemon is reached, and what is said where it is not, is stuck, or is something else."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from mcp_multi_server.cli.connect import connect
from mcp_multi_server.cli.failures import NotThere, Unreachable
from mcp_multi_server.cli.session import DaemonSession, Late

from .conftest import MakeDaemon
from .wire import DEADLINE, Json, Line, environment, run, running, serving

LONG = "/tmp/" + "x" * 110


@pytest.mark.parametrize("command", [["status"], ["tools"], ["call", "t"], ["restart", "s"], ["stdio", "--wait", "0"]])
def test_without_a_daemon_every_command_exits_69(command: list[str]) -> None:
    done = run(*command, "--socket", "/nonexistent/mcp.sock")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        "error: the daemon is not reachable: no socket at /nonexistent/mcp.sock; "
        "start it with `mcp-multi-server serve`\n"
    )


def test_every_place_that_was_tried_is_named(tmp_path: Path) -> None:
    done = run("status", XDG_RUNTIME_DIR=str(tmp_path), TMPDIR="/nowhere")
    own = f"{tmp_path}/mcp-multi-server/mcp.sock"
    for place in (own, f"/nowhere/mcp-multi-server-{os.getuid()}/mcp.sock", "/run/mcp-multi-server/mcp.sock"):
        assert f"no socket at {place}" in done.stderr


def test_a_socket_that_a_dead_daemon_left_is_passed_over(daemon_with: MakeDaemon, tmp_path: Path) -> None:
    left = tmp_path / "left" / "mcp.sock"
    left.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    alone = run("status", RUNTIME_DIRECTORY=str(left.parent))
    assert alone.returncode == 69
    assert f"nothing listens at {left}" in alone.stderr

    runtime = tmp_path / "runtime"
    (runtime / "mcp-multi-server").mkdir(parents=True)
    daemon = daemon_with({"tools/list": {"tools": []}})
    os.rename(daemon.path, runtime / "mcp-multi-server" / "mcp.sock")
    assert run("tools", RUNTIME_DIRECTORY=str(left.parent), XDG_RUNTIME_DIR=str(runtime)).returncode == 0


def test_a_temporary_directory_of_another_user_is_not_trusted(daemon_with: MakeDaemon, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    daemon = daemon_with({"tools/list": {"tools": []}})
    directory = tmp_path / "mcp-multi-server-0"
    directory.mkdir()
    os.rename(daemon.path, directory / "mcp.sock")
    assert run("tools", TMPDIR=str(tmp_path)).returncode == 0
    os.chown(directory, 65534, 65534)
    assert run("tools", TMPDIR=str(tmp_path)).returncode == 69


def test_a_forbidden_socket_is_reported_as_such(tmp_path: Path) -> None:
    """Through a child of another user: root itself is forbidden nothing."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody").pw_uid
    script = (
        "import os, sys; from mcp_multi_server.cli import main, listing, explain; "
        f"os.setgroups([]); os.setgid({nobody}); os.setuid({nobody}); sys.argv = ['x', 'tools']; main()"
    )
    path = str(tmp_path / "mcp.sock")
    variables = environment(MCP_MULTI_SERVER_SOCKET=path)
    variables.pop("COVERAGE_PROCESS_CONFIG", None)  # another user could not write down what was run
    with serving(path, lambda connection: None):
        os.chmod(path, 0o600)
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=variables,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    assert done.returncode == 69
    assert done.stderr == f"error: the daemon is not reachable: permission denied for {path}\n"


@pytest.mark.parametrize(
    "words", [["--socket", LONG, "status"], ["status", "--socket", LONG], ["serve", "--socket", LONG]]
)
def test_a_path_too_long_for_a_socket_is_a_usage_error(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert f"the path of a socket has at most 107 bytes: {LONG}" in done.stderr


def test_a_path_too_long_from_the_environment_is_a_usage_error_too() -> None:
    assert run("status", MCP_MULTI_SERVER_SOCKET=LONG).returncode == 2


def test_a_runtime_directory_with_too_long_a_path_is_passed_over() -> None:
    done = run("status", XDG_RUNTIME_DIR=LONG)
    assert done.returncode == 69
    assert f"too long for a socket: {LONG}" in done.stderr


def test_a_daemon_that_accepts_nobody_does_not_respond(tmp_path: Path) -> None:
    path = str(tmp_path / "mcp.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="the daemon does not respond") as refusal:
            connect(path, timeout=0.3)
        assert 0.25 < time.monotonic() - began < 3
        assert refusal.value.exit_code == 69
        assert not isinstance(refusal.value, NotThere)


def test_a_place_in_the_backlog_that_becomes_free_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "mcp.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with running("tools", MCP_MULTI_SERVER_SOCKET=path) as process:
            listener.settimeout(DEADLINE)
            listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                assert b"tools/list" in lines.readline()
                connection.sendall(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}\n')
                assert process.wait(DEADLINE) == 0


def test_a_daemon_that_never_answers_does_not_respond() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(Late, match=r"does not respond: no answer within 0\.1 s") as refusal:
        DaemonSession(ours).control("daemon/status", timeout=0.1)
    ours.close()
    assert refusal.value.exit_code == 69


def test_a_path_of_the_users_own_is_never_replaced_by_a_usual_one(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/list": {"tools": []}})
    assert run("--socket", "/nonexistent", "tools", daemon=daemon).returncode == 69
    with pytest.raises(click.UsageError):
        connect(LONG)


@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (b"hello\n", "a line that is no JSON"),
        (b"\xff\xfe\n", "a line that is no JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"x":NaN}}\n', "a line that is no JSON"),
        (b"[" * 100_000 + b"\n", "a line that is no JSON"),
        (b"[]\n", "a line that is no JSON-RPC message"),
        (b'{"id":1,"result":{}}\n', "a line that is no JSON-RPC message"),
        (b'{"jsonrpc":"2.0","id":1}\n', "neither a result nor an error"),
        (b'{"jsonrpc":"2.0","id":1,"result":[]}\n', "neither a result nor an error"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}\n', "'tools' is no list of objects"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"tools":[5]}}\n', "'tools' is no list of objects"),
    ],
)
def test_garbage_is_an_error_and_no_traceback(daemon_with: MakeDaemon, garbage: bytes, complaint: str) -> None:
    daemon = daemon_with({"tools/list": lambda line, request: line.send_bytes(garbage)})
    done = run("tools", daemon=daemon)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: the daemon's answer cannot be understood: {complaint}\n"


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_multi_server.cli.session.ANSWER_CAP", 4096)
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x" * 5000)
    with theirs, pytest.raises(Exception, match="a line of more than"):
        DaemonSession(ours).control("daemon/status", timeout=DEADLINE)
    ours.close()


def test_a_daemon_that_hangs_up_is_an_error(daemon_with: MakeDaemon) -> None:
    done = run("status", daemon=daemon_with({"daemon/status": lambda line, request: line.hang_up()}))
    assert (done.returncode, done.stderr) == (1, "error: the daemon closed the connection\n")


def test_a_refusal_of_the_whole_connection_is_shown(daemon_with: MakeDaemon) -> None:
    def refuse(line: Line, request: Json) -> None:
        line.send({"id": None, "error": {"code": -32600, "message": "user 65534 may not connect"}})
        line.hang_up()

    done = run("status", daemon=daemon_with({"daemon/status": refuse}))
    assert (done.returncode, done.stderr) == (1, "error: user 65534 may not connect\n")


def test_answers_to_others_and_notifications_are_passed_over(daemon_with: MakeDaemon) -> None:
    def answer(line: Line, request: Json) -> None:
        line.send({"method": "notifications/tools/list_changed"})
        line.send({"id": 99, "result": {"tools": 5}})
        line.send({"id": request["id"], "result": {"tools": []}})

    assert run("tools", daemon=daemon_with({"tools/list": answer})).returncode == 0


def test_a_reader_that_leaves_early_gets_no_traceback(daemon_with: MakeDaemon) -> None:
    tools = [{"name": f"tool-{number}"} for number in range(20_000)]
    daemon = daemon_with({"tools/list": {"tools": tools}})
    with running("tools", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(DEADLINE) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf", "1e300", "soon"])
@pytest.mark.parametrize(
    "words", [("call", "t", "--timeout"), ("reload", "--timeout"), ("events", "--wait"), ("stdio", "--hold")]
)
def test_seconds_that_nobody_can_wait_for_are_refused(words: tuple[str, ...], seconds: str) -> None:
    done = run(*words, seconds)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for '{words[-1]}'" in done.stderr
