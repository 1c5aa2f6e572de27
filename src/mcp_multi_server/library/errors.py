"""What the methods of a client raise or return for what cannot be done, and the checks of their arguments."""

from __future__ import annotations

from datetime import timedelta
from math import isnan

import mcp_types as types

from ..core.errors import INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND_LEGACY, RpcError
from ..core.levels import LEVELS


def no_paging(cursor: str | None, params: types.PaginatedRequestParams | None) -> None:
    """Raises ValueError where a page is asked for: each list has one."""
    if cursor is not None or params is not None:
        raise ValueError("lists are a single page: cursor and params are not supported")


def only_levels(level: str) -> None:
    """Raises ValueError where it is none of the protocol's levels."""
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")


def in_seconds(limit: float | timedelta | None, name: str) -> float | None:
    """A time limit in seconds. Raises TypeError or ValueError where it is none."""
    if isinstance(limit, timedelta):
        return limit.total_seconds()
    if limit is not None and not isinstance(limit, int | float):
        raise TypeError(f"{name} must be a number of seconds or a timedelta, not {type(limit).__name__}")
    if limit is not None and isnan(limit):
        raise ValueError(f"{name} must be a number of seconds, not NaN")
    return limit


def error_result(message: str) -> types.CallToolResult:
    """What a call of something unknown returns."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)


def is_unknown(refused: RpcError, opening: str) -> bool:
    """Whether the fleet knows no such tool or prompt; `opening` is how it says so."""
    return refused.code == INVALID_PARAMS and refused.data is None and refused.message.startswith(opening)


def reading_error(refused: RpcError, uri: str) -> RpcError:
    """The error of a read: one code for what does not exist, another for what its server does not have."""
    if refused.code not in (INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY):
        return refused
    code = METHOD_NOT_FOUND if refused.data == {"uri": uri} else INVALID_PARAMS
    return RpcError(code, refused.message, refused.data)


def mcp_error(failure: RpcError) -> Exception:
    """An error as programs know it, made as late as can be: importing the SDK takes 0.8 s."""
    from mcp import MCPError

    return MCPError(code=failure.code, message=failure.message, data=failure.data)
