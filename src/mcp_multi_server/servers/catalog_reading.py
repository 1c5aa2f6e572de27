"""Reads what a server offers: every page of every list."""

from __future__ import annotations

from typing import Any

from ..core.catalog import Catalog, CatalogError, Kind, ListPage, read_page
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.lifecycle import Failure, Lost, Reason
from .session import ServerSession

MAX_PAGES = 1000


async def read_catalog(session: ServerSession, *, timeout: float) -> Catalog:
    """All lists that the server announced.

    `timeout`: seconds a page. Raises Lost where a list is broken or the session ended, TimeoutError.
    """
    pages: dict[Kind, list[ListPage]] = {}
    for kind in Kind:
        if session.negotiated.has(kind.capability):
            pages[kind] = await _read_list(session, kind, timeout)
    return Catalog.of(pages)


async def _read_list(session: ServerSession, kind: Kind, timeout: float) -> list[ListPage]:
    pages: list[ListPage] = []
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    while len(pages) < MAX_PAGES:
        page = await _read_page(session, kind, params, timeout)  # one after another: a cursor is in the page before
        if page is None and not pages:
            return []  # "resources" announces two lists, and a server may know only one of them
        if page is None:
            raise _broken(kind, f"failed: error {METHOD_NOT_FOUND}")
        pages.append(page)
        if page.cursor is None:
            return pages
        if page.cursor in cursors:
            break  # it would go round for ever
        cursors.add(page.cursor)
        params = {"cursor": page.cursor}
    raise _broken(kind, f"has no end: stopped after {len(pages)} pages")


async def _read_page(session: ServerSession, kind: Kind, params: dict[str, Any], timeout: float) -> ListPage | None:
    """One page; None where the server does not know the method."""
    try:
        return read_page(kind, await session.ask(kind.list_method, params, timeout=timeout))
    except RpcError as refused:
        if refused.code == METHOD_NOT_FOUND:
            return None
        raise _broken(kind, f"failed: error {refused.code}") from None
    except CatalogError as broken:
        raise Lost(Failure(Reason.PROTOCOL, f"{kind.list_method}: {broken}")) from None


def _broken(kind: Kind, how: str) -> Lost:
    return Lost(Failure(Reason.PROTOCOL, f"{kind.list_method} {how}"))
