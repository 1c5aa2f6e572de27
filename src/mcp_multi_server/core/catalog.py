"""What one server offers: its tools, prompts, resources and resource templates, each kept as the bytes it came as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from .jsonrpc import Buffer, Members, Raw, members, text

NAMES_SHOWN = 3
"""Names that one problem quotes, so that a server that repeats thousands still gets one line."""
NAME_LENGTH_SHOWN = 60


class Kind(StrEnum):
    """The four kinds of things that a server can list, with MCP's names for what belongs to them."""

    TOOL = "tool", "tools/list", "tools", "name", "tools"
    PROMPT = "prompt", "prompts/list", "prompts", "name", "prompts"
    RESOURCE = "resource", "resources/list", "resources", "uri", "resources"
    TEMPLATE = "template", "resources/templates/list", "resourceTemplates", "uriTemplate", "resources"

    list_method: str
    member: str
    """The member of the list's result that holds the items."""
    key: str
    """The member of an item that names it."""
    capability: str
    """The server capability without which the list does not exist."""
    list_changed: str
    """The notification that the list changed; resources and their templates share one."""
    subscription: str
    """The key of `subscriptions/listen` (2026-07-28) that asks for that notification."""

    def __new__(cls, value: str, *terms: str) -> Kind:
        """Make a kind from MCP's names; the notification and the subscription are named after the capability."""
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.list_method, kind.member, kind.key, kind.capability = terms
        kind.list_changed = f"notifications/{kind.capability}/list_changed"
        kind.subscription = f"{kind.capability}ListChanged"
        return kind


class CatalogError(Exception):
    """Raised if a list result cannot be read. What the server offered before stays."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One tool, prompt, resource or template. `name`: the value of its kind's key; `raw`: its JSON as it was sent.

    One is made for every item of every list, so it is a msgspec struct: that costs a fifth of a dataclass.
    """

    name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class ListPage:
    """One list result. `cursor` asks for the next page, and can be ""; None: this is the last page."""

    items: tuple[Item, ...]
    cursor: str | None = None
    ttl: float | None = None
    problems: tuple[str, ...] = ()


_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_number = msgspec.json.Decoder(float).decode


def read_page(kind: Kind, result: Buffer) -> ListPage:
    """The page in a list result; items without a usable name are left out and counted in its problems.

    Raises:
        CatalogError: where the result is no object, its list no list, or its cursor no string.

    """
    try:
        body = members(result)
    except msgspec.DecodeError:
        raise CatalogError(f"the result of {kind.list_method} is no object") from None
    raws = _list(kind, body)
    named = [item for raw in raws if (item := read_item(kind, raw)) is not None]
    problems = (_unnamed(kind, len(raws) - len(named)),) if len(named) < len(raws) else ()
    return ListPage(tuple(named), _cursor(kind, body), _ttl(body), problems=problems)


def _list(kind: Kind, body: Members) -> list[Raw]:
    try:
        return _decode_list(body[kind.member])
    except (KeyError, msgspec.DecodeError):
        raise CatalogError(f"{kind.member} in the result of {kind.list_method} is no list") from None


def read_item(kind: Kind, raw: Buffer) -> Item | None:
    """The item in its JSON; None where it has no usable name."""
    try:
        name = text(members(raw).get(kind.key))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # A copy: `raw` is a view into the page and would keep all of it in memory.
    return Item(name, bytes(raw)) if name else None


def _cursor(kind: Kind, body: Members) -> str | None:
    raw = body.get("nextCursor")
    if raw is None or bytes(raw) == b"null":  # null is not in the schema, but it can only mean the last page
        return None
    cursor = text(raw)
    if cursor is None:
        raise CatalogError(f"nextCursor in the result of {kind.list_method} is no string")
    return cursor


def _ttl(body: Members) -> float | None:
    """Seconds from `ttlMs`; a value that is no number, or is negative, counts as none."""
    try:
        ttl_ms = _decode_number(body["ttlMs"])
    except (KeyError, msgspec.DecodeError):
        return None
    return ttl_ms / 1000 if ttl_ms >= 0 else None


def _unnamed(kind: Kind, count: int) -> str:
    return f"{kind.member}: {count} left out, without a usable {kind.key}"


def _nothing() -> Mapping[Kind, tuple[Item, ...]]:
    return dict.fromkeys(Kind, ())


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that one server offers; `Catalog.of` makes it. Two are equal if clients would be shown the same."""

    items: Mapping[Kind, tuple[Item, ...]] = field(default_factory=_nothing)
    """Every kind is a key; the names of one kind are unique."""
    ttl: float | None = field(default=None, compare=False)
    """Seconds for which the page with the shortest life is valid; None if no page says."""
    problems: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, pages: Mapping[Kind, Iterable[ListPage]]) -> Catalog:
        """The catalog in the pages of each kind; of two items with one name the first stays."""
        read = {kind: tuple(pages.get(kind, ())) for kind in Kind}
        every = [page for of_kind in read.values() for page in of_kind]
        items, problems = dict(_nothing()), [problem for page in every for problem in page.problems]
        for kind, of_kind in read.items():
            items[kind], repeated = _unique(item for page in of_kind for item in page.items)
            if repeated:
                problems.append(_repeats(kind, repeated))
        return cls(
            items=items,
            ttl=min((page.ttl for page in every if page.ttl is not None), default=None),
            problems=tuple(problems),
        )

    def count(self, kind: Kind) -> int:
        """How many of a kind it holds."""
        return len(self.items[kind])

    def filtered(self, include: Sequence[str] | None, exclude: Sequence[str]) -> Catalog:
        """The catalog with only the items that its entry's globs let pass.

        The globs are case-sensitive and match names of tools and prompts, and URIs of resources and templates.
        `include` None lets everything pass; `exclude` wins over `include`.
        """
        if include is None and not exclude:
            return self

        def passes(item: Item) -> bool:
            return (include is None or _meets(item, include)) and not _meets(item, exclude)

        return replace(self, items={kind: tuple(filter(passes, items)) for kind, items in self.items.items()})


def _meets(item: Item, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(item.name, glob) for glob in globs)


def _unique(items: Iterable[Item]) -> tuple[tuple[Item, ...], list[str]]:
    first: dict[str, Item] = {}
    # `setdefault` returns the earlier item if there is one.
    repeated = [item.name for item in items if first.setdefault(item.name, item) is not item]
    return tuple(first.values()), repeated


def _repeats(kind: Kind, names: list[str]) -> str:
    shown = [repr(name[:NAME_LENGTH_SHOWN]) for name in list(dict.fromkeys(names))[:NAMES_SHOWN]]
    return f"{kind.member}: {len(names)} left out, as their {kind.key} is taken by an earlier one: {', '.join(shown)}"
