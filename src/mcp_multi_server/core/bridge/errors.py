"""The errors with which a bridge answers for a daemon that is gone."""

from __future__ import annotations

from typing import Any

from ..errors import INTERNAL_ERROR

LOST, AWAY = "daemon_lost", "daemon_away"
"""Why a request failed, in the data of its error: the daemon may have carried it out, or never got it."""


def failure(message: str, code: int = INTERNAL_ERROR, *, reason: str | None = None) -> dict[str, Any]:
    """An error object; with a `reason` its data has the members that an error about a server has.

    `sent` beside them tells whether a daemon may have got the request.
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if reason is not None:
        error["data"] = {"server": None, "state": None, "reason": reason, "retryAt": None, "sent": reason == LOST}
    return error


def may_be_done(why: str, method: str) -> dict[str, Any]:
    """The error for a request that a daemon had when it was lost."""
    what = "the call" if method == "tools/call" else "the request"
    return failure(f"{why}; {what} may or may not have been carried out", reason=LOST)
