"""What the daemon and its servers say, from outside: the log wherever it leads, and who follows at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cli.terminal import Terminal, on_terminal
from tests.cli.wire import COMMAND, running
from tests.cli.wire import environment as at_the_shell
from tests.polling import eventually

from .entries import SERVERS, fixture, python
from .harness import Daemon
from .wire import Message, texts

WITHIN = 20.0
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


class Into(Daemon):
    """A daemon whose standard streams a shell opens, or closes."""

    def __init__(self, redirections: str, servers: dict[str, Any], **settings: Any) -> None:
        super().__init__(servers, settings=settings)
        self.redirections = redirections

    @property
    def command(self) -> list[str]:
        return ["sh", "-c", f'exec "$@" {self.redirections}', "sh", *super().command]


def entries(log: str) -> list[Message]:
    return [json.loads(line[line.index("{") :]) for line in log.splitlines()]


def said(daemon: Daemon, line: str, times: int = 1) -> None:
    """Has the fixture say so on its stderr."""
    with daemon.legacy() as wire:
        assert texts(wire.call("say", {"line": line, "times": times}, within=WITHIN)) == ["said"]


def shell(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    env = at_the_shell(MCP_MULTI_SERVER_SOCKET=str(daemon.socket))
    return subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, timeout=WITHIN)


# --- the log, wherever it leads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirections", "form"),
    [
        ("2>/dev/full", "json"),
        (">/dev/full 2>&1", "console"),
        ("2>&-", "console"),
        ("<&- >&- 2>&-", "json"),
    ],
)
def test_a_log_that_cannot_be_written_stops_nothing(redirections: str, form: str) -> None:
    with Into(redirections, {"one": fixture()}, log={"level": "debug", "format": form}) as daemon:
        daemon.await_up("one")
        said(daemon, "to nobody", 200)
        daemon.write("{ no config")
        assert daemon.reload()["outcome"] == "rejected"
        daemon.rewrite({"one": fixture(), "two": fixture("two")})
        assert daemon.reload()["outcome"] == "applied"
        daemon.await_up("one", "two")
        assert daemon.log == "", "nothing else took the place of the log"


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "<&- >&- 2>&-"])
def test_a_config_that_cannot_be_used_is_78_also_where_nobody_can_be_told(redirections: str) -> None:
    daemon = Into(redirections, {})
    daemon.write("{")
    try:
        daemon.launch()
        assert daemon.wait() == 78
    finally:
        daemon.remove()


FULL = "error: cannot write the output: No space left on device\n"


def test_a_command_that_cannot_say_it_exits_as_it_would() -> None:
    expected = {
        "--help >/dev/full": (1, FULL),
        "status --json >/dev/full": (1, FULL),
        "events >/dev/full": (1, FULL),
        "status >&-": (0, ""),
        "logs nobody 2>/dev/full": (1, ""),
        "logs nobody 2>&-": (1, ""),
        "nonsense 2>/dev/full": (2, ""),
        "--socket /none status 2>/dev/full": (69, ""),
        "--socket /none status <&- >&- 2>&-": (69, ""),
    }
    with Daemon({"one": fixture()}) as daemon:
        env = at_the_shell(MCP_MULTI_SERVER_SOCKET=str(daemon.socket))
        found = {}
        for words in expected:
            line = f"exec {shlex.join(COMMAND)} {words}"
            done = subprocess.run(line, shell=True, env=env, capture_output=True, text=True, timeout=WITHIN)
            found[words] = (done.returncode, done.stderr)
        assert found == expected


def test_the_journal_gets_a_priority_and_one_json_object_a_line() -> None:
    daemon = Daemon({"one": fixture(), "gone": {"command": "/nonexistent"}}, settings={"log": {"level": "debug"}})
    daemon.log_file.touch()
    status = daemon.log_file.stat()
    daemon.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    with daemon:
        daemon.await_states(one="up", gone="parked")
        said(daemon, "x" * 30_000)
        said(daemon, "<2>\x1b[31mlook\tat me\x07 \u2028 half")
        eventually(lambda: len(daemon.logged("server.stderr")) == 2, within=WITHIN)
        for line in daemon.log.splitlines():
            assert len(line.encode()) <= 8 * 1024, "journald cuts at 48 KiB"
            priority, entry = int(line[1]), json.loads(line[3:])
            assert line[0] + line[2] == "<>"
            assert priority == PRIORITIES[entry["level"]]
            assert line.isprintable()
        long, odd = daemon.logged("server.stderr")
        assert long["line"].startswith("xxx")
        assert odd["line"].startswith("<2>look")
        assert {"debug", "info", "error"} <= {entry["level"] for entry in entries(daemon.log)}


def test_a_flood_of_stderr_is_bounded_in_the_log_and_counted() -> None:
    with Daemon({"one": fixture(), "quiet": fixture("quiet")}) as daemon:
        daemon.await_up("one", "quiet")
        began = time.monotonic()
        said(daemon, "again", 20_000)
        daemon.control("restart", {"server": "quiet"})
        lines = [entry for entry in daemon.logged("server.stderr") if entry["line"] == "again"]
        assert 50 <= len(lines) <= 50 + 20 * (time.monotonic() - began) + 20
        (told,) = eventually(lambda: daemon.logged("log.suppressed"), within=WITHIN)
        assert (told["server"], told["kind"]) == ("one", "server.stderr")


def test_no_secret_and_no_payload_is_in_the_log_whatever_its_level() -> None:
    servers = {
        "one": fixture(env={"TOKEN": "sesame-env"}),
        "gone": {"command": "/nonexistent", "args": ["--token=sesame-arg"], "env": {"TOKEN": "sesame-env"}},
        "http": {
            "url": "http://user:sesame-user@127.0.0.1:9/mcp?key=sesame-query",
            "headers": {"Authorization": "Bearer sesame-header"},
            "type": "http",
        },
        "bad": {"command": 5, "env": {"TOKEN": "sesame-env"}},
        "junk": python(SERVERS / "faulty.py", "junk"),
    }
    with Daemon(servers, settings={"log": {"level": "debug"}}) as daemon:
        daemon.await_states(one="up", gone="parked", bad="parked")
        eventually(lambda: daemon.server("http")["consecutiveFailures"], within=WITHIN)
        with daemon.legacy() as wire:
            wire.call("echo", {"text": "sesame-argument"}, within=WITHIN)
            wire.request("tools/call", {"name": "sesame-tool", "arguments": {"x": "sesame-argument"}}, within=WITHIN)
            wire.send(b'{"sesame-line": ')
            wire.message()
        eventually(lambda: daemon.logged("request.done"), within=WITHIN)
        log = daemon.log
    assert {"request.done", "client.rejected", "server.parked"} <= {entry["event"] for entry in entries(log)}
    assert re.findall(r"sesame-\w+", log) == []


# --- a person's terminal ---------------------------------------------------------------------------------------------


class OnTerminal(Daemon):
    """A daemon that logs to a terminal."""

    def __init__(self, servers: dict[str, Any]) -> None:
        super().__init__(servers, settings={"log": {"format": "auto"}})
        self.master, self.slave = pty.openpty()
        self.drawn = ""
        self._reader = threading.Thread(target=self._read)

    def launch(self) -> subprocess.Popen[bytes]:
        environment = self.environment | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            self.command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            cwd=self.directory,
            start_new_session=True,
        )
        os.close(self.slave)
        self._reader.start()
        return self.process

    def _read(self) -> None:
        while True:
            try:
                self.drawn += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                return

    def remove(self) -> None:
        super().remove()
        self._reader.join(WITHIN)
        os.close(self.master)


def test_a_person_sees_coloured_lines_also_after_a_reload() -> None:
    with OnTerminal({"one": fixture()}) as daemon:
        daemon.await_up("one")
        eventually(lambda: "server.ready" in daemon.drawn, within=WITHIN)
        assert "\x1b[" in daemon.drawn
        daemon.rewrite({"one": fixture(), "two": fixture("two")})
        daemon.await_up("one", "two")
        eventually(lambda: "config.applied" in daemon.drawn, within=WITHIN, what="a line after the reload")
        said(daemon, "\x1b[2J\x1b]0;mine\x07 hello")
        eventually(lambda: "hello" in daemon.drawn, within=WITHIN)
        assert "\x1b[2J" not in daemon.drawn
        assert "\x1b]0" not in daemon.drawn


def test_the_level_is_changed_while_it_runs_and_by_whom_is_logged() -> None:
    with Daemon({"one": fixture()}, settings={"log": {"level": "warning", "format": "json"}}) as daemon:
        daemon.await_up("one")
        assert shell(daemon, "log-level").stdout == "warning\n"
        assert daemon.logged("request.done") == []
        assert shell(daemon, "log-level", "debug").stdout == "debug (configured: warning)\n"
        (changed,) = daemon.logged("log.level")
        assert (changed["to"], changed["was"], changed["uid"]) == ("debug", "warning", os.getuid())
        eventually(lambda: daemon.logged("request.done"), within=WITHIN)
        daemon.rewrite({"one": fixture(), "two": fixture("two")})
        assert daemon.reload()["outcome"] in ("applied", "unchanged")
        assert shell(daemon, "log-level").stdout == "debug (configured: warning)\n", "an edit of something else"
        daemon.rewrite({"one": fixture()}, {"log": {"level": "error", "format": "json"}})
        eventually(lambda: shell(daemon, "log-level").stdout == "error\n", within=WITHIN)


# --- following -------------------------------------------------------------------------------------------------------


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of stdout, each waited for."""
    assert process.stdout is not None
    guard = threading.Timer(2 * WITHIN, process.kill)
    guard.start()
    try:
        for line in process.stdout:
            yield line.decode().rstrip("\n")
    finally:
        guard.cancel()


@contextmanager
def following(daemon: Daemon, *words: str) -> Iterator[Iterator[str]]:
    """The lines of a command that goes on until Ctrl-C, which is how this ends it."""
    with running(*words, MCP_MULTI_SERVER_SOCKET=str(daemon.socket)) as process:
        yield lines_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_logs_are_followed_through_a_crash_a_restart_and_a_restart_of_the_daemon() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        said(daemon, "before")
        eventually(lambda: daemon.control("logs", {"server": "one"})["lines"], within=WITHIN)
        with following(daemon, "logs", "one", "--follow", "--lines", "1") as lines:
            assert next(lines) == "before"
            said(daemon, "as it comes")
            assert next(lines) == "as it comes"
            with daemon.legacy() as wire:
                wire.post("tools/call", {"name": "exit", "arguments": {}})
                assert next(lines) == "last words"
            daemon.control("restart", {"server": "one"})
            said(daemon, "born again")
            assert next(lines) == "born again"
            daemon.stop()
            daemon.start().await_up("one")
            said(daemon, "from a new daemon")
            assert next(lines) == "from a new daemon"


def test_a_flood_reaches_who_follows_as_what_fits_and_how_much_does_not() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        with following(daemon, "logs", "one", "--follow", "--json") as lines:
            assert json.loads(next(lines))["lines"] == []
            said(daemon, "again", 50_000)
            said(daemon, "the end")
            told = list[Message]()
            while not told or told[-1].get("lines", [""])[-1] != "the end":
                told.append(json.loads(next(lines)))
        assert sum(len(message["lines"]) for message in told) < 10_000
        left_out = sum(message.get("leftOut", 0) for message in told)
        left_out += sum(int(line.split()[0][1:]) for m in told for line in m["lines"] if line.endswith("left out]"))
        assert left_out + sum(line == "again" for message in told for line in message["lines"]) >= 50_000


def test_events_tell_of_a_crash_in_words() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        with following(daemon, "events") as lines:
            assert next(lines).endswith(" one: ready")
            with daemon.legacy() as wire:
                wire.post("tools/call", {"name": "exit", "arguments": {}})
                crash = next(line for line in lines if "one: ready → backoff" in line)
                assert "(exit: exited with code 3), next attempt in" in crash or ", next attempt now" in crash
                assert next(line for line in lines if line.endswith("one: connecting → ready"))
            daemon.rewrite({})
            daemon.reload()
            assert next(line for line in lines if line.endswith("one: removed"))


@contextmanager
def watching(daemon: Daemon) -> Iterator[Terminal]:
    """`status --watch` on a terminal."""
    with on_terminal("status", "--watch", MCP_MULTI_SERVER_SOCKET=str(daemon.socket)) as terminal:
        yield terminal


def row(terminal: Terminal, server: str) -> list[str]:
    """A server's row of the table, cell by cell."""
    found = [line for line in terminal.screen.text.splitlines() if line.startswith(f"{server} ")]
    return re.split(r" {2,}", found[0].strip()) if found else []


def is_up(terminal: Terminal, server: str) -> bool:
    return row(terminal, server)[1:2] == ["ready"]


def test_the_table_follows_crashes_edits_and_a_restart_of_the_daemon() -> None:
    with Daemon({"one": fixture(), "gone": {"command": "/nonexistent"}}) as daemon:
        daemon.await_states(one="up", gone="parked")
        with watching(daemon) as terminal:
            terminal.until(lambda screen: row(terminal, "one")[:2] == ["one", "ready"])
            assert row(terminal, "gone")[1] == "parked"
            assert "command '/nonexistent' not found" in terminal.screen.text
            pid = str(daemon.server("one")["pid"])
            assert pid in row(terminal, "one")
            with daemon.legacy() as wire:
                wire.post("tools/call", {"name": "exit", "arguments": {}})
                terminal.until(lambda screen: is_up(terminal, "one") and pid not in row(terminal, "one"))
            daemon.rewrite({"one": fixture(), "two": fixture("two")})
            terminal.until(lambda screen: is_up(terminal, "two") and not row(terminal, "gone"))
            daemon.stop()
            terminal.until(lambda screen: "waiting up to 60 s for it to come back" in screen.text)
            daemon.start()
            terminal.until(lambda screen: "waiting" not in screen.text and f"pid {daemon.pid} " in screen.text)
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.end() == 0
            assert not terminal.screen.is_alternate


def test_a_watch_in_a_pipe_tells_of_names_that_were_withdrawn() -> None:
    patience: dict[str, Any] = {"grace": 0.3, "replace": "stop-first"}
    with Daemon({"one": fixture(**patience)}) as daemon:
        daemon.await_up("one")
        with following(daemon, "status", "--watch") as lines:
            assert re.search(r" one: ready, \d+ tools", next(lines))
            daemon.rewrite({"one": fixture(command="/nonexistent", **patience)})
            assert next(line for line in lines if " one: parked (spawn: " in line and " tools" not in line)
        eventually(lambda: daemon.logged("catalog.withdrawn"), within=WITHIN)
