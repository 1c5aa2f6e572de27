"""Levels of log messages, from the least important to the most important (RFC 5424)."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import INVALID_PARAMS, RpcError
from .jsonrpc import Raw, text

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_RANKS = {level: rank for rank, level in enumerate(LEVELS)}


def level_in(raw: Raw | None, where: str) -> str:
    """The level in a request. Raises RpcError -32602 if it is none; the error calls its place `where`."""
    level = text(raw)
    if level not in _RANKS:
        raise RpcError(INVALID_PARAMS, f"{where} must be one of {', '.join(LEVELS)}")
    return level


def reaches(level: str | None, threshold: str) -> bool:
    """Whether a message of this level is at least as important as `threshold`; one of an unknown level always is."""
    return _RANKS.get(level or "", len(LEVELS)) >= _RANKS[threshold]


def lowest(levels: Iterable[str]) -> str | None:
    """The least important of these levels; None if there are none."""
    return min(levels, key=_RANKS.__getitem__, default=None)
