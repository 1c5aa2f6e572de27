"""What is said of servers whose daemon is away: what was known last, and nothing that may not be so any more."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_multi_server.core.lifecycle import State
from mcp_multi_server.library.away import UNKNOWN, Away, event, status_now

AWAY = Away("2026-11-28T12:00:00.000+00:00", "the connection to the daemon: closed")
LAST: dict[str, Any] = {
    "pid": 7,
    "version": "2",
    "clients": [{"id": 1}],
    "servers": [{"name": "a", "state": "ready", "since": None, "reason": None, "pid": 8, "inFlight": 3, "tools": 5}],
}


def row(state: str) -> dict[str, Any]:
    """The one server's row when it was in this state and the daemon went."""
    last = {**LAST, "servers": [{**LAST["servers"][0], "state": state}]}
    (found,) = status_now(last, AWAY)["servers"]
    assert isinstance(found, dict)
    return found


def test_a_status_of_now_is_the_fleets_and_says_so() -> None:
    assert status_now(LAST, None) == {**LAST, "connected": True, "away": None}


def test_without_a_fleet_the_status_says_since_when_and_why() -> None:
    status = status_now(LAST, AWAY)
    assert (status["connected"], status["away"]) == (False, {"since": AWAY.since, "reason": AWAY.reason})
    assert (status["pid"], status["clients"], status["version"]) == (None, [], "2")


@pytest.mark.parametrize("state", sorted(set(State) - {State.DISABLED}))
def test_no_state_of_a_server_outlives_its_daemon(state: State) -> None:
    found = row(state)
    assert (found["state"], found["since"], found["reason"]) == (UNKNOWN, AWAY.since, AWAY.reason)
    assert (found["pid"], found["inFlight"], found["nextAttemptAt"], found["stale"]) == (None, 0, None, True)
    assert found["tools"] == 5


def test_an_entry_that_is_disabled_stays_so() -> None:
    assert row(State.DISABLED)["state"] == State.DISABLED


def test_a_client_that_was_never_connected_has_no_status() -> None:
    assert status_now({}, AWAY) == status_now({}, None) == {}


def test_it_is_told_when_the_daemon_goes_and_comes_back() -> None:
    assert event(AWAY) == {"event": "daemon", "connected": False, "since": AWAY.since, "reason": AWAY.reason}
    assert event(None) == {"event": "daemon", "connected": True}
