"""What is wrong with what a server lists and says, and what of it its owner was told."""

from __future__ import annotations

from ..core.catalog.catalog import Catalog
from ..core.catalog.problems import ListProblem
from ..core.events import CatalogProblems, Observer, RefreshFailed


class Findings:
    """Keeps what was found wrong with one server, and tells each thing once. The server makes it, and it lasts as long.

    `tell`: takes the events.
    """

    def __init__(self, server: str, tell: Observer) -> None:
        self._server = server
        self._tell = tell
        self._peculiarities: dict[str, None] = {}
        self._told: tuple[ListProblem, ...] = ()
        self._told_failure = ""

    def take_over(self, other: Findings) -> None:
        """Know what another server of the same name has told."""
        self._told, self._told_failure = other._told, other._told_failure

    def add_peculiarity(self, what: str) -> bool:
        """Keep what the server does otherwise than the protocol has it, and was understood; whether it is news."""
        is_news = what not in self._peculiarities
        self._peculiarities[what] = None
        return is_news

    def all(self, catalog: Catalog | None) -> tuple[ListProblem, ...]:
        """All that is wrong now."""
        return (*self._peculiar(), *(catalog.all_problems if catalog else ()))

    def tell(self, catalog: Catalog | None) -> None:
        """Tell what is wrong where it differs from what was told; lists that could not be read again are told apart."""
        if catalog is not None and catalog.kept != self._told_failure:
            self._told_failure = catalog.kept
            if catalog.kept:
                self._tell(RefreshFailed(self._server, catalog.kept))
        found = (*self._peculiar(), *(catalog.problems if catalog else ()))
        if found != self._told:
            self._told = found
            self._tell(CatalogProblems(self._server, found))

    def _peculiar(self) -> tuple[ListProblem, ...]:
        return tuple(ListProblem(None, None, what) for what in self._peculiarities)
