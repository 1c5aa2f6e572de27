"""No stderr, flood or payload can hurt the daemon, or who reads its log."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.events import (
    ConfigReloaded,
    Event,
    InternalError,
    Probed,
    RefreshFailed,
    ServerRemoved,
    StateChanged,
    Stderr,
)
from mcp_multi_server.core.lifecycle import Failure, Reason, State
from mcp_multi_server.core.printable import OBEYED
from mcp_multi_server.telemetry.describe import describe
from mcp_multi_server.telemetry.log import LogObserver
from mcp_multi_server.telemetry.log_lines import (
    LINE_CAP,
    LineHandler,
    Render,
    configure,
    console,
    fit,
    installed,
    json_line,
)
from tests.events import EVERYTHING
from tests.logs import Log

CRASH = StateChanged(
    "git", State.READY, State.BACKOFF, Failure(Reason.EXIT, "exited with code 3"), 2, 1.23456, ("Traceback", "KeyError")
)


def test_each_event_is_one_json_line_with_time_and_level(pipe: Log) -> None:
    configure("debug", "json", fd=pipe.writer)
    telemetry = LogObserver()
    for event in EVERYTHING:
        telemetry(event)
    lines = pipe.lines()
    assert [line["event"] for line in lines] == [describe(event).event for event in EVERYTHING]
    assert all(list(line)[:3] == ["time", "level", "event"] and line["time"].endswith("Z") for line in lines)


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


@pytest.mark.parametrize("render", [json_line, console(colours=False)])
def test_a_line_holds_nothing_that_a_terminal_obeys(render: Render) -> None:
    message = "\x1b[1;31mred\x1b]0;\u202eb\u2028c\x9bd\ud800\n"
    line = fit({"time": "t", "level": "info", "event": "e", "message": message}, render)
    assert not OBEYED.search(line)
    assert "red" in line


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
