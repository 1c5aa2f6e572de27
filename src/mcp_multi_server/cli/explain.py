"""A failure in words: what went wrong and, if a server is the cause, which one, its state and the next attempt."""

from __future__ import annotations

import time

from .failures import CommandFailed
from .members import moment, text
from .render import until
from .session import RpcFailed


def explanation(failure: CommandFailed) -> list[str]:
    """The lines for stderr."""
    # A server may have written the message. Its further lines are indented, so that none passes for one of ours.
    first, *further = str(failure).splitlines() or [""]
    lines = [f"error: {first}", *(f"  {line}" for line in further if line.strip())]
    cause = _cause(failure) if isinstance(failure, RpcFailed) else ""
    return [*lines, cause] if cause else lines


def _cause(failure: RpcFailed) -> str:
    """The server that is the cause, "" if none is: the daemon names it in the error's data."""
    server, state = text(failure.data, "server"), text(failure.data, "state")
    if not server:
        return ""
    reason, due = text(failure.data, "reason"), moment(failure.data, "retryAt")
    line = f"server {server}" + (f" is {state}" if state else "") + (f" ({reason})" if reason else "")
    return line + (f", next attempt {until(due - time.time())}" if due is not None else "")
