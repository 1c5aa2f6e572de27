"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from .wire import Answer, ScriptedDaemon, scripted_daemon

MakeDaemon: TypeAlias = Callable[[Mapping[str, Answer]], ScriptedDaemon]


@pytest.fixture
def daemon_with(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Makes a scripted daemon that is gone after the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_daemon(tmp_path, script))
