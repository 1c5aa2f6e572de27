"""`status`, `events` and the other commands that speak to the daemon itself."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mcp_multi_server.cli.render import duration, until

from .conftest import MakeDaemon
from .samples import EVENTS, fleet, server
from .wire import (
    DEADLINE,
    LEFT_TO_THE_DAEMON,
    Json,
    Line,
    imports_of,
    run,
    run_on_terminal,
    running,
)


def test_status_as_json_is_the_daemons_answer(daemon_with: MakeDaemon) -> None:
    status = fleet()
    done = run("status", "--json", daemon=daemon_with({"daemon/status": status}))
    assert json.loads(done.stdout) == status
    assert (done.returncode, done.stderr) == (0, "")


def test_status_in_a_pipe_is_aligned_text(daemon_with: MakeDaemon) -> None:
    done = run("status", daemon=daemon_with({"daemon/status": fleet()}))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    summary, head, _, *table = done.stdout.splitlines()
    assert summary == "1/3 ready, 1 degraded, 1 backoff"
    assert head == (
        "mcp-multi-server 9.9 · pid 4711 · up 3 h · config /etc/mcp_servers.json · "
        "last reload partial 5 h ago · 1 client"
    )
    assert [line.split()[:4] for line in table[:5]] == [
        ["SERVER", "STATE", "FOR", "REASON"],
        ["old", "degraded", "2", "h"],
        ["hub", "backoff", "2", "h"],
        ["git", "ready", "2", "h"],
        ["off", "disabled", "-", "-"],
    ]
    assert "exit: exited with code 3  in 3 h" in table[2]
    assert "2026-07-28 modern  4712     12  3+1 templates" in table[3]
    assert "2025-11-25 legacy" in table[1]
    reason = table[0].index("REASON")
    assert all(line[reason - 2 : reason] == "  " for line in table[:5])
    assert table[5:] == [
        "",
        "problem: mcpServers.bad.command: must be a string",
        "stale: what old offers is from an earlier reading",
        "lists: old: tools: left out: it has no name",
        "hub: its own words are in `mcp-multi-server logs hub`",
        "collision: tool status is git's; shadowed: hub, old",
        "name: tool a.b has characters that APIs refuse",
    ]


def test_status_on_a_terminal_is_coloured(daemon_with: MakeDaemon) -> None:
    code, drawn = run_on_terminal(["status"], daemon=daemon_with({"daemon/status": fleet()}))
    assert code == 0
    for state, colour in (("ready", "32"), ("degraded", "33"), ("backoff", "31"), ("disabled", "2")):
        assert f"\x1b[{colour}m{state}" in drawn


def test_a_narrow_terminal_gets_fewer_columns_but_never_loses_the_reason(daemon_with: MakeDaemon) -> None:
    _, drawn = run_on_terminal(["status"], daemon=daemon_with({"daemon/status": fleet()}), columns=70)
    assert "REASON" in drawn and "exit: exited with code" in drawn
    assert "PROTOCOL" not in drawn and "PID" not in drawn


@pytest.mark.parametrize("columns", [60, 50, 40, 30])
def test_a_very_narrow_terminal_still_says_who_how_and_why(daemon_with: MakeDaemon, columns: int) -> None:
    ill = server("weather", "backoff", reason="exit: exited with code 3", nextAttemptAt="2999-01-01T00:00:00Z")
    status = fleet() | {"servers": [ill]}
    _, drawn = run_on_terminal(["status"], daemon=daemon_with({"daemon/status": status}), columns=columns)
    assert all(word in drawn for word in ("weather", "backoff", "exit:", "exited", "code", "3"))


def test_a_server_cannot_write_to_the_terminal(daemon_with: MakeDaemon) -> None:
    status = fleet() | {"servers": [server("git", "parked", reason="\x1b[31mexit\x1b]0;title\x07\x9b2J")]}
    done = run("status", daemon=daemon_with({"daemon/status": status}))
    assert "exit\\x9b2J" in done.stdout
    assert "\x1b" not in done.stdout and "\x9b" not in done.stdout


@pytest.mark.parametrize(
    "odd", [{"servers": []}, {"servers": [{}]}, {"servers": [{"pid": [], "since": {}}], "config": 5}]
)
def test_a_status_with_members_missing_is_shown_all_the_same(daemon_with: MakeDaemon, odd: Json) -> None:
    done = run("status", daemon=daemon_with({"daemon/status": odd}))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [("status", "--json"), ("status",), ("tools",), ("call", "t", "x=1"), ("stdio", "--wait", "0")]
)
def test_the_command_line_starts_without_the_daemons_libraries(daemon_with: MakeDaemon, words: tuple[str, ...]) -> None:
    result: Json = {"servers": [], "tools": [], "content": []}
    daemon = daemon_with({"daemon/status": result, "tools/list": result, "tools/call": result})
    code, imported = imports_of(*words, daemon=daemon)
    assert code == 0
    assert "mcp_multi_server" in imported
    assert not imported & (LEFT_TO_THE_DAEMON | {"rich"})


LISTS: dict[str, tuple[str, str, str]] = {
    "tools": ("tools/list", "tools", "name"),
    "resources": ("resources/list", "resources", "uri"),
    "templates": ("resources/templates/list", "resourceTemplates", "uriTemplate"),
    "prompts": ("prompts/list", "prompts", "name"),
}


@pytest.mark.parametrize("command", LISTS)
def test_a_listing_says_what_whose_and_what_for(daemon_with: MakeDaemon, command: str) -> None:
    method, member, key = LISTS[command]
    away = {"serverName": "hub", "mcp-multi-server/state": "backoff"}
    items = [
        {"name": "one", key: "one", "description": "\n First line.\nSecond.", "_meta": {"serverName": "git"}},
        {"name": "two", key: "two", "title": "A title", "_meta": away},
    ]
    daemon = daemon_with({method: {member: items, "ttlMs": 5}})
    table = run(command, daemon=daemon).stdout
    assert "git" in table and "First line." in table and "Second." not in table
    assert "hub (backoff)" in table and "A title" in table
    assert json.loads(run(command, "--json", daemon=daemon).stdout) == {member: items, "ttlMs": 5}


def test_every_page_of_a_listing_is_fetched(daemon_with: MakeDaemon) -> None:
    def page(line: Line, request: Json) -> None:
        number = int(request["params"].get("cursor", "0"))
        more = {"nextCursor": str(number + 1)} if number < 2 else {}
        line.send({"id": request["id"], "result": {"tools": [{"name": f"t{number}"}], **more}})

    listed = json.loads(run("tools", "--json", daemon=daemon_with({"tools/list": page})).stdout)
    assert listed == {"tools": [{"name": "t0"}, {"name": "t1"}, {"name": "t2"}]}


def test_a_listing_without_end_is_given_up(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"tools/list": {"tools": [], "nextCursor": "again"}})
    done = run("tools", daemon=daemon)
    assert (done.returncode, "tools/list has no end" in done.stderr) == (1, True)


PLAN = {"start": ["new"], "stop": [], "replace": ["git", "hub"], "update": [], "keep": ["old"]}
PROBLEM = {"server": "bad", "field": "mcpServers.bad", "message": "no command"}


@pytest.mark.parametrize(
    ("outcome", "problems", "code"),
    [
        ("applied", [], 0),
        ("unchanged", [], 0),
        ("unchanged", [PROBLEM], 1),  # the watch was faster, and some entries are refused all the same
        ("partial", [PROBLEM], 1),
        ("rejected", [PROBLEM], 1),
    ],
)
def test_reload_prints_the_outcome_and_exits_by_it(
    daemon_with: MakeDaemon, outcome: str, problems: list[Json], code: int
) -> None:
    result = {"outcome": outcome, "generation": 8, "problems": problems, "plan": PLAN}
    daemon = daemon_with({"daemon/reload": result})
    done = run("reload", daemon=daemon)
    assert done.returncode == code
    assert done.stdout.splitlines() == [
        f"{outcome} (generation 8)",
        "start   new",
        "replace git, hub",
        "keep    old",
        *["problem: mcpServers.bad: no command" for _ in problems],
    ]
    as_json = run("reload", "--json", daemon=daemon)
    assert (as_json.returncode, json.loads(as_json.stdout)) == (code, result)


def test_reload_gives_up_waiting_in_words_of_its_own(daemon_with: MakeDaemon) -> None:
    done = run("reload", "--timeout", "0.1", daemon=daemon_with({"daemon/reload": lambda line, request: None}))
    assert done.returncode == 1
    assert done.stderr == "error: no outcome within 0.1 s; the daemon goes on with it, `status` will show it\n"


@pytest.mark.parametrize(
    ("state", "reason", "code", "line"),
    [
        ("ready", None, 0, "git: ready\n"),
        ("degraded", None, 0, "git: degraded\n"),
        ("backoff", "exited with code 3", 1, "git: backoff (exited with code 3)\n"),
    ],
)
def test_restart_exits_by_what_became_of_the_server(
    daemon_with: MakeDaemon, state: str, reason: str | None, code: int, line: str
) -> None:
    daemon = daemon_with({"daemon/restart": {"server": "git", "state": state, "reason": reason}})
    done = run("restart", "git", daemon=daemon)
    assert (done.returncode, done.stdout) == (code, line)
    assert daemon.next()["params"] == {"server": "git"}


def test_plan_shows_the_changes_of_a_file(daemon_with: MakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text('\ufeff{ // new\n"mcpServers": {"new": {"command": "${NAME}"},}}')
    daemon = daemon_with({"daemon/plan": PLAN | {"problems": [PROBLEM]}})
    done = run("plan", str(tmp_path / "new.json"), daemon=daemon)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "start   new"
    assert "problem: mcpServers.bad: no command" in done.stdout
    assert daemon.next()["params"] == {"config": {"mcpServers": {"new": {"command": "${NAME}"}}}}


def test_plan_without_a_file_asks_for_the_daemons_own(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"daemon/plan": {"keep": ["git"], "problems": []}})
    assert run("plan", daemon=daemon).stdout == "nothing would change\nkeep    git\n"
    assert daemon.next()["params"] == {}


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (b"{", "is no JSON: line 1 column 2"),
        (b'{"a": {}, "a": {}}', "is no usable JSON: 'a' comes twice"),
        (b"\xff", "is no usable JSON: bad text"),
        (b"[]", "holds no JSON object"),
        (None, "cannot read"),
    ],
)
def test_plan_of_an_unusable_file_fails_here(tmp_path: Path, written: bytes | None, complaint: str) -> None:
    path = tmp_path / "new.json"
    if written is not None:
        path.write_bytes(written)
    done = run("plan", str(path))
    assert done.returncode == 1
    assert str(path) in done.stderr and complaint in done.stderr


def test_logs_are_printed_line_by_line(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with({"daemon/logs": {"server": "git", "lines": ["first", "\x1b[31mred\x1b[0m", ""]}})
    assert run("logs", "git", "--lines", "3", daemon=daemon).stdout == "first\nred\n\n"
    assert daemon.next()["params"] == {"server": "git", "lines": 3}


def stream(*events: Json) -> dict[str, object]:
    def tell(line: Line, request: Json) -> None:
        for event in events:
            line.send({"method": "notifications/daemon/event", "params": event})

    return {"daemon/events": tell}


EVENT_LINES = [
    "git: ready",
    "off: disabled",
    "git: ready → backoff (exit: exited with code 3), next attempt in 2 s",
    "collision: over for tool t, which is git's",
    "config applied (generation 3): start a",
    "client 3 left (closed)",
    "git: offers 3 tools, 0 prompts, 1 resources, 0 templates",
    "git: its lists could not be read again: late",
    "git: away for too long, its names are no longer listed",
    "git: removed",
    "client 4 connected (pid 42, uid 1000)",
    "the log's level is debug (was info), as client 4 (uid 0) wants it",
    "warning: config: odd",
    "git: tools: left out; prompts: p: m",
    "git: nothing is wrong with its lists any more",
    "refused: access: user 9 may not use this daemon",
    "refused: no_descriptor (7 more before it)",
    "ended processes [4, 9]: their servers have ended",
    "the machine runs again, after 1 h 1 min of suspend",
    "a bug of the daemon's, contained, in router: the log has the stack",
    "the daemon listens on /run/s",
    "the daemon stops (SIGTERM)",
    'from a newer daemon n=[1, "x"]',
    "warning subject=its message is missing",
    "git: ready → stopping",
]


def test_events_come_a_line_each_until_ctrl_c(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with(stream(*EVENTS))  # type: ignore[arg-type]  # a dict of one kind of answer is a dict of answers
    with running("events", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert process.stdout is not None
        lines = [read_line(process.stdout.fileno()) for _ in EVENT_LINES]
        assert [line.split(" ", 1)[1] for line in lines] == EVENT_LINES
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def test_events_as_json_are_json_lines(daemon_with: MakeDaemon) -> None:
    daemon = daemon_with(stream(*EVENTS))  # type: ignore[arg-type]  # as above
    with running("events", "--json", MCP_MULTI_SERVER_SOCKET=daemon.path) as process:
        assert process.stdout is not None
        assert [json.loads(read_line(process.stdout.fileno())) for _ in EVENTS] == list(EVENTS)


def test_events_end_with_an_error_when_the_daemon_goes(daemon_with: MakeDaemon) -> None:
    done = run("events", daemon=daemon_with({"daemon/events": lambda line, request: line.hang_up()}))
    assert (done.returncode, done.stderr) == (1, "error: the daemon closed the connection\n")


def read_line(descriptor: int) -> str:
    """A line as it comes; the test's own time limit bounds the wait."""
    import os

    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        assert byte, f"the stream ended after {bytes(line)!r}"
        line += byte
    return line.decode().rstrip("\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 1 h"),
        (86400 * 400, "400 d"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_is_due_is_due_now() -> None:
    assert [until(-5), until(0.2), until(12)] == ["now", "now", "in 12 s"]
