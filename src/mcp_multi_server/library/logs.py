"""The library's log records for programs that have not set up logging themselves."""

from __future__ import annotations

import logging

LOGGER = "mcp_multi_server"
FORMAT = "%(asctime)s %(levelname)-8s %(name)s - %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""Python's level for each of the protocol's; those above "error" mean its highest, CRITICAL."""


def configure_logging(
    name: str = LOGGER,
    level: str = "INFO",
    format: str | None = None,  # noqa: A002 - programs written for version 1 pass it by this name
    datefmt: str | None = None,
) -> None:
    """Set the level of a logger; the root logger gets a handler on stderr, and that level, if it has none.

    MCP servers have levels of their own: `set_logging_level`.

    Args:
        name: the logger. `mcp_multi_server.stderr` is that of the lines that servers write to stderr.
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any case; another word means `INFO`.
        format: the form of a record, as `logging.Formatter` takes it. Default: time, level, logger and message.
        datefmt: the form of its time, as `time.strftime` takes it. Default: `2026-11-28 09:30:00`.

    >>> configure_logging(level="DEBUG")
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=number, format=format or FORMAT, datefmt=datefmt or DATE_FORMAT)
    logging.getLogger(name).setLevel(number)


def set_own_level(level: str) -> None:
    """Have the library's own logger log from this level of the protocol's on."""
    logging.getLogger(LOGGER).setLevel(LEVELS.get(level, logging.CRITICAL))
