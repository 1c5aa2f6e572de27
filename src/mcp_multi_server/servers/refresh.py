"""Keeps a server's catalog fresh: reads the lists when the server says so, when their time is up, and now and then."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Mapping
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from ..core.catalog.catalog import Catalog, CatalogList, Kind
from ..core.config.config import ServerConfig
from ..core.errors import METHOD_NOT_FOUND, RpcError
from ..core.lifecycle import Lost
from ..core.protocol import Era
from .catalog_reading import announced, read_lists
from .session import ServerSession

DEBOUNCE = 0.25
"""Seconds that a change waits for others before the lists are read."""
REFRESH_SPREAD = 0.2
EARLY = (3.0, 30.0)
"""Seconds until the first readings after the start, for a server that listed nothing: some find out what they offer
only when they run, and do not say so."""
TTL_FLOOR, TTL_CEILING = 5.0, 3600.0
"""Bounds, in seconds, of the time to live that a server gives its lists."""
PATIENCE = 10.0
"""Seconds that a start waits for a list of which nothing comes, where others were read."""
PART_OF_START = 0.8
"""The share of what is left of the time to start that it waits at most."""
GAP_PAUSES = (5.0, 30.0)
"""Seconds until a list that could not be read is asked for again; after these, as often as all lists are."""
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

    def take_catalog(self, catalog: Catalog, *, seconds: float | None) -> None:
        """Lists were read, in so many seconds, and this is what is known now; None: none of them could be."""

    def spread(self, seconds: float, share: float) -> float:
        """`seconds`, more or less by up to this share, at random."""


class Refresher:
    """Reads one server's catalog over all its sessions.

    The server makes it, and has it `begin` with each session that is ready.
    """

    def __init__(self, owner: CatalogOwner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._gaps_wanted: asyncio.Event | None = None
        """Likewise, for the lists that could not be read; there is one while there are such lists."""
        self._tasks: TaskGroup | None = None

    def refresh_soon(self) -> None:
        """Have the lists read again; several wishes within a moment are one."""
        self._wanted.set()
        if self._gaps_wanted is not None:
            self._gaps_wanted.set()

    def begin(self, session: ServerSession, tasks: TaskGroup) -> None:
        """Keep the lists current, in tasks of this group, which is to end with the session."""
        self._tasks, self._gaps_wanted = tasks, None
        tasks.start_soon(self._keep_fresh, session)
        tasks.start_soon(self._subscribe, session)
        self._fill_gaps_soon(session)

    async def read_first(self, session: ServerSession) -> None:
        """Read every list, as far as it can be read. Raises Lost where none can be."""
        # Less than what is left of the time to start: a list that hangs must not cost the others.
        left = anyio.current_effective_deadline() - anyio.current_time()
        self._wanted.clear()
        started, kinds = self._loop.time(), announced(session)
        timeout, before = self._owner.config.timeout, self._owner.catalog
        reading = await read_lists(
            session, kinds, timeout=timeout, patience=min(PATIENCE, PART_OF_START * left), before=before
        )
        if reading.failure is not None:
            raise Lost(reading.failure)
        # What an earlier session had and this one does not announce is gone.
        gone = dict.fromkeys(set(Kind).difference(kinds), CatalogList())
        self._take({**gone, **reading.lists}, self._loop.time() - started)

    async def _read_again(self, session: ServerSession, kinds: Collection[Kind]) -> None:
        started = self._loop.time()
        reading = await read_lists(session, kinds, timeout=self._owner.config.timeout, before=self._owner.catalog)
        self._take(reading.lists, self._loop.time() - started if reading.failure is None else None)
        self._fill_gaps_soon(session)

    def _take(self, lists: Mapping[Kind, CatalogList], seconds: float | None) -> None:
        self._owner.take_catalog((self._owner.catalog or Catalog()).updated(lists), seconds=seconds)

    def _fill_gaps_soon(self, session: ServerSession) -> None:
        """Begin to ask for the lists that could not be read, if there are any and it has not begun."""
        if self._gaps() and self._gaps_wanted is None and self._tasks is not None:
            self._gaps_wanted = asyncio.Event()
            self._tasks.start_soon(self._fill_gaps, session, self._gaps_wanted)

    def _gaps(self) -> tuple[Kind, ...]:
        return self._owner.catalog.gaps if self._owner.catalog else ()

    async def _keep_fresh(self, session: ServerSession) -> None:
        """Read the lists again whenever it is time, until cancelled or the session ends."""
        early = iter(EARLY)
        with contextlib.suppress(Lost):
            while True:
                soon = next(early, None) if self._may_fill_up(session) else None
                with anyio.move_on_after(self._next_in() if soon is None else soon):
                    await self._wanted.wait()
                    await anyio.sleep(DEBOUNCE)  # some servers tell of each tool that they add
                # Forgotten before the reading: a change that is told while it goes on may be missing in what it finds.
                self._wanted.clear()
                if kinds := set(announced(session)).difference(self._gaps()):
                    await self._read_again(session, sorted(kinds, key=tuple(Kind).index))

    async def _fill_gaps(self, session: ServerSession, wanted: asyncio.Event) -> None:
        """Read again, ever less often, the lists that could not be read, until there are none or the session ends.

        They have a task of their own, so that one that hangs delays no change of the others.
        """
        tries = 0
        with contextlib.suppress(Lost):
            while before := self._gaps():
                with anyio.move_on_after(self._gap_pause(tries)):
                    await wanted.wait()
                    await anyio.sleep(DEBOUNCE)
                wanted.clear()
                await self._read_again(session, before)
                tries = tries + 1 if self._gaps() == before else 0
        self._gaps_wanted = None

    def _gap_pause(self, tries: int) -> float:
        interval = self._owner.spread(self._owner.config.refresh_interval, REFRESH_SPREAD)
        return min(GAP_PAUSES[tries], interval) if tries < len(GAP_PAUSES) else interval

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

    async def _subscribe(self, session: ServerSession) -> None:
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
