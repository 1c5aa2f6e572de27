"""Levels of log messages, the least important first (RFC 5424)."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import INVALID_PARAMS, RpcError
from .jsonrpc import Raw, text

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_RANKS = {level: rank for rank, level in enumerate(LEVELS)}


def level_in(raw: Raw | None, where: str) -> str:
    """The level that a request names. Raises RpcError -32602 where it is none."""
    level = text(raw)
    if level not in _RANKS:
        raise RpcError(INVALID_PARAMS, f"{where} must be one of {', '.join(LEVELS)}")
    return level


def reaches(level: str | None, threshold: str) -> bool:
    """Whether a message is important enough; one without a level of ours always is."""
    return _RANKS.get(level or "", len(LEVELS)) >= _RANKS[threshold]


def lowest(levels: Iterable[str]) -> str | None:
    """The least important of these levels; None where there are none."""
    return min(levels, key=_RANKS.__getitem__, default=None)
