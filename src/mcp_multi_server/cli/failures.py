"""The exceptions that end a command: each has a message for stderr and an exit code."""

from __future__ import annotations

OPERATION_FAILED = 1
USAGE = 2
UNREACHABLE = 69
"""EX_UNAVAILABLE of sysexits(3); a config that is unusable, EX_CONFIG, is the daemon's to say."""
INTERRUPTED = 130


class CommandFailed(Exception):
    """The operation failed; the message says why, to the person at the shell."""

    exit_code = OPERATION_FAILED


class Unreachable(CommandFailed):
    """No daemon answers."""

    exit_code = UNREACHABLE


class NotThere(Unreachable):
    """Nothing listens on any socket. Apart from Unreachable, since a daemon that is starting may listen soon."""


class HungUp(CommandFailed):
    """The daemon closed the connection."""

    def __init__(self) -> None:
        super().__init__("the daemon closed the connection")


class Garbled(CommandFailed):
    """The other end of the socket sent what no daemon sends."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the daemon's answer cannot be understood: {what}")
