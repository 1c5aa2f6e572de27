"""What the documentation says of states, reasons, error codes and times is what the core decides."""

from __future__ import annotations

from mcp_multi_server.core import errors, lifecycle
from mcp_multi_server.core.config.settings import DaemonConfig, ServerConfig
from mcp_multi_server.core.lifecycle import Reason, State

from .pages import codes, page, rows, section

PAGE = page("failures")


def test_every_state_is_explained() -> None:
    assert [codes(row[0]) for row in rows(section(PAGE, "States"))] == [[state.value] for state in State]


def test_every_reason_is_explained() -> None:
    assert [codes(row[0]) for row in rows(section(PAGE, "Reasons"))] == [[reason.value] for reason in Reason]


def test_every_error_code_is_explained() -> None:
    numbers = {value for value in vars(errors).values() if isinstance(value, int)}
    assert {int(code) for code, _ in rows(section(PAGE, "Errors"))} == numbers


def test_the_times_are_those_of_the_code() -> None:
    states, calls = section(PAGE, "States"), section(PAGE, "What happens to calls")
    base, cap = lifecycle.BACKOFF_BASE, lifecycle.BACKOFF_CAP
    assert f"after {lifecycle.BACKOFF_FLOOR:g}–{base:g} s, then at growing intervals of up to {cap:g} s" in states
    assert f"every {lifecycle.PARKED_RETRY / 60:g} minutes" in states
    assert (
        f"at most every {lifecycle.CALL_RETRY_BACKOFF:g} s, or every {lifecycle.CALL_RETRY_PARKED:g} s if parked"
        in calls
    )
    daemon, server = DaemonConfig(), ServerConfig(command="x")
    assert f"up to `hold` seconds ({daemon.hold:g} by default)" in calls
    assert f"for `grace` seconds ({daemon.grace:g} by default)" in calls
    assert f"the `timeout` of its server's entry ({server.timeout:g} s by default, `daemon.timeout` for all)" in calls
    assert f"`daemon.firstList`\n  seconds ({daemon.first_list:g}) after" in calls
    assert server.hang == daemon.hang != "off"
    assert f"for `hang` seconds** ({server.hang:g})" in section(PAGE, "Busy servers")
