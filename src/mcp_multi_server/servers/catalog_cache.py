"""What the daemon remembers of its servers' catalogs over a restart: a file that is read once, then follows them."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread

from .. import files
from ..core.catalog.cache import MAX_BYTES, Remembered, Unusable, dump, fingerprint, load
from ..core.catalog.catalog import Kind
from ..core.config.config import Config
from ..core.events import DaemonWarning, InternalError, Observer
from ..core.lifecycle import ROUTED
from ..files import MissingFile, UnusableFile
from .clock import wall
from .server import Server
from .snapshot import Snapshot

DEBOUNCE = 1.0
"""Seconds that a change waits for others before the file is written."""
LAST_WRITE_WITHIN = 5.0
"""Seconds that a disk may keep the daemon from ending."""


class CatalogCache:
    """The catalogs of one config's servers in the file at `path`; whatever is wrong with it costs one warning."""

    def __init__(self, path: str, snapshot: Callable[[], Snapshot], *, tell: Observer) -> None:
        self._path = path
        self._snapshot = snapshot
        self._tell = tell
        self._known: dict[str, Remembered] = {}
        self._config: Config | None = None
        """The one that `_known` was last compared with."""
        self._changed = anyio.Event()
        self._writing = anyio.Lock()
        self._complaint = ""
        """Why the last write was not what it should be."""

    def read(self) -> None:
        """Take in what an earlier daemon wrote; before anything else is done, as it blocks."""
        try:
            self._known = load(read(self._path))
        except MissingFile:
            return
        except (UnusableFile, Unusable) as failure:
            self._tell(DaemonWarning("state", f"{self._path} is not used: {failure}"))

    def offer_to(self, server: Server) -> None:
        """Let a server that has nothing to offer yet offer what it did when it was last read under this very entry."""
        known = self._known.get(server.name)
        if known is not None and server.catalog is None and known.fingerprint == fingerprint(server.config):
            age = max(0.0, time.time() - known.refreshed_at)
            server.offer_remembered(known.negotiated, known.catalog, age=age)

    def published(self, changed: frozenset[Kind], server: Server | None) -> None:
        """Keep what a new snapshot offers; a `SnapshotListener`."""
        snapshot = self._snapshot()
        if snapshot.config is not self._config:
            self._config = snapshot.config
            self._forget_others(snapshot.config)
        for each in snapshot.servers.values() if server is None else (server,):
            self._note(each)

    async def run(self) -> None:
        """Write what changed, until cancelled."""
        while True:
            await self._changed.wait()
            await anyio.sleep(DEBOUNCE)
            await self._write()

    async def close(self) -> None:
        """Write it a last time, while the servers still run: when a list was last read changes without a word."""
        for server in self._snapshot().servers.values():
            self._note(server)
        if self._known or self._changed.is_set():
            with anyio.move_on_after(LAST_WRITE_WITHIN):
                await self._write()

    def _note(self, server: Server) -> None:
        """Keep what the server has been read to offer; before it was ready, that is what somebody else did."""
        catalog, negotiated, refreshed_at = server.catalog, server.negotiated, server.refreshed_at
        if server.status.state not in ROUTED or catalog is None or negotiated is None or refreshed_at is None:
            return
        found = Remembered(fingerprint(server.config), negotiated, catalog, wall(refreshed_at))
        if self._known.get(server.name) != found:
            self._changed.set()
        self._known[server.name] = found  # even an equal one, so that no catalog is held twice

    def _forget_others(self, config: Config) -> None:
        """Forget servers that are gone or became others; one that is disabled, or broken for now, may come back."""
        for name, known in list(self._known.items()):
            server = config.servers.get(name)
            is_other = server is not None and not server.disabled and fingerprint(server) != known.fingerprint
            if is_other or name not in config.order:
                del self._known[name]
                self._changed.set()

    async def _write(self) -> None:
        async with self._writing:
            self._changed = anyio.Event()
            try:
                complaint = await anyio.to_thread.run_sync(
                    _written, self._path, dict(self._known), abandon_on_cancel=True
                )
            except Exception:
                self._tell(InternalError("memory", traceback.format_exc()))
                return
            if complaint and complaint != self._complaint:
                self._tell(DaemonWarning("state", complaint))
            self._complaint = complaint


def _written(path: str, known: Mapping[str, Remembered]) -> str:
    """Write the file; what is wrong with the outcome, or ""."""
    data, left_out = dump(known)
    try:
        write(path, data)
    except OSError as failure:
        why = os.strerror(failure.errno or 0)
        return f"cannot write {path}: {why}; a daemon that starts next will not know these lists at once"
    if left_out:
        return f"{path} may have {MAX_BYTES >> 20} MiB and holds no catalog of {', '.join(left_out)}"
    return ""


def read(path: str) -> bytes:
    """The bytes of a file that nobody else can have written. Raises UnusableFile."""
    data, status = files.read(path, cap=MAX_BYTES, follow_links=False)
    files.check_writers(status)
    return data


def write(path: str, data: bytes) -> None:
    """Replace the file, which is for our user alone, as its directory is. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    files.replace(path, data, durable=True)
