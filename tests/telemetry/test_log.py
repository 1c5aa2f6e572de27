"""What the log says of each event, and that no stderr, flood or payload can hurt the daemon or the reader."""

import json
import logging
import os
import pty
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any, get_args

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.errors import Problem
from mcp_multi_server.core.events import (
    CatalogProblems,
    CatalogRead,
    CatalogWithdrawn,
    ClientConnected,
    ClientGone,
    CollisionChanged,
    ConfigReloaded,
    DaemonFailed,
    DaemonListening,
    DaemonStopping,
    DaemonWarning,
    Event,
    InternalError,
    InvalidLine,
    LogLevelChanged,
    Probed,
    ProcessesEnded,
    RefreshFailed,
    Rejected,
    ReplacementFailed,
    RequestDone,
    ServerRemoved,
    ServerReplaced,
    StateChanged,
    Stderr,
    Woke,
)
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.telemetry.describe import describe
from mcp_multi_server.telemetry.limit import Limit
from mcp_multi_server.telemetry.log import LogObserver
from mcp_multi_server.telemetry.log_lines import (
    LINE_CAP,
    LineHandler,
    configure,
    fit,
    installed,
    json_line,
    printable,
)
from tests.logs import log_as_it_was

CRASH = StateChanged(
    "git", State.READY, State.BACKOFF, Failure(Reason.EXIT, "exited with code 3"), 2, 1.23456, ("Traceback", "KeyError")
)

DESCRIBED: list[tuple[Event, str, str, dict[str, object]]] = [
    (
        CRASH,
        "WARNING",
        "server.backoff",
        {
            "server": "git",
            "was": "ready",
            "reason": "exit",
            "message": "exited with code 3",
            "failures": 2,
            "retry_in": 1.235,
            "stderr": ["Traceback", "KeyError"],
        },
    ),
    (
        StateChanged("git", State.CONNECTING, State.READY, Failure(Reason.EXIT, "before"), 2, None),
        "INFO",
        "server.ready",
        {"server": "git", "was": "connecting", "failures": 2},
    ),
    (
        StateChanged("git", State.CONNECTING, State.PARKED, Failure(Reason.SPAWN, "no such command", True), 1, 300.0),
        "ERROR",
        "server.parked",
        {
            "server": "git",
            "was": "connecting",
            "reason": "spawn",
            "message": "no such command",
            "failures": 1,
            "retry_in": 300.0,
        },
    ),
    (
        StateChanged("git", State.READY, State.DEGRADED, None, 0, None),
        "WARNING",
        "server.degraded",
        {"server": "git", "was": "ready"},
    ),
    (ServerRemoved("git"), "INFO", "server.removed", {"server": "git"}),
    (Stderr("git", 7, "hello"), "INFO", "server.stderr", {"server": "git", "pid": 7, "line": "hello"}),
    (ServerReplaced("git"), "INFO", "server.replaced", {"server": "git"}),
    (
        ReplacementFailed("git", Failure(Reason.EXIT, "exited with code 3"), ("why",)),
        "WARNING",
        "server.replacement_failed",
        {"server": "git", "reason": "exit", "message": "exited with code 3", "stderr": ["why"]},
    ),
    (InvalidLine("git", "not JSON"), "WARNING", "server.invalid_line", {"server": "git", "problem": "not JSON"}),
    (
        CatalogRead("git", 12, 0, 3, 1, 0.25, is_news=True),
        "INFO",
        "catalog.read",
        {"server": "git", "tools": 12, "prompts": 0, "resources": 3, "templates": 1, "seconds": 0.25},
    ),
    (
        CatalogProblems("git", ("tools: 1 left out",)),
        "WARNING",
        "catalog.problems",
        {"server": "git", "problems": ["tools: 1 left out"]},
    ),
    (CatalogProblems("git", ()), "INFO", "catalog.problems_gone", {"server": "git"}),
    (RefreshFailed("git", "timed out"), "WARNING", "catalog.refresh_failed", {"server": "git", "message": "timed out"}),
    (CatalogWithdrawn("git"), "WARNING", "catalog.withdrawn", {"server": "git"}),
    (Probed("git", False), "DEBUG", "server.probed", {"server": "git", "good": False}),
    (
        CollisionChanged("tool", "search", "web", ("files", "mail")),
        "WARNING",
        "collision.appeared",
        {"kind": "tool", "name": "search", "owner": "web", "shadowed": ["files", "mail"]},
    ),
    (
        CollisionChanged("tool", "search", "web", ()),
        "INFO",
        "collision.gone",
        {"kind": "tool", "name": "search", "owner": "web"},
    ),
    (
        ConfigReloaded("partial", 4, (Problem("mcpServers.x.command", "is missing", "x"),), {"started": ("a", "b")}),
        "WARNING",
        "config.partial",
        {"generation": 4, "problems": ["mcpServers.x.command: is missing"], "started": ["a", "b"]},
    ),
    (ConfigReloaded("rejected", 4, (), {}), "ERROR", "config.rejected", {"generation": 4}),
    (ConfigReloaded("unchanged", 4, (), {}), "INFO", "config.unchanged", {"generation": 4}),
    (ConfigReloaded("applied", 5, (), {}), "INFO", "config.applied", {"generation": 5}),
    (ClientConnected(1, 42, 1000), "DEBUG", "client.connected", {"client": 1, "pid": 42, "uid": 1000}),
    (ClientGone(1, "closed"), "DEBUG", "client.gone", {"client": 1, "reason": "closed"}),
    (Rejected("uid", None, "uid 33"), "WARNING", "client.rejected", {"reason": "uid", "detail": "uid 33"}),
    (
        DaemonListening("/run/s", "/etc/c.json", "off"),
        "INFO",
        "daemon.listening",
        {"socket": "/run/s", "config": "/etc/c.json", "metrics": "off"},
    ),
    (DaemonStopping("SIGTERM"), "INFO", "daemon.stopping", {"why": "SIGTERM"}),
    (
        DaemonFailed('Traceback:\n  File "a.py", line 3, in f\nBug: 1\n'),
        "ERROR",
        "daemon.failed",
        {"error": "Bug", "trace": ["a.py:3 in f"]},
    ),
    (ProcessesEnded("left", (4, 9)), "WARNING", "processes.ended", {"why": "left", "pids": [4, 9]}),
    (Woke(3600.04), "INFO", "daemon.woke", {"seconds": 3600.0}),
    (DaemonWarning("metrics", "in use"), "WARNING", "daemon.warning", {"subject": "metrics", "message": "in use"}),
    (
        InternalError("router", 'Traceback:\n  File "a b.py", line 3, in f\n    f(x)\n    ~^^^\nKeyError: 1\n'),
        "ERROR",
        "internal.error",
        {"where": "router", "error": "KeyError", "trace": ["a b.py:3 in f"]},
    ),
    (
        LogLevelChanged("debug", "info", 3, 1000),
        "WARNING",
        "log.level",
        {"to": "debug", "was": "info", "client": 3, "uid": 1000},
    ),
    (
        RequestDone("tools/call", "git", "log", "stdio", 0.5, "tool_error"),
        "DEBUG",
        "request.done",
        {"method": "tools/call", "server": "git", "tool": "log", "seconds": 0.5, "error": "tool_error"},
    ),
]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    """The reading end of a log that was configured to be written into a pipe or a terminal."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        os.set_blocking(reader, False)

    def text(self) -> str:
        parts = []
        while True:
            try:
                parts.append(os.read(self.reader, 65536))
            except BlockingIOError:
                return b"".join(parts).decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    with log_as_it_was():
        yield


@pytest.fixture
def pipe() -> Iterator[Log]:
    reader, writer = os.pipe()
    yield Log(reader, writer)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def terminal() -> Iterator[Log]:
    reader, writer = pty.openpty()
    yield Log(reader, writer)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("event", "level", "name", "fields"), DESCRIBED, ids=lambda part: str(part)[:24])
def test_an_event_has_a_level_a_name_and_its_facts(
    event: Event, level: str, name: str, fields: dict[str, object]
) -> None:
    entry = describe(event)
    assert (logging.getLevelName(entry.level), entry.event, dict(entry.fields)) == (level, name, fields)


def test_every_event_is_described() -> None:
    assert {type(row[0]) for row in DESCRIBED} == set(get_args(Event))


def test_every_state_has_a_name_in_the_log() -> None:
    entries = [describe(StateChanged("x", State.READY, state, None, 0, None)) for state in State]
    assert [entry.event for entry in entries] == [f"server.{state.value}" for state in State]


def test_each_event_is_one_json_line_with_time_and_level(pipe: Log) -> None:
    configure("debug", "json", fd=pipe.writer)
    telemetry = LogObserver()
    for event, *_ in DESCRIBED:
        telemetry(event)
    lines = pipe.lines()
    assert [line["event"] for line in lines] == [name for _, _, name, _ in DESCRIBED]
    assert all(list(line)[:3] == ["time", "level", "event"] and line["time"].endswith("Z") for line in lines)


@pytest.mark.parametrize(("level", "logged"), [("debug", ["request.done"]), ("info", [])])
def test_requests_are_logged_at_debug_only(pipe: Log, level: Any, logged: list[str]) -> None:
    configure(level, "json", fd=pipe.writer)
    LogObserver()(RequestDone("tools/call", "git", "log", "stdio", 0.5, ""))
    assert pipe.events() == logged


def test_a_catalog_read_again_and_found_the_same_is_logged_at_debug_only(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver()
    for is_news in (True, False):
        telemetry(CatalogRead("git", 3, 0, 0, 0, 0.1, is_news=is_news))
    assert [line.get("tools") for line in pipe.lines()] == [3]


@pytest.mark.parametrize(
    ("event", "rate"), [(Stderr("git", 1, "x"), 20), (InvalidLine("git", "x"), 5), (Rejected("x", 1), 5)]
)
def test_a_flood_is_cut_to_a_burst_and_a_rate(pipe: Log, event: Event, rate: int) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(1000):
        telemetry(event)
    assert len(pipe.lines()) == 50
    clock.now += 1.0
    for _ in range(1000):
        telemetry(event)
    suppressed, *rest = pipe.lines()
    assert (suppressed["event"], suppressed["kind"], suppressed["lines"]) == (
        "log.suppressed",
        describe(event).event,
        950,
    )
    assert len(rest) == rate


def test_a_flood_that_goes_on_stays_shut_for_a_second(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    pipe.text()
    clock.now += 0.5
    telemetry(Stderr("git", 1, "x"))
    assert pipe.events() == []
    clock.now += 0.5
    telemetry(Stderr("git", 1, "x"))
    assert pipe.events() == ["log.suppressed", "server.stderr"]


@given(st.lists(st.floats(0.0, 3.0), max_size=200))
def test_a_limit_loses_no_count_and_never_exceeds_its_rate(pauses: list[float]) -> None:
    limit, now, admitted, told = Limit(20.0, 0.0), 0.0, 0, 0
    for pause in pauses:
        now += pause
        told += limit.reopen(now)
        admitted += limit.admits(now)
    assert admitted + told + limit.take() == len(pauses)
    assert admitted <= 50 + 20.0 * now


@pytest.mark.parametrize("last", [ServerRemoved("git"), DaemonStopping("SIGTERM")])
def test_what_was_suppressed_is_told_at_the_end(pipe: Log, last: Event) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver(clock=Clock())
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    telemetry(last)
    *_, suppressed, final = pipe.lines()
    assert (suppressed["event"], suppressed["lines"]) == ("log.suppressed", 10)
    assert final["event"] == describe(last).event


def test_any_later_event_tells_what_an_ended_flood_cost(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    for _ in range(60):
        telemetry(Stderr("git", 1, "x"))
    clock.now += 15.0
    telemetry(Probed("other", True))
    assert pipe.events()[-1] == "log.suppressed"


@pytest.mark.anyio
async def test_what_a_flood_cost_is_told_also_where_nothing_else_happens(
    pipe: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_multi_server.telemetry.log.TELL_SUPPRESSED_EVERY", 0.01)
    configure("info", "json", fd=pipe.writer)
    clock = Clock()
    telemetry = LogObserver(clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(telemetry.run)
        for flood in (60, 1000):
            for _ in range(flood):
                telemetry(Stderr("git", 1, "x"))
            clock.now += 10.0
            with anyio.fail_after(10):
                while "log.suppressed" not in pipe.events():
                    await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()


def test_a_flood_of_one_server_hides_no_line_of_another(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver(clock=Clock())
    for _ in range(200):
        telemetry(Stderr("loud", 1, "x"))
    telemetry(Stderr("quiet", 2, "I am here"))
    assert pipe.lines()[-1]["server"] == "quiet"


HUGE = [
    Stderr("git", 1, "\x01" * 100_000),
    Stderr("git", 1, "é" * 100_000),
    InternalError("x", "\n".join("frame " * 500 for _ in range(50))),
    ConfigReloaded("applied", 1, (), {change: tuple("s" * 60 + str(i) for i in range(500)) for change in "abcd"}),
    StateChanged("n" * 9000, State.READY, State.BACKOFF, Failure(Reason.EXIT, '"' * 9000), 1, 1.0, ("\\" * 9000,) * 99),
]


@pytest.mark.parametrize("event", HUGE, ids=lambda event: type(event).__name__)
def test_no_line_exceeds_the_cap_and_all_are_whole_json(pipe: Log, event: Event) -> None:
    configure("info", "json", fd=pipe.writer)
    LogObserver()(event)
    (line,) = (text := pipe.text()).splitlines()
    assert len(text.encode()) <= LINE_CAP
    assert json.loads(line)["event"] == describe(event).event
    assert json.loads(line).keys() > describe(event).fields.keys()


def test_a_line_that_cannot_be_cut_to_size_keeps_its_name() -> None:
    fields = {f"field{number}": "\U0001f600" * 100 for number in range(100)}
    line = fit({"time": "t", "level": "info", "event": "e", **fields}, json_line)
    assert json.loads(line) == {"time": "t", "level": "info", "event": "e", "cut": True}


@given(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.text()) | st.integers(0, 9), max_size=8))
def test_any_text_fits_into_one_json_line(fields: dict[str, object]) -> None:
    line = fit({"time": "t", "level": "info", "event": "e", **fields}, json_line)
    assert "\n" not in line
    assert len(line.encode()) < LINE_CAP
    json.loads(line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümlauts, 日本", "plain text, ümlauts, 日本"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("a\tb", "a   b"),
        ("a\u202eb\u2028c\x9bd", "a\ufffdb\ufffdc\ufffdd"),
        ("half \ud800", "half \ufffd"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_control_characters_are_made_harmless(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_journal_reads_a_priority_before_each_line(pipe: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(pipe.writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    configure("debug", "auto", fd=pipe.writer)
    telemetry = LogObserver()
    for event in (
        Probed("x", True),
        ServerRemoved("x"),
        RefreshFailed("x", "y"),
        StateChanged("x", State.CONNECTING, State.PARKED, None, 0, None),
    ):
        telemetry(event)
    lines = pipe.text().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>"]
    assert json.loads(lines[0][3:])["level"] == "debug"


def test_the_journal_of_another_stream_is_not_ours(pipe: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    configure("info", "auto", fd=pipe.writer)
    LogObserver()(ServerRemoved("x"))
    assert pipe.text().startswith("{")


def test_a_terminal_shows_columns_in_colour_and_stderr_below(terminal: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    configure("info", "auto", fd=terminal.writer)
    telemetry = LogObserver()
    telemetry(ServerRemoved("first"))
    telemetry(CRASH)
    text = terminal.text()
    assert text.index("first") < text.index("server.backoff")
    assert "\r\n    KeyError\r\n" in text
    assert "\x1b[" in text


@pytest.mark.parametrize(("before", "after"), [("console", "json"), ("json", "console"), ("console", "console")])
def test_another_form_is_in_force_at_once(terminal: Log, before: Any, after: Any) -> None:
    configure("info", before, fd=terminal.writer)
    LogObserver()(ServerRemoved("early"))
    assert "early" in terminal.text()
    configure("info", after, fd=terminal.writer)
    LogObserver()(ServerRemoved("later"))
    assert ('"server":"later"' in terminal.text()) == (after == "json")
    assert len(installed()) == 1


def test_a_console_without_colours_shows_none(terminal: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    configure("info", "auto", fd=terminal.writer)
    LogObserver()(Stderr("git", 1, "\x1b[2J\x1b[31mboo"))
    assert "\x1b" not in (text := terminal.text())
    assert "boo" in text


def test_a_full_disk_costs_lines_only() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        configure("info", "json", fd=full)
        LogObserver()(ServerRemoved("x"))
    finally:
        os.close(full)


def test_a_closed_stderr_is_never_the_number_of_the_next_socket(pipe: Log) -> None:
    fd = os.dup(pipe.writer)
    os.close(fd)
    configure("info", "json", fd=fd)
    try:
        LogObserver()(ServerRemoved("x"))
        assert os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev
    finally:
        os.close(fd)


def test_a_stderr_closed_later_costs_lines_only() -> None:
    reader, writer = os.pipe()
    configure("info", "json", fd=writer)
    os.close(reader)
    LogObserver()(ServerRemoved("reader gone"))
    os.close(writer)
    LogObserver()(ServerRemoved("writer gone"))


def test_a_stderr_that_nobody_reads_blocks_nobody_and_says_later_what_was_lost(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    telemetry = LogObserver()
    telemetry(ServerRemoved("first"))  # fills one of the pipe's 16 pages: the last line then has room for half of it
    for number in range(500):
        telemetry(RefreshFailed(f"s{number}", "m" * 6000))
    text = pipe.text()
    telemetry(ServerRemoved("later"))
    first, *kept, cut, later, lost, end = (text + pipe.text()).split("\n")
    assert json.loads(first)["server"] == "first"
    assert {json.loads(line)["event"] for line in kept} == {"catalog.refresh_failed"}
    assert cut.startswith('{"time"')
    assert not cut.endswith("}")
    assert json.loads(later)["event"] == "server.removed"
    assert (json.loads(lost)["event"], json.loads(lost)["lines"]) == ("log.lost", 500 - len(kept))
    assert end == ""


def test_other_libraries_are_heard_from_warning_on(pipe: Log) -> None:
    configure("debug", "json", fd=pipe.writer)
    logging.getLogger("httpx").info("GET https://user:password@host")
    logging.getLogger("asyncio").warning("Executing took %s seconds\nwith a second line", 3)
    (line,) = pipe.lines()
    assert (line["event"], line["logger"], line["message"]) == ("library", "asyncio", "Executing took 3 seconds")


def test_an_exception_of_another_library_is_told_without_its_text(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    token = "hunter2"
    try:
        raise ValueError(f"bad token {token}")
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    line = json.loads(text := pipe.text())
    assert line["error"] == "ValueError"
    assert "test_an_exception_of_another_library" in line["trace"][-1]
    assert token not in text


def raise_with(text: str) -> None:
    raise ValueError(text)


def test_a_bug_of_ours_is_told_by_its_place_and_type_alone(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    token = "hunter2"
    try:
        try:
            raise_with(f"first {token}")
        except ValueError:
            raise ExceptionGroup(f"{token}:\n{token}", [KeyError(token), OSError(5, token)]) from None
    except ExceptionGroup:
        LogObserver()(InternalError("x", traceback.format_exc()))
    try:
        raise_with(f"{token}: a\n{token}:\nFile: {token}")
    except ValueError:
        LogObserver()(InternalError("x", traceback.format_exc()))
    text = pipe.text()
    assert token not in text
    group, single = (json.loads(line) for line in text.splitlines())
    assert group["error"] in ("ExceptionGroup", "OSError")
    assert single["error"] == "ValueError"
    assert single["trace"][-1].endswith(" in raise_with")


def test_the_sdk_is_not_trusted_with_a_message(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    logging.getLogger("mcp.client.stdio").warning("Failed to parse: hunter2")
    logging.getLogger("client").warning("Failed to parse: hunter2")
    text = pipe.text()
    assert text.count('"library"') == 2
    assert "hunter2" not in text


def test_a_flood_of_another_library_is_cut(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    for _ in range(500):
        logging.getLogger("noisy").warning("again")
    assert pipe.events().count("library") < 100


def test_a_record_that_cannot_be_rendered_hurts_nobody(pipe: Log) -> None:
    configure("info", "json", fd=pipe.writer)
    logging.getLogger("clumsy").warning("%d", "no number")
    LogObserver()(ServerRemoved("x"))
    assert pipe.events() == ["server.removed", "log.lost"]


def test_in_a_library_events_are_readable_without_our_handler(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        LogObserver()(RefreshFailed("git", "timed out"))
    assert caplog.messages == ["catalog.refresh_failed server=git message=timed out"]


@pytest.mark.parametrize(("form", "imported"), [("json", False), ("console", True)])
def test_only_a_console_costs_the_import_of_structlog(form: str, imported: bool) -> None:
    script = (
        "import sys\n"
        "from mcp_multi_server.telemetry.log_lines import configure\n"
        "from mcp_multi_server.telemetry.log import LogObserver\n"
        "from mcp_multi_server.core.events import ServerRemoved\n"
        f"configure('info', {form!r}); LogObserver()(ServerRemoved('x')); print('structlog' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == f"{imported}\n"
    assert "server.removed" in ended.stderr


def test_configure_twice_leaves_one_handler(pipe: Log) -> None:
    for _ in range(2):
        configure("info", "json", fd=pipe.writer)
    LogObserver()(ServerRemoved("x"))
    assert pipe.events() == ["server.removed"]
    assert isinstance(installed()[0], LineHandler)
