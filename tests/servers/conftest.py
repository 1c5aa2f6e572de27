"""Fixtures of the room: a time that jumps, and a backoff that ends for a reason only."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_multi_server.core import lifecycle

from ..virtual import VirtualLoop


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Time jumps to whatever comes next, unless processes, threads or other loops take part in the test."""
    return "asyncio", {} if "real_time" in request.fixturenames else {"loop_factory": VirtualLoop}


@pytest.fixture
def real_time() -> None:
    """For tests in which something else than this loop takes time."""


@pytest.fixture
def long_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt is made but for a reason."""
    monkeypatch.setattr(lifecycle, "BACKOFF_FLOOR", 6000.0)
