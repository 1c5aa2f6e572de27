"""What tests that set up the log share: it is the process's, and has to be as it was for the next test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_multi_server.telemetry.log_lines import LOG, installed


@contextmanager
def log_as_it_was() -> Iterator[None]:
    """Afterwards levels and handlers are what they were before."""
    root = logging.getLogger()
    levels, raising = (LOG.level, root.level), logging.raiseExceptions
    try:
        yield
    finally:
        for handler in installed():
            root.removeHandler(handler)
        LOG.setLevel(levels[0])
        root.setLevel(levels[1])
        logging.raiseExceptions = raising
