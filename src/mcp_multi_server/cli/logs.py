"""`logs`: what a server wrote to its stderr, and what it goes on to write. `log-level`: how much the daemon logs."""

from __future__ import annotations

import sys

from .failures import CommandFailed
from .members import JsonObject, number, strings, text
from .render import echo, echo_json, remark
from .session import StreamEnded, session
from .streams import LOG, DaemonStream

ALL_LINES = 200
"""As many as a daemon keeps. After its restart they are asked for all: every one is new."""


def logs(socket: str | None, server: str, *, lines: int, as_json: bool) -> None:
    """Print the last lines that a server wrote to its stderr."""
    with session(socket) as opened:
        result = opened.control("daemon/logs", {"server": server, "lines": lines})
    if as_json:
        echo_json(result)
    else:
        _show_lines(result)


def follow_log(socket: str | None, server: str, *, lines: int, wait: float, as_json: bool) -> None:
    """Print them and all that follow. Ctrl-C is how it is meant to end."""
    params = {"server": server, "lines": lines, "follow": True}
    try:
        with DaemonStream(socket, LOG, params, wait=wait, notice=notice) as stream:
            while True:
                if (message := stream.next()) is None:
                    continue
                if as_json:
                    echo_json(message, indent=None)
                else:
                    _show(message)
                stream.params["lines"] = ALL_LINES  # for the next daemon, should this one be restarted
    except StreamEnded as ended:
        raise CommandFailed(f"{server} was {text(ended.result, 'ended') or 'ended'}; nothing more will come") from None
    except KeyboardInterrupt:
        return


def log_level(socket: str | None, level: str | None, *, as_json: bool) -> None:
    """Print the level of the daemon's log; with `level`, change it before."""
    with session(socket) as opened:
        result = opened.control("daemon/log-level", {"level": level} if level else {})
    if as_json:
        echo_json(result)
        return
    present, configured = text(result, "level"), text(result, "configured")
    echo(present if present == configured else f"{present} (configured: {configured})")


def notice(said: str, *, is_away: bool) -> None:
    """Say on stderr that the daemon is away, or back; a stream calls it."""
    remark(said)


def _show(message: JsonObject) -> None:
    if left_out := number(message, "leftOut"):
        remark(f"{left_out:g} lines left out: they came too fast")
    _show_lines(message)
    sys.stdout.flush()
    if state := text(message, "state"):
        reason = text(message, "reason")
        remark(f"{text(message, 'server')}: {state}" + (f" ({reason})" if reason else ""))


def _show_lines(message: JsonObject) -> None:
    for line in strings(message, "lines"):
        echo(line)
