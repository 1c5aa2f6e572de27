"""Keeps a server's catalog fresh: reads the lists when the server says so, when their time is up, and now and then."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import anyio

from ..core.catalog import Catalog, Kind
from ..core.config import ServerConfig
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.lifecycle import Lost
from ..core.protocol import Era
from .catalog_reading import read_catalog
from .session import ServerSession

DEBOUNCE = 0.25
"""Seconds that a change waits for others before the lists are read."""
REFRESH_SPREAD = 0.2
EARLY = (3.0, 30.0)
"""Seconds until the first readings after the start, for a server that listed nothing: some find out what they offer
only when they run, and do not say so."""
TTL_FLOOR, TTL_CEILING = 5.0, 3600.0
"""Bounds, in seconds, of the time to live that a server gives its lists."""
RELISTEN = 1.0
RELISTEN_CEILING = 60.0
"""Seconds until a subscription that a server ended is opened again, twice as many each time, unless it lasted."""


class CatalogOwner(Protocol):
    """Whose catalog it is."""

    @property
    def config(self) -> ServerConfig:
        """The entry: how long a list may take, and how often to read them."""

    @property
    def catalog(self) -> Catalog | None:
        """The one that is known."""

    def take_catalog(self, catalog: Catalog, *, seconds: float) -> None:
        """All lists were read, in so many seconds."""

    def refresh_failed(self, message: str) -> None:
        """The lists could not be read; what was known stays."""

    def spread(self, seconds: float, share: float) -> float:
        """`seconds`, more or less by up to this share, at random."""


class Refresher:
    """Reads one server's catalog over all its sessions. The server makes it, and runs `keep_fresh` and `subscribe`."""

    def __init__(self, owner: CatalogOwner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()

    def refresh_soon(self) -> None:
        """Have the lists read again; several wishes within a moment are one."""
        self._wanted.set()

    async def read(self, session: ServerSession) -> None:
        """Read every list. Raises Lost, TimeoutError."""
        # Forgotten before the reading: a change that is told while it goes on may be missing in what it finds.
        self._wanted.clear()
        started = self._loop.time()
        catalog = await read_catalog(session, timeout=self._owner.config.timeout)
        self._owner.take_catalog(catalog, seconds=self._loop.time() - started)

    async def keep_fresh(self, session: ServerSession) -> None:
        """Read the lists again whenever it is time, until cancelled."""
        early = iter(EARLY)
        while True:
            soon = next(early, None) if self._may_fill_up(session) else None
            with anyio.move_on_after(self._next_in() if soon is None else soon):
                await self._wanted.wait()
                await anyio.sleep(DEBOUNCE)  # some servers tell of each tool that they add
            try:
                await self.read(session)
            except TimeoutError:
                self._owner.refresh_failed(f"not answered within {self._owner.config.timeout:g} s")
            except Lost as lost:
                self._owner.refresh_failed(lost.failure.message)

    def _may_fill_up(self, session: ServerSession) -> bool:
        """Whether it lists nothing of what it is there for, and does not say when that changes."""
        catalog, negotiated = self._owner.catalog, session.negotiated
        offered = [kind for kind in Kind if negotiated.has(kind.capability)]
        kinds = [Kind.TOOL] if Kind.TOOL in offered else offered
        says_when = any(negotiated.announces_changes(kind.capability) for kind in kinds)
        return catalog is not None and bool(kinds) and not says_when and not any(map(catalog.count, kinds))

    def _next_in(self) -> float:
        """Seconds until the lists are read unasked."""
        ttl = self._owner.catalog.ttl if self._owner.catalog else None
        if ttl:  # 0 says that the answer is stale at once, which would have us ask for ever
            return min(max(ttl, TTL_FLOOR), TTL_CEILING)
        return self._owner.spread(self._owner.config.refresh_interval, REFRESH_SPREAD)

    async def subscribe(self, session: ServerSession) -> None:
        """Have a modern server say when its lists change (basic/patterns/subscriptions); a legacy one does unasked."""
        negotiated = session.negotiated
        wanted = {kind.subscription: True for kind in Kind if negotiated.announces_changes(kind.capability)}
        if negotiated.era is Era.LEGACY or not wanted:
            return
        pause = 0.0
        while True:
            began = self._loop.time()
            try:
                await session.ask("subscriptions/listen", {"notifications": wanted}, timeout=math.inf)
            except RpcError as refused:
                if refused.code == METHOD_NOT_FOUND:
                    return  # then its lists are read now and then, as a legacy server's
            except Lost:
                if session.loss is not None:
                    return  # else the stream of this one request broke, as over HTTP it may
            lasted = self._loop.time() - began > RELISTEN_CEILING
            pause = RELISTEN if lasted else min(max(2 * pause, RELISTEN), RELISTEN_CEILING)
            await anyio.sleep(pause)
            self.refresh_soon()  # what changed while nobody listened was told to nobody
