"""What systemd says in a service's environment, and what a service says in its status line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.errors import Problem
from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.core.systemd import (
    STATUS_LONGEST,
    passed_descriptors,
    reload_trouble,
    status_line,
    watchdog_seconds,
)

PID = 42


@pytest.mark.parametrize(
    ("environ", "passed"),
    [
        ({}, {}),
        ({"LISTEN_FDS": "1"}, {}),
        ({"LISTEN_PID": "41", "LISTEN_FDS": "1"}, {}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "0"}, {}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "1"}, {3: ""}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mcp"}, {3: "mcp"}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:mcp"}, {3: "a", 4: "mcp", 5: ""}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "-1"}, {}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "²"}, {}),
        ({"LISTEN_PID": "42", "LISTEN_FDS": "many"}, {}),
    ],
)
def test_descriptors_count_when_they_were_passed_to_this_process(
    environ: dict[str, str], passed: dict[int, str]
) -> None:
    assert passed_descriptors(environ, PID) == passed


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_when_it_waits_for_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ, PID) == seconds


READY, BACKOFF, PARKED, DISABLED = State.READY, State.BACKOFF, State.PARKED, State.DISABLED


@pytest.mark.parametrize(
    ("states", "wait", "trouble", "line"),
    [
        ([], None, "", "no servers"),
        ([DISABLED], None, "", "no servers"),
        ([READY], None, "", "1/1 ready"),
        ([READY, DISABLED], None, "", "1/1 ready"),
        ([READY] * 12 + [BACKOFF, PARKED], 33.7, "", "12/14 ready, 1 backoff, 1 parked, next 34 s"),
        ([READY, State.DEGRADED, State.CONNECTING], None, "", "1/3 ready, 1 degraded, 1 connecting"),
        ([State.STOPPING], None, "", "0/1 ready, 1 stopping"),
        ([BACKOFF], -3.0, "", "0/1 ready, 1 backoff, next 0 s"),
        ([READY], None, "config rejected: no JSON", "1/1 ready; config rejected: no JSON"),
    ],
)
def test_the_fleet_in_a_few_words(states: list[State], wait: float | None, trouble: str, line: str) -> None:
    assert status_line(states, wait, trouble) == line


@given(st.lists(st.sampled_from(State)), st.none() | st.floats(-1, 1e6), st.text())
def test_every_server_but_disabled_ones_is_counted_once_in_a_line_that_is_not_too_long(
    states: list[State], wait: float | None, trouble: str
) -> None:
    line = status_line(states, wait, trouble)
    assert len(line) <= STATUS_LONGEST
    counts = [int(words.split()[0].split("/")[0]) for words in status_line(states, None).split(", ") if words[0] != "n"]
    assert sum(counts) == sum(state is not DISABLED for state in states)


def test_what_is_wrong_with_the_config_is_told_in_short() -> None:
    problems = (Problem("mcpServers.a.command", "must be text"), Problem("mcpServers.b", "is no object"))
    assert reload_trouble("applied", ()) == ""
    assert reload_trouble("partial", problems[:1]) == "config partial: mcpServers.a.command: must be text"
    assert reload_trouble("rejected", problems) == "config rejected: mcpServers.a.command: must be text (and 1 more)"
