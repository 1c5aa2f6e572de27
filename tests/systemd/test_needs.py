"""Tests of systemd that cannot run are a failure in CI, and said aloud elsewhere."""

from __future__ import annotations

import pytest

from tests.systemd.needs import require


def test_what_is_missing_fails_in_ci_and_is_skipped_with_its_reason_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require("")
    with pytest.raises(pytest.fail.Exception, match="must run: no systemd"):
        require("no systemd")
    monkeypatch.delenv("CI")
    require("")
    with pytest.raises(pytest.skip.Exception, match="DO NOT RUN HERE: no systemd"):
        require("no systemd")
