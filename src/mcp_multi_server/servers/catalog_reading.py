"""Reads what a server offers: every page of every list, the lists side by side, so that none waits for another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from ..core.catalog.catalog import Catalog, CatalogError, CatalogList, Kind, ListPage, read_page
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.lifecycle import Failure, Lost, Reason
from .session import ServerSession

MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class ReadLists:
    """What came of reading some lists. `failure`: why none of them could be read at all, where that is so."""

    lists: Mapping[Kind, CatalogList]
    failure: Failure | None = None


def announced(session: ServerSession) -> tuple[Kind, ...]:
    """The lists that the server says it has."""
    return tuple(kind for kind in Kind if session.negotiated.has(kind.capability))


async def read_catalog(session: ServerSession, *, timeout: float) -> Catalog:
    """All lists that the server announced, each to its end.

    `timeout`: seconds a page. Raises Lost where a list is broken or the session ended, TimeoutError.
    """
    readers = await _read(session, announced(session), Catalog(), timeout, math.inf)
    for reader in readers:
        if reader.failure is not None:
            raise TimeoutError if reader.failure.reason is Reason.START_TIMEOUT else Lost(reader.failure)
    return Catalog().updated({reader.kind: reader.found() for reader in readers})


async def read_lists(
    session: ServerSession,
    kinds: Iterable[Kind],
    *,
    timeout: float,
    patience: float = math.inf,
    before: Catalog | None = None,
) -> ReadLists:
    """These lists, each as far as it could be read.

    `before`: what was read the last time, and is mostly there again. `timeout`: seconds a page. `patience`: seconds of
    silence after which a list is given up as soon as anything of another was read. Raises Lost where the session ended.
    """
    readers = await _read(session, kinds, before or Catalog(), timeout, patience)
    lists = {reader.kind: reader.found() for reader in readers}
    failures = [reader.failure for reader in readers if reader.failure is not None]
    if not failures or any(reader.pages for reader in readers):
        return ReadLists(lists)
    if failures[0].reason is Reason.START_TIMEOUT:
        return ReadLists(lists, Failure(Reason.START_TIMEOUT, f"its lists did not come within {timeout:g} s"))
    return ReadLists(lists, failures[0])


async def _read(
    session: ServerSession, kinds: Iterable[Kind], before: Catalog, timeout: float, patience: float
) -> list[_ListReader]:
    some = asyncio.Event()
    readers = [_ListReader(session, kind, before.lists[kind], timeout, some) for kind in kinds]
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as reading:
            for reader in readers:
                reading.start_soon(reader.run)
            if patience < math.inf:
                tasks.start_soon(_give_up_the_silent, readers, patience, some)
        tasks.cancel_scope.cancel()
    if session.loss is not None:
        raise Lost(session.loss)
    return readers


async def _give_up_the_silent(readers: list[_ListReader], patience: float, some: asyncio.Event) -> None:
    """Once something was read, end the reading of each list of which nothing came for so many seconds."""
    await some.wait()
    while pending := [reader for reader in readers if not reader.is_over]:
        next_up = min(pending, key=lambda reader: reader.heard_at)
        if next_up.heard_at + patience <= anyio.current_time():
            next_up.give_up()
        else:
            await anyio.sleep_until(next_up.heard_at + patience)


class _ListReader:
    """Reads one list, page after page, and keeps what came, whatever ends it. `some` is set when a page came."""

    def __init__(
        self, session: ServerSession, kind: Kind, before: CatalogList, timeout: float, some: asyncio.Event
    ) -> None:
        self.kind = kind
        self.pages: list[ListPage] = []
        self.failure: Failure | None = None
        """Why the list was not read to its end; None if it was."""
        self.heard_at = anyio.current_time()
        """Loop time of the last page, or of the beginning."""
        self.is_over = False
        self._note = ""
        self._known = before.known()
        self._session = session
        self._timeout = timeout
        self._some = some
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Read it."""
        with self._scope:
            try:
                await self._read()
            except RpcError as refused:
                self._fail(Reason.PROTOCOL, f"failed: error {refused.code}")
            except CatalogError as broken:
                self._fail(Reason.PROTOCOL, f"cannot be read: {broken}")
            except TimeoutError:
                self._fail(Reason.START_TIMEOUT, "was not answered in time")
            except Lost as lost:
                self.failure = lost.failure
        self.is_over = True

    def give_up(self) -> None:
        """Do not wait for it any longer."""
        self._fail(Reason.START_TIMEOUT, "was not answered in time")
        self.is_over = True  # not when its task has ended, which takes a moment more
        self._scope.cancel()

    def found(self) -> CatalogList:
        """The list, as far as it was read."""
        gap = self.failure.message if self.failure else ""
        if gap and self.pages:
            count = len(self.pages)
            gap += f"; what came before that is listed ({count} page{'s' if count > 1 else ''})"
        return CatalogList.of(self.kind, self.pages, note=self._note, gap=gap)

    async def _read(self) -> None:
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        while len(self.pages) < MAX_PAGES:
            page = await self._page(params)  # one after another: a cursor is in the page before
            if page is None or self._is_seen_again(page, cursors):
                return
            self._take(page)
            if page.cursor is None:
                return
            params = {"cursor": page.cursor}
            if page.cursor in cursors:
                self._note = "nextCursor was the same again: the list ends there"
                return
            cursors.add(page.cursor)
        # No cursor came twice: what this server means is not known, and what it listed before is better.
        self._fail(Reason.PROTOCOL, f"has no end: it was read up to page {MAX_PAGES}")

    async def _page(self, params: dict[str, Any]) -> ListPage | None:
        """One page; None where the server does not know the method at all."""
        try:
            found = await self._session.ask(self.kind.list_method, params, timeout=self._timeout)
        except RpcError as refused:
            # "resources" announces two lists, and a server may know only one of them.
            if refused.code == METHOD_NOT_FOUND and not self.pages:
                return None
            raise
        return read_page(self.kind, found, era=self._session.negotiated.era, known=self._known)

    def _is_seen_again(self, page: ListPage, cursors: set[str]) -> bool:
        """Whether the list went back to a page before: a server that does not know its own cursors does so."""
        earlier = [each.items for each in (self.pages if page.cursor in cursors else self.pages[-1:])]
        if not page.items or page.items not in earlier:
            return False
        self._note = "nextCursor leads back to a page before: the list ends there"
        return True

    def _take(self, page: ListPage) -> None:
        self.pages.append(page)
        self.heard_at = anyio.current_time()
        self._some.set()

    def _fail(self, reason: Reason, how: str) -> None:
        self.failure = Failure(reason, f"{self.kind.list_method} {how}")
