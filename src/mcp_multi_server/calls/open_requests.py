"""The requests of one client that are not answered yet, by the ids that the client gave them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Cancellable(Protocol):
    """What stands for a request while its client waits: a call, a subscription, a control request."""

    def cancel(self, reason: str) -> None:
        """The client gave the request up, or is gone. It must not be answered any more."""


class OpenRequests:
    """The table of one client. Its session makes it; whoever will answer a request adds and removes itself."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Cancellable] = {}

    def __contains__(self, id: bytes) -> bool:
        return id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Cancellable]:
        return iter(list(self._rows.values()))  # who is told of something may remove itself

    def add(self, id: bytes, waiting: Cancellable) -> None:
        """Note that `waiting` will answer the request with this id."""
        self._rows[id] = waiting

    def remove(self, id: bytes, waiting: Cancellable) -> bool:
        """Forget the request; False where it is not that one's any more, so that it must not be answered."""
        if self._rows.get(id) is not waiting:
            return False
        del self._rows[id]
        return True

    def cancel(self, id: bytes, reason: str) -> None:
        """Cancel one request, if it is open."""
        if (waiting := self._rows.get(id)) is not None:
            waiting.cancel(reason)

    def cancel_all(self, reason: str) -> None:
        """Cancel every request: the client is gone."""
        for waiting in self:
            waiting.cancel(reason)
        self._rows.clear()
