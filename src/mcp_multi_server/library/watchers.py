"""A program's callbacks for changes of lists, servers and the daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .callbacks import check_callable

OnChange: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Told of changes: `{"event": "lists"}`, `{"event": "server", …}` and the other events of the daemon."""

_log = logging.getLogger("mcp_multi_server.client")


class Watchers:
    """The callbacks that a client tells of each change. Each client makes one, and keeps it for life."""

    def __init__(self) -> None:
        self._callbacks: list[OnChange] = []

    def add(self, callback: OnChange) -> None:
        """Have it called from now on. Raises TypeError if it cannot be called."""
        check_callable(callback=callback)
        self._callbacks.append(callback)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Call each of them; what one raises is logged."""
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:  # or one callback's fault would keep the others, and the session, from going on
                _log.exception("a callback of on_change failed")
