"""Who has a say in how much is logged, and whose word is the last."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mcp_multi_server.core.config.settings import LogConfig
from mcp_multi_server.telemetry.log_lines import LOG, Level
from mcp_multi_server.telemetry.log_settings import LogSettings
from tests.logs import log_as_it_was


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    with log_as_it_was():
        yield


def of(level: Level) -> LogConfig:
    return LogConfig(level=level, format="json")


def in_force(log: LogSettings) -> str:
    """What the logger does, which is what `level` says."""
    assert logging.getLevelName(LOG.level).lower() == log.level
    return log.level


def ask(log: LogSettings, level: Level) -> None:
    log.change(level, lambda: None)


def test_the_config_is_followed_at_each_reload() -> None:
    log = LogSettings(of("warning"))
    assert in_force(log) == "warning"
    log.follow(of("debug"))
    assert in_force(log) == "debug"


def test_the_command_line_is_stronger_than_any_config() -> None:
    log = LogSettings(of("warning"), level="debug")
    log.follow(of("error"))
    assert (in_force(log), log.configured) == ("debug", "debug")


@pytest.mark.parametrize("given", [None, "warning"])
def test_an_admin_is_stronger_than_both(given: Level | None) -> None:
    log = LogSettings(of("info"), level=given)
    ask(log, "debug")
    assert (in_force(log), log.configured) == ("debug", given or "info")


def test_an_admins_level_outlives_edits_of_something_else() -> None:
    log = LogSettings(of("info"))
    ask(log, "debug")
    log.follow(of("info"))
    assert in_force(log) == "debug"
    ask(log, "error")
    assert in_force(log) == "error"


def test_an_edit_of_the_level_ends_an_admins() -> None:
    log = LogSettings(of("info"))
    ask(log, "debug")
    log.follow(of("warning"))
    assert in_force(log) == "warning"
    log.follow(of("info"))
    assert in_force(log) == "info", "the admin's does not come back"


def test_an_edit_that_the_command_line_overrules_ends_nothing() -> None:
    log = LogSettings(of("info"), level="warning")
    ask(log, "debug")
    log.follow(of("error"))
    assert in_force(log) == "debug"
