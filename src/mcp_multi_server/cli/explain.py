"""A failure in words: what went wrong and, if a server is the cause, which one, its state and the next attempt."""

from __future__ import annotations

import time

from .failures import CommandFailed
from .members import moment, text
from .render import clean, until
from .session import RpcFailed


def explanation(failure: CommandFailed) -> str:
    """The text for stderr, of one line or two."""
    message = f"error: {clean(str(failure))}"
    cause = _cause(failure) if isinstance(failure, RpcFailed) else ""
    return f"{message}\n{cause}" if cause else message


def _cause(failure: RpcFailed) -> str:
    """The server that is the cause, "" if none is: the daemon names it in the error's data."""
    server, state = clean(text(failure.data, "server")), clean(text(failure.data, "state"))
    if not server:
        return ""
    reason, due = clean(text(failure.data, "reason")), moment(failure.data, "retryAt")
    line = f"server {server}" + (f" is {state}" if state else "") + (f" ({reason})" if reason else "")
    return line + (f", next attempt {until(due - time.time())}" if due is not None else "")
