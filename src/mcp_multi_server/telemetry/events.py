"""The one door for events: whoever has something to tell calls `Events.tell`, and all observers hear it alike."""

from __future__ import annotations

import traceback

from ..core.events import Event, InternalError, Observer


class Events:
    """Passes each event on to every observer, in the order in which they were added.

    It is made before all other parts, by the daemon or by a program with servers of its own, so that each of them can
    be given its `tell`. Observers are added as they are made; they stay for as long as the process does.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._failed: set[Observer] = set()
        """Observers whose failure was told."""

    def add(self, observer: Observer) -> None:
        """Have `observer` hear what is told from now on."""
        # A new tuple: an observer may be added while an event is passed on.
        self._observers = (*self._observers, observer)

    def tell(self, event: Event) -> None:
        """Have every observer hear the event, whatever the others do with it."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # a cancellation is no failure of an observer and goes on
                self._contain(observer, traceback.format_exc())

    def _contain(self, observer: Observer, trace: str) -> None:
        """Tell of the first failure of each observer.

        The telling reaches the one that failed, too, and may fail there again: told once, it cannot go on for ever.
        """
        if observer not in self._failed:
            self._failed.add(observer)  # before `tell`, which comes back here when the observer fails again
            name = getattr(observer, "__qualname__", type(observer).__name__)
            self.tell(InternalError(f"observer {name}", trace))
