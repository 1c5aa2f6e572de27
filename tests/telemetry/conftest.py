"""A log that a test reads as it is written."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator

import pytest

from tests.logs import Log, log_as_it_was


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    with log_as_it_was():
        yield


@pytest.fixture
def pipe() -> Iterator[Log]:
    reader, writer = os.pipe()
    yield Log(reader, writer)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def terminal() -> Iterator[Log]:
    reader, writer = pty.openpty()
    yield Log(reader, writer)
    os.close(reader)
    os.close(writer)
