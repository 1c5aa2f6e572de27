"""What ends a command early: a message for stderr and an exit code."""

from __future__ import annotations

OPERATION_FAILED = 1
USAGE = 2
UNREACHABLE = 69
"""EX_UNAVAILABLE of sysexits(3); a config that is unusable, EX_CONFIG, is the daemon's to say."""
INTERRUPTED = 130


class CommandFailed(Exception):
    """The operation failed; the message is for the person who asked for it. `main` prints it and exits."""

    exit_code = OPERATION_FAILED


class Unreachable(CommandFailed):
    """No daemon answers, or not in time."""

    exit_code = UNREACHABLE


class NotThere(Unreachable):
    """Nothing listens on the socket: there is no daemon, or it is only starting."""


class HungUp(CommandFailed):
    """The daemon closed the connection."""

    def __init__(self) -> None:
        super().__init__("the daemon closed the connection")


class Garbled(CommandFailed):
    """The other end of the socket sent what no daemon sends."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the daemon's answer cannot be understood: {what}")
