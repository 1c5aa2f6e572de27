"""The last good catalogs as the bytes of a file, from which a daemon that starts can answer lists at once.

The file is a line with the format's version, the SHA-256 of the rest, and the rest: one record for each server, in
MessagePack, with each item as the bytes that it came as. Of a server's entry it has only a hash: entries hold secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from ..config.config import ServerConfig
from ..config.plan import DEFINES_THE_SERVER
from ..jsonrpc import decoder, encode, value
from ..protocol import LEGACY_VERSIONS, MODERN_VERSION, Era, Negotiated
from .catalog import Catalog, CatalogList, Item, Kind, read_item

MAX_BYTES = 64 << 20
"""The most that the file may have."""
TITLE = b"mcp-multi-server catalogs "
HEAD = TITLE + b"2\n"
_DIGEST_BYTES = 32
_RECORD_OVERHEAD = 9
"""Bytes that a name and a record cost at most, each, beyond themselves."""


class Unusable(Exception):
    """The bytes are no usable file of catalogs. The message says why; it does not name the file."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is kept of one server since its lists were last read. Two are equal if clients would be shown the same."""

    fingerprint: str
    """Of the entry that defined the server. If the entry is another one now, the catalog is not used."""
    negotiated: Negotiated
    catalog: Catalog
    refreshed_at: float = field(compare=False)
    """Seconds since 1970."""


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One server in the file. `capabilities` is JSON: MessagePack has no integers beyond 64 bits."""

    fingerprint: str
    era: Era
    version: str
    capabilities: bytes
    instructions: str
    refreshed_at: float
    items: dict[Kind, list[bytes]]


_decode_file = decoder(dict[str, msgspec.Raw], msgspec.msgpack)
_decode_record = decoder(_Record, msgspec.msgpack)
_pack = msgspec.msgpack.Encoder().encode


def fingerprint(server: ServerConfig) -> str:
    """A hash of the settings that define a server; the settings cannot be read from it."""
    defining = server.model_dump(mode="json", by_alias=False, include=set(DEFINES_THE_SERVER))
    return sha256(msgspec.json.encode(defining, order="sorted")).hexdigest()


def dump(servers: Mapping[str, Remembered], cap: int = MAX_BYTES) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of the file, and the names of the servers that did not fit: the largest are left out first."""
    records = {name: record for name, known in servers.items() if (record := _packed(known)) is not None}
    room = cap - len(HEAD) - _DIGEST_BYTES - _RECORD_OVERHEAD
    kept: dict[str, msgspec.Raw] = {}
    for name in sorted(records, key=lambda name: len(records[name])):
        room -= len(name.encode()) + len(records[name]) + _RECORD_OVERHEAD
        if room < 0:  # they are in order of size: none of the others fits either
            break
        kept[name] = msgspec.Raw(records[name])
    body = _pack(kept)
    return b"".join((HEAD, sha256(body).digest(), body)), tuple(name for name in servers if name not in kept)


def load(data: bytes) -> dict[str, Remembered]:
    """What is in the bytes of a file. A server whose record cannot be used is left out.

    Raises:
        Unusable: the file is damaged, or of another version.

    """
    if not data.startswith(HEAD):
        raise Unusable("it is of another version" if data.startswith(TITLE) else "it is no file of catalogs")
    body = memoryview(data)[len(HEAD) + _DIGEST_BYTES :]
    if sha256(body).digest() != data[len(HEAD) : len(HEAD) + _DIGEST_BYTES]:
        raise Unusable("it is damaged")
    try:
        return dict(_usable(_decode_file(body)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unusable("it is damaged") from None


def _packed(known: Remembered) -> bytes | None:
    """The record; None where the server's capabilities are nested too deeply to be written."""
    negotiated, catalog = known.negotiated, known.catalog
    try:
        capabilities = encode(negotiated.capabilities)
    except RecursionError:
        return None
    return _pack(
        _Record(
            fingerprint=known.fingerprint,
            era=negotiated.era,
            version=negotiated.version,
            capabilities=capabilities,
            instructions=negotiated.instructions,
            refreshed_at=known.refreshed_at,
            items={kind: [item.raw for item in items] for kind, items in catalog.items.items()},
        )
    )


def _usable(records: Mapping[str, msgspec.Raw]) -> Iterator[tuple[str, Remembered]]:
    for name, raw in records.items():
        try:
            yield name, _remembered(_decode_record(raw))
        except ValueError:  # msgspec's and Unicode's errors are ValueErrors
            continue


def _remembered(record: _Record) -> Remembered:
    """What a record says. Raises ValueError if `dump` would not have written it."""
    capabilities = value(record.capabilities)
    if not isinstance(capabilities, dict) or not 0 <= record.refreshed_at < float("inf"):
        raise ValueError
    if record.version not in ((MODERN_VERSION,) if record.era is Era.MODERN else LEGACY_VERSIONS):
        raise ValueError
    return Remembered(
        fingerprint=record.fingerprint,
        negotiated=Negotiated(record.era, record.version, capabilities, record.instructions),
        catalog=_catalog(record),
        refreshed_at=record.refreshed_at,
    )


def _catalog(record: _Record) -> Catalog:
    lists: dict[Kind, CatalogList] = {}
    for kind in Kind:
        named = {item.name: item for raw in record.items.get(kind, ()) if (item := _item(kind, raw)) is not None}
        lists[kind] = CatalogList(tuple(named.values()))
    return Catalog(lists)


def _item(kind: Kind, raw: bytes) -> Item | None:
    """The item; None if it has no name. Raises ValueError if it is not UTF-8."""
    # msgspec does not check the UTF-8 of what stays undecoded.
    if not raw.isascii():
        raw.decode()
    return read_item(kind, raw, [])  # what was wrong is told when the list is read
