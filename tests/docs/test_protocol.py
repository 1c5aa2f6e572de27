"""What the documentation says of the socket is what clients are served."""

from __future__ import annotations

import inspect
import re

from mcp_multi_server.clients.control import Control
from mcp_multi_server.core.protocol import LEGACY_VERSIONS, MODERN_VERSION

from .pages import codes, page, rows, section

PAGE = page("protocol")
SERVE = inspect.getsource(Control.serve)
"""A `match` with a case for each method; those for admins begin with `_require`."""


def test_every_control_method_is_in_the_table_with_who_may_use_it() -> None:
    documented = {codes(method)[0]: whom for method, _, whom, _ in rows(section(PAGE, "Control methods"))}
    served = re.findall(r'case "(daemon/[a-z-]+)":\n +(_require)?', SERVE)
    assert documented == {method: "admins" if guard else "everybody" for method, guard in served}


def test_the_protocol_versions_are_those_that_are_spoken() -> None:
    legacy, modern = rows(section(PAGE, "Protocol versions"))
    assert (legacy[1], modern[1]) == (", ".join(LEGACY_VERSIONS), MODERN_VERSION)
