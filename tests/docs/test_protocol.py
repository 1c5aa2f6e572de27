"""What the documentation says of the socket is what clients are served."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from mcp_multi_server.clients.followers import EVENT_NAMES, HIDDEN, NOT_TOLD, REJECTIONS_A_SECOND
from mcp_multi_server.core.config.config import Config
from mcp_multi_server.core.protocol import LEGACY_VERSIONS, MODERN_VERSION
from mcp_multi_server.daemon.control import Control
from mcp_multi_server.servers.status import idle_status
from mcp_multi_server.telemetry.limit import BURST

from .pages import codes, page, rows, section

PAGE = page("protocol")
EVENTS = section(PAGE, "Events")
SERVE = inspect.getsource(Control.serve)
"""A `match` with a case for each method; those for admins begin with `_require`."""


def test_every_control_method_is_in_the_table_with_who_may_use_it() -> None:
    documented = {codes(method)[0]: whom for method, _, whom, _ in rows(section(PAGE, "Control methods"))}
    served = re.findall(r'case "(daemon/[a-z-]+)":\n +(_require)?', SERVE)
    assert documented == {method: "admins" if guard else "everybody" for method, guard in served}


def test_the_protocol_versions_are_those_that_are_spoken() -> None:
    legacy, modern = rows(section(PAGE, "Protocol versions"))
    assert (legacy[1], modern[1]) == (", ".join(LEGACY_VERSIONS), MODERN_VERSION)


def test_every_event_that_can_be_followed_is_in_the_table_with_its_fields() -> None:
    expected = {name: {field.name for field in fields(kind)} - HIDDEN for kind, name in EVENT_NAMES.items()}
    expected["rejected"].add("left_out")
    documented = {codes(name)[0]: set(cell.split(", ")) for name, cell in rows(EVENTS)}
    assert documented == expected | {"status": {"status"}}


def test_the_page_says_which_events_cannot_be_followed_and_why() -> None:
    reasons = [reason for _, reason in rows(EVENTS.partition("Everything else is only in the log:")[2])]
    assert reasons == list(NOT_TOLD.values())


def test_the_limit_of_refusals_is_that_of_the_code() -> None:
    assert f"at most {REJECTIONS_A_SECOND:g} a second after a burst of {BURST:g}" in EVENTS


def test_every_key_of_a_servers_status_is_explained() -> None:
    documented = [key for row in rows(section(PAGE, "Status")) for key in codes(row[0])]
    assert documented == [*idle_status(Config((), {}, {}), "git"), "prefix"]
