"""Arguments that the methods of a client refuse, and the daemon's errors as the errors that programs catch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from math import isnan
from typing import Any

import mcp_types as types

from ..core import jsonrpc
from ..core.config.settings import CLIENT_LINE
from ..core.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    RESOURCE_NOT_FOUND_LEGACY,
    RpcError,
)
from ..core.log_levels import LEVELS
from .away import Away


def check_event_loop() -> None:
    """Raises RuntimeError where no asyncio event loop runs: under Trio, it is the one thing to say."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "MultiServerClient needs a running asyncio event loop; Trio is not supported: "
            "use SyncMultiServerClient in a thread (trio.to_thread.run_sync)"
        ) from None


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


def check_length(method: str, params: Mapping[str, Any], longest: int) -> None:
    """Raises RpcError if a request is longer than the fleet takes, before it is sent and read for nothing."""
    if (size := len(jsonrpc.encode(params))) > longest:
        message = f"{method} has {size} bytes, and a message may have at most {longest} ({CLIENT_LINE})"
        raise RpcError(INVALID_REQUEST, message, {"limit": CLIENT_LINE, "most": longest, "bytes": size})


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
