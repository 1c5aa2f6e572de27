"""`status --watch`, `logs --follow` and `events` beside a daemon that says what a test wrote, leaves and comes back."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.polling import eventually

from .conftest import MakeDaemon
from .samples import EVENTS, fleet, server
from .terminal import on_terminal
from .wire import (
    DEADLINE,
    LEFT_TO_THE_DAEMON,
    Answer,
    Json,
    Line,
    imports_of,
    run,
    running,
    scripted_daemon,
)

STATUS: Json = {"event": "status", "status": fleet()}


def output(process: subprocess.Popen[bytes], *, stream: str = "stdout") -> str:
    """The next line."""
    source = getattr(process, stream)
    line, deadline = bytearray(), time.monotonic() + DEADLINE
    while not line.endswith(b"\n"):
        assert select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0], f"no line after {line!r}"
        byte = os.read(source.fileno(), 1)
        assert byte, f"the stream ended after {bytes(line)!r}"
        line += byte
    return line.decode().rstrip("\n")


def tell(line: Line, kind: str, params: Json) -> None:
    line.send({"method": f"notifications/daemon/{kind}", "params": params})


def log(*messages: Json, then_leave: bool = False, result: Json | None = None) -> Answer:
    """Answers `daemon/logs` with a stream."""

    def answer(line: Line, request: Json) -> None:
        for message in messages:
            tell(line, "log", {"server": "git", **message})
        if result is not None:
            line.send({"id": request["id"], "result": result})
        if then_leave:
            line.hang_up()

    return answer


def events(*messages: Json, then_leave: bool = False) -> Answer:
    """Answers `daemon/events` with a stream."""

    def answer(line: Line, request: Json) -> None:
        for message in messages:
            tell(line, "event", message)
        if then_leave:
            line.hang_up()

    return answer


# --- logs --follow ---------------------------------------------------------------------------------------------------


def test_logs_go_on_until_ctrl_c(daemon_with: MakeDaemon) -> None:
    lines: tuple[Json, ...] = (
        {"lines": ["first", "\x1b[31mred\x1b[0m"]},
        {"lines": ["third"], "leftOut": 7},
        {"state": "backoff", "reason": "exit: exited with code 3"},
        {"state": "ready", "reason": None},
        {"lines": ["last"]},
    )
    daemon = daemon_with({"daemon/logs": log(*lines)})
    with running("logs", "git", "-f", "-n", "2", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert [output(process) for _ in range(4)] == ["first", "red", "third", "last"]
        assert [output(process, stream="stderr") for _ in range(3)] == [
            "-- 7 lines left out: they came too fast",
            "-- git: backoff (exit: exited with code 3)",
            "-- git: ready",
        ]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    assert daemon.next()["params"] == {"server": "git", "lines": 2, "follow": True}


def test_logs_followed_as_json_are_json_lines(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"daemon/logs": log({"lines": ["a"]}, {"state": "ready"})})
    with running("logs", "git", "--follow", "--json", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert json.loads(output(process)) == {"server": "git", "lines": ["a"]}
        assert json.loads(output(process)) == {"server": "git", "state": "ready"}


def test_logs_of_a_server_that_is_removed_end_with_a_word(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"daemon/logs": log({"lines": ["last"]}, result={"server": "git", "ended": "removed"})})
    done = run("logs", "git", "--follow", daemon=daemon)
    assert (done.returncode, done.stdout) == (1, "last\n")
    assert done.stderr == "error: git was removed; nothing more will come\n"


def test_logs_of_a_server_that_is_not_there_are_an_error_at_once(daemon_with: MakeDaemon) -> None:
    def refuse(line: Line, request: Json) -> None:
        line.send({"id": request["id"], "error": {"code": -32602, "message": "no server 'x' is running"}})

    done = run("logs", "x", "--follow", daemon=daemon_with({"daemon/logs": refuse}))
    assert (done.returncode, done.stderr) == (1, "error: no server 'x' is running\n")


# --- a daemon that leaves --------------------------------------------------------------------------------------------

STREAMS: dict[str, tuple[tuple[str, ...], str, Answer]] = {
    "logs": (("logs", "git", "--follow"), "daemon/logs", log({"lines": ["one line"]}, then_leave=True)),
    "events": (("events",), "daemon/events", events(*EVENTS[:1], then_leave=True)),
    "watch": (("status", "--watch"), "daemon/events", events(STATUS, then_leave=True)),
}


@pytest.mark.parametrize("command", STREAMS)
def test_a_daemon_that_stays_away_ends_a_stream_with_69(tmp_path: Path, command: str) -> None:
    words, method, answer = STREAMS[command]
    with scripted_daemon(tmp_path, {method: answer}) as daemon:
        path = Path(daemon.path)

        def answer_and_vanish(line: Line, request: Json) -> None:
            path.unlink()
            assert callable(answer)
            answer(line, request)

        daemon.script = {method: answer_and_vanish}
        done = run(*words, "--wait", "0.5", daemon=daemon)
    assert done.returncode == 69
    assert done.stdout
    away, gone = done.stderr.splitlines()
    assert away == "-- the daemon closed the connection; waiting up to 0.5 s for it to come back"
    assert gone == "error: the daemon is gone: it was not back within 0.5 s"


@pytest.mark.parametrize("command", STREAMS)
def test_who_does_not_want_to_wait_for_it_does_not(daemon_with: MakeDaemon, command: str) -> None:
    words, method, answer = STREAMS[command]
    done = run(*words, "--wait", "0", daemon=daemon_with({method: answer}))
    assert (done.returncode, done.stderr) == (69, "error: the daemon is gone: it was not back within 0 s\n")


@pytest.mark.parametrize("command", STREAMS)
def test_a_daemon_that_hangs_up_before_it_says_anything_is_no_daemon_to_wait_for(
    daemon_with: MakeDaemon, command: str
) -> None:
    words, method, _ = STREAMS[command]
    done = run(*words, daemon=daemon_with({method: lambda line, request: line.hang_up()}))
    assert (done.returncode, done.stderr) == (1, "error: the daemon closed the connection\n")


@pytest.mark.parametrize("command", STREAMS)
def test_no_daemon_at_all_is_said_at_once(tmp_path: Path, command: str) -> None:
    done = run(*STREAMS[command][0], MCP_MULTI_SERVER_SOCKET=str(tmp_path / "none"))
    assert done.returncode == 69
    assert "no socket at" in done.stderr


def test_a_daemon_that_hangs_up_again_and_again_is_not_back(daemon_with: MakeDaemon) -> None:
    asked = list[Json]()

    def once(line: Line, request: Json) -> None:
        asked.append(request)
        if len(asked) == 1:
            tell(line, "log", {"server": "git", "lines": ["first"]})
        line.hang_up()

    done = run("logs", "git", "--follow", "--wait", "1", daemon=daemon_with({"daemon/logs": once}))
    assert (done.returncode, done.stdout) == (69, "first\n")
    assert len(asked) > 1


def test_logs_go_on_after_the_daemons_restart_with_all_that_was_written_since(tmp_path: Path) -> None:
    with (
        scripted_daemon(tmp_path, {"daemon/logs": log({"lines": ["before"]})}) as first,
        running("logs", "git", "--follow", "-n", "5", MCP_MULTI_SERVER_SOCKET=first.path) as process,
    ):
        assert output(process) == "before"
        os.unlink(first.path)
        first.hang_up()
        assert output(process, stream="stderr").startswith("-- the daemon closed the connection; waiting up to 60")
        with scripted_daemon(tmp_path, {"daemon/logs": log({"lines": ["after"]})}) as second:
            assert output(process) == "after"
            assert output(process, stream="stderr") == "-- the daemon is back"
            assert second.next()["params"] == {"server": "git", "lines": 200, "follow": True}
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0


# --- status --watch --------------------------------------------------------------------------------------------------


class Changing:
    """A daemon whose status a test changes while it is watched."""

    def __init__(self, *servers: Json) -> None:
        self.status = fleet() | {"servers": list(servers)}
        self.asked = 0
        self.line: Line | None = None
        self.script: dict[str, Answer] = {"daemon/events": self.follow, "daemon/status": self.answer}

    def follow(self, line: Line, request: Json) -> None:
        self.line = line
        tell(line, "event", {"event": "status", "status": self.status})

    def answer(self, line: Line, request: Json) -> None:
        self.asked += 1
        line.send({"id": request["id"], "result": self.status})

    def change(self, *servers: Json) -> None:
        assert self.line is not None
        self.status = self.status | {"servers": list(servers)}
        for _ in range(3):
            tell(self.line, "event", {"event": "server"})


def test_a_watch_into_a_pipe_is_a_line_for_each_change(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "ready", tools=2), server("hub", "ready"))
    with running("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as process:
        assert [output(process).split(" ", 1)[1] for _ in range(2)] == ["git: ready, 2 tools", "hub: ready"]
        daemon.change(server("git", "backoff", reason="exit: code 3"), server("hub", "ready", inFlight=5))
        assert output(process).split(" ", 1)[1] == "git: backoff (exit: code 3)"
        daemon.change(server("hub", "ready", tools=1, prompts=3, stale=True))
        assert output(process).split(" ", 1)[1] == "hub: ready, 1 tools, 3 prompts (stale)"
        assert output(process).split(" ", 1)[1] == "git: removed"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    assert daemon.asked <= 6


@pytest.mark.parametrize("words", [("status", "--watch"), ("events",), ("events", "--json"), ("logs", "git", "-f")])
def test_a_stream_ends_with_its_reader_even_if_nothing_happens_any_more(
    daemon_with: MakeDaemon, words: tuple[str, ...]
) -> None:
    """`events | head -1`: the first line comes, and no other ever."""
    script = {"daemon/events": events(STATUS), "daemon/logs": log({"lines": ["a word"]})}
    with running(*words, MCP_MULTI_SERVER_SOCKET=daemon_with(script).path) as process:
        assert output(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_watch_as_json_is_a_status_a_line(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "ready"))
    with running("status", "--watch", "--json", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as process:
        assert json.loads(output(process)) == daemon.status
        daemon.change(server("git", "degraded"))
        assert json.loads(output(process)) == daemon.status


def test_a_watch_on_a_terminal_is_a_table_that_changes_in_place(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "ready", tools=12), server("hub", "ready", inFlight=77))
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as terminal:
        screen = terminal.until(lambda screen: "hub" in screen.text)
        assert screen.is_alternate
        assert not screen.has_cursor
        summary, head, _, titles, *rows = screen.text.splitlines()
        assert summary == "2/2 ready"
        assert head.startswith("mcp-multi-server 9.9 · pid 4711")
        assert titles.split()[:3] == ["SERVER", "STATE", "FOR"]
        assert [row.split()[:2] for row in rows[:2]] == [["git", "ready"], ["hub", "ready"]]
        assert "77" not in screen.text, "a number that no event keeps true"
        daemon.change(server("hub", "backoff", reason="exit: exited with code 3", nextAttemptAt="2999-01-01T00:00:00Z"))
        screen = terminal.until(lambda screen: "hub  " in screen.text and "git  " not in screen.text)
        assert "exit: exited with code 3" in screen.text
        assert "hub: its own words are in `mcp-multi-server logs hub`" in screen.text
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        assert not screen.is_alternate
        assert screen.has_cursor
        assert "exit: exited with code 3" in screen.printed, "the last status stays"


def test_a_watch_lets_time_pass_without_asking(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "ready", since="2020-01-01T00:00:00Z"))
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as terminal:
        terminal.until(lambda screen: "git" in screen.text)
        terminal.until(lambda screen: terminal.drawn.count("\x1b[H") >= 4)
    assert daemon.asked == 0


def test_a_status_that_does_not_fit_shows_who_is_in_trouble_and_names_the_rest(daemon_with: MakeDaemon) -> None:
    daemon = Changing(*(server(f"s{number:02}", "ready") for number in range(30)), server("ill", "parked"))
    path = daemon_with(daemon.script).path
    with on_terminal("status", "--watch", rows=12, columns=120, MCP_MULTI_SERVER_SOCKET=path) as terminal:
        screen = terminal.until(lambda screen: "s29" in screen.text)
        summary, _, _, _, first, _, _, _, ready, *_, last = screen.text.splitlines()
        assert summary == "30/31 ready, 1 parked"
        assert first.split()[:2] == ["ill", "parked"]
        assert ready.startswith("ready: s00, s01, s02")
        assert last.startswith("… ") and "more lines" in last
        terminal.resize(120, 50)
        screen = terminal.until(lambda screen: "s29  " in screen.text)
        assert "more lines" not in screen.text
        assert [line.split()[0] for line in screen.text.splitlines()[4:6]] == ["ill", "s00"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_a_watch_leaves_the_terminal_as_it_was(daemon_with: MakeDaemon, number: int, code: int) -> None:
    daemon = Changing(server("git", "ready"))
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as terminal:
        terminal.until(lambda screen: "git" in screen.text)
        terminal.process.send_signal(number)
        assert terminal.end() == code
        assert not terminal.screen.is_alternate
        assert terminal.screen.has_cursor


def test_a_watch_that_is_stopped_gives_the_terminal_back_and_takes_it_again(daemon_with: MakeDaemon) -> None:
    """Ctrl-Z and `fg`."""
    daemon = Changing(server("git", "ready"))
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as terminal:
        terminal.until(lambda screen: "git" in screen.text)
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.until(lambda screen: not screen.is_alternate and screen.has_cursor)
        eventually(lambda: Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(lambda screen: screen.is_alternate and not screen.has_cursor and "git" in screen.text)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        assert not terminal.screen.is_alternate


def test_a_watch_says_on_the_screen_that_the_daemon_is_away(tmp_path: Path) -> None:
    daemon = Changing(server("git", "ready"))
    with (
        scripted_daemon(tmp_path, daemon.script) as first,
        on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=first.path) as terminal,
    ):
        terminal.until(lambda screen: "git" in screen.text)
        os.unlink(first.path)
        first.hang_up()
        screen = terminal.until(lambda screen: "waiting up to 60 s for it to come back" in screen.text)
        assert "git" in screen.text
        with scripted_daemon(tmp_path, Changing(server("new", "ready")).script):
            terminal.until(lambda screen: "new" in screen.text and "waiting" not in screen.text)


def test_a_server_cannot_write_on_the_screen(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "parked", reason="\x1b[2Jexit\x1b]0;title\x07\x9b2J"))
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=daemon_with(daemon.script).path) as terminal:
        screen = terminal.until(lambda screen: "git" in screen.text)
        assert "exit\\x9b2J" in screen.text
        assert "\x1b[2J" not in terminal.drawn
        assert "\x1b]0" not in terminal.drawn


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(daemon_with: MakeDaemon) -> None:
    daemon = Changing(server("git", "ready"))
    path = daemon_with(daemon.script).path
    with on_terminal("status", "--watch", TERM="dumb", MCP_MULTI_SERVER_SOCKET=path) as terminal:
        terminal.until(lambda screen: "git: ready" in screen.printed)
        assert not terminal.screen.is_alternate


# --- log-level -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        ((), {}, "info\n"),
        (("debug",), {"level": "debug"}, "debug (configured: info)\n"),
        (("WARNING",), {"level": "warning"}, "warning (configured: info)\n"),
    ],
)
def test_the_logs_level_is_shown_and_changed(
    daemon_with: MakeDaemon, words: tuple[str, ...], sent: Json, said: str
) -> None:
    level = sent.get("level", "info")
    daemon = daemon_with({"daemon/log-level": {"level": level, "configured": "info"}})
    done = run("log-level", *words, daemon=daemon)
    assert (done.returncode, done.stdout) == (0, said)
    assert daemon.next()["params"] == sent


def test_a_level_that_is_none_is_wrong_usage() -> None:
    done = run("log-level", "loud")
    assert done.returncode == 2
    assert "'loud' is not one of 'debug', 'info', 'warning', 'error'" in done.stderr


@pytest.mark.parametrize("words", [("logs", "git", "--follow"), ("events",), ("status", "--watch")])
def test_following_starts_without_the_daemons_libraries(daemon_with: MakeDaemon, words: tuple[str, ...]) -> None:
    script: dict[str, Answer] = {
        "daemon/logs": log({"lines": []}, then_leave=True),
        "daemon/events": events(STATUS, then_leave=True),
    }
    _, imported = imports_of(*words, "--wait", "0", daemon=daemon_with(script))
    assert "mcp_multi_server" in imported
    assert not imported & (LEFT_TO_THE_DAEMON | {"rich"})
