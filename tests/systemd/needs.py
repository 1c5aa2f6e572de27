"""Whether a test may be left out where something is missing: on a developer's machine, and never in CI."""

from __future__ import annotations

import os

import pytest


def require(missing: str) -> None:
    """Fail in CI, skip elsewhere, where `missing` names something."""
    if missing and os.environ.get("CI"):
        pytest.fail(f"in CI the tests of systemd must run: {missing}")
    if missing:
        pytest.skip(f"THE TESTS OF SYSTEMD DO NOT RUN HERE: {missing}")
