"""What tests that set up the log share: it is the process's, and has to be as it was for the next test."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
