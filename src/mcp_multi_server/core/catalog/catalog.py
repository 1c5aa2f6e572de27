"""What one server offers: its tools, prompts, resources and resource templates, each kept as the bytes it came as."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from ..jsonrpc import Buffer, Members, Raw, decoder, members, text
from ..protocol import Era
from . import item_shapes, mending
from .item_shapes import Look
from .mending import Mend, Unmendable
from .problems import Finding, ListProblem, problems_of

DEEPEST = 128
"""Levels that an item may be nested; parsers of clients give up at 200, and with the item's go everybody's lists."""
LONGEST_NUMBER = 4300
"""Digits of a number that parsers of clients read, likewise."""


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
    """One tool, prompt, resource or template. `name`: the value of its kind's key.

    `raw`: its JSON as it was sent, unless it had to be mended. `legacy`: its JSON for legacy clients, where that is
    another. One is made for every item of every list, so it is a msgspec struct: that costs a fifth of a dataclass.
    """

    name: str
    raw: bytes
    legacy: bytes | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """One list result. `cursor` asks for the next page, and can be ""; None: this is the last page."""

    items: tuple[Item, ...]
    cursor: str | None = None
    ttl: float | None = None
    findings: tuple[Finding, ...] = ()
    """What was found wrong with it: items that were left out or mended, and whatever else."""


_decode_list = decoder(list[Raw])
_decode_number = decoder(float)
_looks: Mapping[Kind, Look] = {
    Kind.TOOL: item_shapes.look_at_tool,
    Kind.PROMPT: item_shapes.look_at_prompt,
    Kind.RESOURCE: item_shapes.look_at_resource,
    Kind.TEMPLATE: item_shapes.look_at_template,
}
"""The quick looks at an item, which nearly every one passes."""
_shapes: Mapping[Kind, Mapping[str, Mend]] = {
    Kind.TOOL: mending.TOOL,
    Kind.PROMPT: mending.PROMPT,
    Kind.RESOURCE: mending.RESOURCE,
    Kind.TEMPLATE: mending.TEMPLATE,
}
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)  # runs of plain characters are taken at once
_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * (LONGEST_NUMBER + 1)
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_page(
    kind: Kind, result: Buffer, *, era: Era = Era.LEGACY, known: Mapping[bytes, Item] = MappingProxyType({})
) -> ListPage:
    """The page in a list result, of a server of this era. Items that clients could not read are mended or left out.

    `known`: items that are right as they are, by their JSON; nearly all that is read again is known.

    Raises:
        CatalogError: where the result is no object, or its list no list.

    """
    findings: list[Finding] = []
    try:
        raws, cursor, ttl_ms = _whole_pages[kind](result)
    except (msgspec.DecodeError, RecursionError):
        raws, cursor, ttl_ms = _odd_page(kind, result, findings)
    # A copy of each: `raw` is a view into the page and would keep all of it in memory.
    items = [
        item for raw in map(bytes, raws) if (item := known.get(raw) or read_item(kind, raw, findings, era)) is not None
    ]
    return ListPage(tuple(items), _cursor(cursor, findings), _ttl(ttl_ms), findings=tuple(findings))


Page: TypeAlias = tuple[list[Raw], Raw | None, Raw | None]
"""The items of a page, its cursor and its time to live."""


def _whole_page(kind: Kind) -> Callable[[Buffer], Page]:
    """Makes what decodes a page of a kind in one pass; it raises as msgspec does."""
    rest: list[tuple[str, Any, Any]] = [("nextCursor", Raw | None, None), ("ttlMs", Raw | None, None)]
    decode = msgspec.json.Decoder(msgspec.defstruct(kind.name, [(kind.member, list[Raw]), *rest], gc=False)).decode
    parts = attrgetter(kind.member, "nextCursor", "ttlMs")
    return lambda result: parts(decode(result))


_whole_pages = {kind: _whole_page(kind) for kind in Kind}


def _odd_page(kind: Kind, result: Buffer, findings: list[Finding]) -> Page:
    """A page whose list is null; raises CatalogError for any other that cannot be decoded as a whole."""
    try:
        body = members(result)
    except msgspec.DecodeError:
        raise CatalogError(f"the result of {kind.list_method} is no object") from None
    return _list(kind, body, findings), body.get("nextCursor"), body.get("ttlMs")


def _list(kind: Kind, body: Members, findings: list[Finding]) -> list[Raw]:
    raw = body.get(kind.member)
    if raw is None:
        raise CatalogError(f"the result of {kind.list_method} has no {kind.member}")
    if bytes(raw) == b"null":  # as some languages write a list that is empty
        findings.append(Finding(None, "null instead of a list: taken for an empty one"))
        return []
    try:
        found: list[Raw] = _decode_list(raw)
    except msgspec.DecodeError:
        raise CatalogError(f"{kind.member} in the result of {kind.list_method} is no list") from None
    return found


def read_item(kind: Kind, raw: bytes, findings: list[Finding], era: Era = Era.LEGACY) -> Item | None:
    """The item in its JSON, mended where it has to be; None where it cannot be listed. `findings` get the reasons."""
    # Counted, since that is quick, and an item with so few brackets cannot be nested too deeply.
    if raw.count(b"{") + raw.count(b"[") <= DEEPEST and not _has_long_number(raw):
        try:
            return Item(_looks[kind](raw), raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return _read_with_care(kind, raw, findings, era)


def _read_with_care(kind: Kind, raw: bytes, findings: list[Finding], era: Era) -> Item | None:
    """What `read_item` does with an item that is not plainly right."""
    try:
        if why := _unreadable(raw):
            raise Unmendable(why)
        found = mending.mended(raw, kind.key, _shapes[kind])
    except msgspec.DecodeError:  # nothing that came in a message; what was read from a file may be
        findings.append(Finding(None, "it is no JSON", left_out=True))
        return None
    except Unmendable as lost:
        findings.append(Finding(lost.name, lost.why, left_out=True))
        return None
    notes = found.notes + (found.legacy_notes if era is Era.LEGACY else ())
    findings.extend(Finding(found.name, note) for note in notes)
    return Item(found.name, found.raw, found.legacy)


def _unreadable(raw: bytes) -> str:
    """Why the parsers of clients cannot read valid JSON; "" where they can."""
    bare = _STRING.sub(b"", raw)
    if _depth(bare) > DEEPEST:
        return f"it is nested more than {DEEPEST} levels deep"
    if _has_long_number(bare):
        return f"it has a number of more than {LONGEST_NUMBER} digits"
    return ""


def _has_long_number(raw: bytes) -> bool:
    return len(raw) > LONGEST_NUMBER and _LONG_NUMBER in raw.translate(_DIGITS_AS_0)


def _depth(bare: bytes) -> int:
    """How deep JSON is nested whose strings were taken out."""
    depth = deepest = 0
    for bracket in bare.translate(None, _BUT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _cursor(raw: Raw | None, findings: list[Finding]) -> str | None:
    if raw is None or bytes(raw) == b"null":  # null is not in the schema, but it can only mean the last page
        return None
    cursor = text(raw)
    if cursor is None:
        findings.append(Finding(None, "nextCursor is no string: what comes after this page cannot be asked for"))
    return cursor


def _ttl(raw: Raw | None) -> float | None:
    """Seconds from `ttlMs`; a value that is no number, or is negative, counts as none."""
    try:
        ttl_ms = -1 if raw is None else _decode_number(raw)
    except msgspec.DecodeError:
        return None
    return ttl_ms / 1000 if ttl_ms >= 0 else None


@dataclass(frozen=True, slots=True)
class CatalogList:
    """One list of a server's as it was read; the names in it are unique. `CatalogList.of` makes it.

    Two are equal if clients would be shown the same.
    """

    items: tuple[Item, ...] = ()
    ttl: float | None = field(default=None, compare=False)
    """Seconds for which the page with the shortest life is valid; None if no page says."""
    problems: tuple[ListProblem, ...] = field(default=(), compare=False)
    faults: int = field(default=0, compare=False)
    """Items that were left out, and members that were mended: what `problems` sums up."""
    gap: str = field(default="", compare=False)
    """Why it could not be read to its end; "" if it could."""
    is_kept: bool = field(default=False, compare=False)
    """Whether its items are from an earlier reading, as the last one could not be ended."""

    def known(self) -> Mapping[bytes, Item]:
        """The items that need no second look where they are read again; one with a legacy form has to be told of."""
        return {item.raw: item for item in self.items if item.legacy is None}

    @classmethod
    def of(cls, kind: Kind, pages: Iterable[ListPage], *, note: str = "", gap: str = "") -> CatalogList:
        """The list in these pages; of two items with one name the first stays. `note`: what else is wrong with it."""
        pages = tuple(pages)
        items, repeated = _unique(item for page in pages for item in page.items)
        findings = [finding for page in pages for finding in page.findings]
        findings += [Finding(name, f"its {kind.key} is that of an earlier one", left_out=True) for name in repeated]
        findings += [Finding(None, note)] if note else []
        return cls(
            items=items,
            ttl=min((page.ttl for page in pages if page.ttl is not None), default=None),
            problems=problems_of(kind.member, findings),
            faults=len(findings),
            gap=gap,
        )

    def after(self, before: CatalogList) -> CatalogList:
        """What is offered of the list from now on: a list that was whole outlives a reading that was not."""
        is_better = not before.gap or before.is_kept or not self.items
        if not self.gap or not before.items or not is_better:
            return self
        return replace(before, gap=self.gap, is_kept=True)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that one server offers. Two are equal if clients would be shown the same."""

    lists: Mapping[Kind, CatalogList] = field(default_factory=lambda: dict.fromkeys(Kind, CatalogList()))
    """Every kind is a key."""

    @classmethod
    def of(cls, pages: Mapping[Kind, Iterable[ListPage]]) -> Catalog:
        """The catalog in the pages of each kind."""
        return cls({kind: CatalogList.of(kind, pages.get(kind, ())) for kind in Kind})

    @property
    def items(self) -> Mapping[Kind, tuple[Item, ...]]:
        """What it holds of each kind."""
        return {kind: each.items for kind, each in self.lists.items()}

    @property
    def ttl(self) -> float | None:
        """Seconds for which all of it is valid; None if no page of a list that could be read says."""
        return min((each.ttl for each in self.lists.values() if each.ttl is not None and not each.gap), default=None)

    @property
    def gaps(self) -> tuple[Kind, ...]:
        """The lists that could not be read to their end the last time."""
        return tuple(kind for kind, each in self.lists.items() if each.gap)

    @property
    def kept(self) -> str:
        """Why lists are from an earlier reading; "" if none is."""
        return "; ".join(each.gap for each in self.lists.values() if each.is_kept)

    @property
    def problems(self) -> tuple[ListProblem, ...]:
        """What is wrong with what is offered now; lists that are kept from before do not count for that."""
        return tuple(_problems(self.lists, lambda each: bool(each.gap) and not each.is_kept))

    @property
    def all_problems(self) -> tuple[ListProblem, ...]:
        """What is wrong with any of its lists."""
        return tuple(_problems(self.lists, lambda each: bool(each.gap)))

    def count(self, kind: Kind) -> int:
        """How many of a kind it holds."""
        return len(self.lists[kind].items)

    def faults(self, kind: Kind) -> int:
        """How much is wrong with a list."""
        return self.lists[kind].faults + bool(self.lists[kind].gap)

    def updated(self, lists: Mapping[Kind, CatalogList]) -> Catalog:
        """The catalog after these lists were read, or could not be."""
        return Catalog({kind: lists[kind].after(each) if kind in lists else each for kind, each in self.lists.items()})

    def filtered(self, include: Sequence[str] | None, exclude: Sequence[str]) -> Catalog:
        """The catalog with only the items that its entry's globs let pass.

        The globs are case-sensitive and match names of tools and prompts, and URIs of resources and templates.
        `include` None lets everything pass; `exclude` wins over `include`.
        """
        if include is None and not exclude:
            return self

        def passes(item: Item) -> bool:
            return (include is None or _meets(item, include)) and not _meets(item, exclude)

        return Catalog(
            {kind: replace(each, items=tuple(filter(passes, each.items))) for kind, each in self.lists.items()}
        )


def _problems(lists: Mapping[Kind, CatalogList], tells_gap: Callable[[CatalogList], bool]) -> Iterable[ListProblem]:
    for kind, each in lists.items():
        if tells_gap(each):
            yield ListProblem(kind.member, None, each.gap)
        yield from each.problems


def _meets(item: Item, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(item.name, glob) for glob in globs)


def _unique(items: Iterable[Item]) -> tuple[tuple[Item, ...], list[str]]:
    first: dict[str, Item] = {}
    repeated: list[str] = []
    for item in items:
        if item.name in first:
            repeated.append(item.name)
        else:
            first[item.name] = item
    return tuple(first.values()), repeated
