"""Arguments that the methods of a client refuse, and the daemon's errors as the errors that programs catch."""

from __future__ import annotations

from datetime import timedelta
from math import isnan

import mcp_types as types

from ..core.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND_LEGACY, RpcError
from ..core.log_levels import LEVELS
from .away import Away


def check_single_page(cursor: str | None, params: types.PaginatedRequestParams | None) -> None:
    """Raises ValueError if another page of a list is asked for: every list is one page."""
    if cursor is not None or params is not None:
        raise ValueError("lists are a single page: cursor and params are not supported")


def check_level(level: str) -> None:
    """Raises ValueError if the protocol has no such log level."""
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")


def in_seconds(limit: float | timedelta | None, name: str) -> float | None:
    """A time limit in seconds; `name` is the argument's, for the error. Raises TypeError or ValueError."""
    if isinstance(limit, timedelta):
        return limit.total_seconds()
    if limit is not None and not isinstance(limit, int | float):
        raise TypeError(f"{name} must be a number of seconds or a timedelta, not {type(limit).__name__}")
    if limit is not None and isnan(limit):  # compares false with everything: such a limit would never pass
        raise ValueError(f"{name} must be a number of seconds, not NaN")
    return limit


def daemon_away(why: str) -> RpcError:
    """The error of a request that was held for a daemon, and not sent to any."""
    return RpcError(INTERNAL_ERROR, f"{why}; the request was not sent", {"reason": "daemon_away", "sent": False})


def daemon_lost(why: str) -> RpcError:
    """The error of a request that a daemon may have got, which was then lost."""
    message = f"{why}; the request may or may not have been carried out"
    return RpcError(INTERNAL_ERROR, message, {"reason": "daemon_lost", "sent": True})


def client_closed(*, sent: bool) -> RpcError:
    """The error of a request that was sent, or not, when the client was closed."""
    became = "may or may not have been carried out" if sent else "was not sent"
    return RpcError(INTERNAL_ERROR, f"the client is closed; the request {became}", {"reason": "closed", "sent": sent})


def timed_out(method: str, seconds: float | None, away: Away | None) -> RpcError:
    """The error of a request whose time is up; with a daemon that is away, it has not been sent."""
    message = f"{method} was not answered within {seconds:g} s"
    if away is None:
        return RpcError(types.REQUEST_TIMEOUT, message)
    unsent = {"reason": "daemon_away", "sent": False}
    return RpcError(types.REQUEST_TIMEOUT, f"{message}: {away.reason}; the request was not sent", unsent)


def error_result(message: str) -> types.CallToolResult:
    """The result of calling a tool or server that does not exist: as in version 1, a result and no exception."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)


def is_unknown(refused: RpcError, opening: str) -> bool:
    """Whether the fleet knows no such tool or prompt; `opening` is how its message then begins.

    The code alone does not tell: servers refuse arguments with it, too.
    """
    return refused.code == INVALID_PARAMS and refused.data is None and refused.message.startswith(opening)


def read_error(refused: RpcError, uri: str) -> RpcError:
    """The error of reading `uri`: -32601, as in version 1, if it leads to no server; -32602 if its server lacks it."""
    if refused.code not in (INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY):
        return refused
    # The URI as it was asked for, and nothing else, is what the fleet gives as data if it finds no server for it.
    code = METHOD_NOT_FOUND if refused.data == {"uri": uri} else INVALID_PARAMS
    return RpcError(code, refused.message, refused.data)


def mcp_error(failure: RpcError) -> Exception:
    """The `mcp.MCPError` that programs catch."""
    from mcp import MCPError  # takes 0.8 s to import: only programs that meet an error pay for it

    return MCPError(code=failure.code, message=failure.message, data=failure.data)
