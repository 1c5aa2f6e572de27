"""How much the daemon logs, and in which form: the command line, the config and an admin each have a say."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from ..core.config.settings import LogConfig
from .log_lines import LOG, Format, Level, configure

LEVELS: dict[str, Level] = {level: level for level in get_args(Level)}
"""By name, the most talkative first."""
_TALKATIVE = list(LEVELS)


class LogSettings:
    """The level and form of the log that are in force.

    The daemon's process makes it before all else and keeps it. The command line is stronger than the config, at a
    reload too. An admin's level is stronger than both until the configured one changes, so that an edit of something
    else, which is applied at once, does not end what somebody is looking at.
    """

    def __init__(self, config: LogConfig, *, level: Level | None = None, form: Format | None = None) -> None:
        self._given_level = level
        self._given_form = form
        self._asked: Level | None = None
        self._config = config
        self._apply()

    @property
    def configured(self) -> Level:
        """The level without an admin's say."""
        return self._given_level or self._config.level

    @property
    def level(self) -> Level:
        """The level in force."""
        return self._asked or self.configured

    def follow(self, config: LogConfig) -> None:
        """Take over what a new config says."""
        before, self._config = self.configured, config
        if self.configured != before:
            self._asked = None
        self._apply()

    def change(self, level: Level, tell: Callable[[], None]) -> None:
        """Have an admin's level from now on; `tell` is called while the more talkative of both levels is in force."""
        if _TALKATIVE.index(level) > _TALKATIVE.index(self.level):
            tell()
            self._set(level)
        else:
            self._set(level)
            tell()

    def _set(self, level: Level) -> None:
        self._asked = level
        # Not `configure`: the form stays, and so does the handler with its count of lost lines.
        LOG.setLevel(level.upper())

    def _apply(self) -> None:
        configure(self.level, self._given_form or self._config.format)
