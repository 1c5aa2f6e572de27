"""What the documentation says of log lines is what is written."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias, get_args

import pytest

from mcp_multi_server.clients.streams import BATCH_EVERY, BATCH_LINES
from mcp_multi_server.core.events import Event, Probed, Stderr
from mcp_multi_server.telemetry import describe, limit, log, log_lines
from mcp_multi_server.telemetry.log import LogObserver
from mcp_multi_server.telemetry.log_lines import configure
from tests.events import EVERYTHING
from tests.logs import log_as_it_was

from .pages import page, rows, section

LOGS = page("logs")
LINES = list(rows(section(LOGS, "Every event")))
Table: TypeAlias = dict[str, tuple[set[str], set[str]]]
"""Levels and fields by the name of the event."""

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
    documented: Table = {name.strip("`"): (words(level), words(cell)) for name, level, cell, _ in LINES}
    assert documented == {name: row for name, row in found.items() if name not in UNUSED}


def test_every_name_that_the_code_has_for_a_line_is_in_the_table() -> None:
    documented = {name.strip("`") for name, *_ in LINES}
    source = "".join(Path(str(module.__file__)).read_text() for module in (describe, log, log_lines))
    assert set(
        re.findall(r'"((?:daemon|server|catalog|collision|client|config|request|processes|log|internal)\.\w+)"', source)
    ) <= (documented)


def test_the_numbers_in_the_docs_are_those_of_the_code() -> None:
    assert f"{BATCH_LINES / BATCH_EVERY:,.0f} lines a second" in LOGS
    limits = {kind.__name__: rate for kind, (rate, _) in log._LIMITED.items()}
    assert limits == {"Stderr": 20, "InvalidLine": 5, "Rejected": 5, "ClientConnected": 20, "ClientGone": 20}
    assert (
        "at most 20 lines a second for each server's stderr, 5 for its invalid lines, "
        "20 for clients that connect and leave, and 5 for refusals"
    ) in " ".join(LOGS.split())
    assert f"After a burst of {limit.BURST:g}" in LOGS
    assert f"at most {log_lines.LINE_CAP // 1024} KiB" in LOGS
