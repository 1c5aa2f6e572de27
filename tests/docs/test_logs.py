"""What the docs say of log lines and events is what the code does."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from mcp_multi_server.clients.control import EVENT_NAMES
from mcp_multi_server.clients.streams import BATCH_EVERY, BATCH_LINES
from mcp_multi_server.core.errors import Problem
from mcp_multi_server.core.events import (
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
from mcp_multi_server.telemetry import log, log_lines
from mcp_multi_server.telemetry.log import LogObserver
from mcp_multi_server.telemetry.log_lines import configure
from tests.logs import log_as_it_was

from .pages import page, rows, section

LOGS = page("logs")
EVENTS = section(page("protocol"), "Events")
Table: TypeAlias = dict[str, tuple[set[str], set[str]]]
"""Levels and fields by the name of the event."""

AWAY = (State.BACKOFF, State.PARKED)
FAILED = Failure(Reason.EXIT, "exited with code 3")
CHANGES: dict[str, tuple[str, ...]] = dict.fromkeys(("start", "stop", "replace", "update"), ("git",))
EVERYTHING: list[Event] = [
    *(StateChanged("git", State.READY, state, None, 2, None) for state in State if state not in AWAY),
    *(StateChanged("git", State.READY, state, FAILED, 2, 1.5, ("last words",)) for state in AWAY),
    ServerReplaced("git"),
    ReplacementFailed("git", FAILED, ("last words",)),
    ServerRemoved("git"),
    Stderr("git", 7, "hello"),
    InvalidLine("git", "no JSON"),
    CatalogRead("git", 1, 2, 3, 4, 0.1),
    CatalogRead("git", 1, 2, 3, 4, 0.2),
    RefreshFailed("git", "late"),
    CatalogWithdrawn("git"),
    Probed("git", True),
    CollisionChanged("tool", "search", "web", ("files",)),
    CollisionChanged("tool", "search", "web", ()),
    *(ConfigReloaded(each, 4, (Problem("a", "b"),), CHANGES) for each in ("applied", "partial", "rejected")),
    ConfigReloaded("unchanged", 4, (Problem("a", "b"),), CHANGES),
    ClientConnected(1, 42, 1000),
    ClientGone(1, "closed"),
    Rejected("access", 1, "why"),
    DaemonListening("/run/s", "/etc/c.json", "off"),
    DaemonStopping("SIGTERM"),
    DaemonFailed('Traceback:\n  File "a.py", line 3, in f\nKeyError: 1\n'),
    ProcessesEnded("why", (1, 2)),
    Woke(60.0),
    LogLevelChanged("debug", "info", 1, 0),
    DaemonWarning("metrics", "in use"),
    InternalError("router", 'Traceback:\n  File "a.py", line 3, in f\nKeyError: 1\n'),
    RequestDone("tools/call", "git", "log", "stdio", 0.5, "tool_error"),
]
UNUSED = {"server.disabled"}
"""A state that no server goes to: an entry that is disabled has no connection."""


def words(cell: str) -> set[str]:
    return set(cell.split(", "))


@pytest.fixture
def written() -> Iterator[list[dict[str, object]]]:
    """Every kind of line that the log can have, as it is written, ours and others'."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    now, lines = [0.0], list[str]()

    def read() -> None:
        lines.extend(os.read(reader, 1 << 20).decode().splitlines())

    with log_as_it_was():
        configure("debug", "json", fd=writer)
        observe = LogObserver(clock=lambda: now[0])
        for event in EVERYTHING:
            observe(event)
        read()
        for _ in range(60):
            observe(Stderr("git", 7, "again"))
        read()
        now[0] += 60.0
        logging.getLogger("clumsy").warning("%d", "no number")  # cannot be written
        logging.getLogger("other").warning("once")
        try:
            raise OSError
        except OSError:
            logging.getLogger("other").exception("failed")
        observe(Probed("git", True))
        read()
        yield [json.loads(line) for line in lines]
    os.close(reader)
    os.close(writer)


def test_the_sample_has_every_event_there_is() -> None:
    assert {type(event) for event in EVERYTHING} == set(get_args(Event))


def test_the_table_of_log_events_is_what_is_written(written: list[dict[str, object]]) -> None:
    found: Table = defaultdict(lambda: (set(), set()))
    for line in written:
        levels, members = found[str(line["event"])]
        levels.add(str(line["level"]))
        members.update(line.keys() - {"time", "level", "event"})
    documented: Table = {
        name.strip("`"): (words(level), words(cell)) for name, level, cell, _ in rows(section(LOGS, "Every event"))
    }
    assert documented == {name: row for name, row in found.items() if name not in UNUSED}


def test_every_name_that_the_code_has_for_a_line_is_in_the_table() -> None:
    documented = {name.strip("`") for name, *_ in rows(section(LOGS, "Every event"))}
    source = "".join(Path(str(module.__file__)).read_text() for module in (log, log_lines))
    assert set(
        re.findall(r'"((?:daemon|server|catalog|collision|client|config|request|processes|log|internal)\.\w+)"', source)
    ) <= (documented)


def test_the_table_of_the_events_that_can_be_followed_is_current() -> None:
    expected = {name: {field.name for field in fields(kind)} - {"stderr_tail"} for kind, name in EVENT_NAMES.items()}
    documented = {name.strip("`"): words(cell) for name, cell in rows(EVENTS)}
    assert documented == expected | {"status": {"status"}}


def test_the_numbers_in_the_docs_are_those_of_the_code() -> None:
    assert f"{BATCH_LINES / BATCH_EVERY:,.0f} lines a second" in LOGS
    limits = {kind.__name__: rate for kind, (rate, _) in log._LIMITED.items()}
    assert limits == {"Stderr": 20, "InvalidLine": 5, "Rejected": 5, "ClientConnected": 20, "ClientGone": 20}
    assert (
        "at most 20 lines a second for each server's stderr, 5 for its invalid\n  lines, 20 for clients that connect and leave, and 5 for refusals"
        in LOGS
    )
    assert f"After a burst of {log_lines.BURST:g}" in LOGS
    assert f"at most {log_lines.LINE_CAP // 1024} KiB" in LOGS
