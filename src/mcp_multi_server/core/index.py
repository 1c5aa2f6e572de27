"""All catalogs merged: which server a name or URI means, and the lists as clients see them.

An index is immutable. It is built whenever a catalog, a server's state or the config changes, so building does only
what calls need; lists, collisions and the tables for bare URIs are made when first asked for and kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .catalog.catalog import Kind
from .jsonrpc import Raw, encode, is_object, members
from .names import CALLED_BY_NAME, Collision, Listed, Names, Naming, Offer, Route
from .protocol import Era
from .uri import Namespaces, Template, namespaced

SERVER_KEY = "serverName"
"""The `_meta` member of a listed item that names its server."""
NAME_KEY = "mcp-multi-server/name"
"""The `_meta` member of a tool or prompt that is listed under its qualified name: the server's own name for it."""
STATE_KEY = "mcp-multi-server/state"
"""The `_meta` member of a listed item whose server is away."""
LONGEST_NAME = 64
"""Characters of a tool's name that LLM APIs take."""
LENGTH_SHOWN = 200
CANDIDATES_SHOWN = 8
"""Characters that a message quotes of a name or URI, and servers or URIs that it suggests."""

_ACCEPTED = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class RefusedName:
    """A listed tool or prompt whose name LLM APIs refuse."""

    kind: Kind
    server: str
    name: str
    problem: str


class Unroutable(Exception):
    """Raised if a name or URI means no server, or several. The message says what can be asked for instead."""

    def __init__(self, message: str, *, is_offered: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.is_offered = is_offered
        """Whether servers offer it, and too many of them."""


class Index:
    """What every name and URI means. It is built for each snapshot and never changed."""

    def __init__(self, offers: tuple[Offer, ...], names: Mapping[Kind, Names], namespaces: Namespaces) -> None:
        self._offers = offers
        self._names = names
        self._namespaces = namespaces
        # Each call looks into one of these.
        self._tools, self._prompts = names[Kind.TOOL].routes, names[Kind.PROMPT].routes
        self._resources, self._templates = names[Kind.RESOURCE].routes, names[Kind.TEMPLATE].routes
        self._listed: dict[Kind, tuple[Listed, ...]] = {}
        self._listings: dict[tuple[Kind, Era], bytes] = {}

    @classmethod
    def build(cls, offers: Sequence[Offer], naming: Naming) -> Index:
        """The index of `offers`, which stand in config order."""
        namespaces = Namespaces([offer.server for offer in offers])
        return cls(tuple(offers), {kind: Names(kind, offers, naming, namespaces.schemes) for kind in Kind}, namespaces)

    def __repr__(self) -> str:
        counts = ", ".join(f"{sum(offer.catalog.count(kind) for offer in self._offers)} {kind}s" for kind in Kind)
        return f"<Index of {len(self._offers)} servers: {counts}>"

    def tool(self, name: str) -> Route | None:
        """Where a call of the tool goes; None if no server offers it."""
        return self._tools.get(name)

    def prompt(self, name: str) -> Route | None:
        """Where a request for the prompt goes; None if no server offers it."""
        return self._prompts.get(name)

    def resource(self, uri: str) -> Route:
        """Where a read of `uri` goes.

        `server:uri` names the server, whether it lists the URI or not. A bare URI means the one server that lists it,
        else the one with a template for it, else the one that has resources at all.

        Raises:
            Unroutable: where that is no server, or several.

        """
        # Listed names come first, so that each of them means the item that is listed under it.
        named = self._resources.get(uri) or self._namespaced(uri)
        if named is not None:
            return named
        servers = self._claimants[Kind.RESOURCE].get(uri) or self._matching(uri)
        # A server need not list all that it has, so the only one with resources is worth asking.
        if not servers and len(self._with_resources) == 1:
            return Route(self._with_resources[0], uri, is_guess=True)
        return self._only(uri, servers)

    def completion(self, ref_type: str, name: str) -> Route:
        """Where a completion goes: `ref/prompt` by the prompt's name, `ref/resource` by the template or a URI.

        Raises:
            Unroutable: where that is no server, or several.

        """
        if ref_type == "ref/resource":
            return self._template(name)
        if ref_type != "ref/prompt":
            raise Unroutable(f"a reference is of type ref/prompt or ref/resource, not {_shown(ref_type)}")
        route = self.prompt(name)
        if route is None:
            raise Unroutable(f"no server offers the prompt {_shown(name)}")
        return route

    def namespaced(self, server: str, uri: str) -> str:
        """A server's own URI as clients see it."""
        # One that a config has just removed may still write links.
        return namespaced(self._namespaces.schemes.get(server, server), uri)

    def offers(self, server: str, uri: str) -> bool:
        """Whether the server lists `uri`, or it matches one of the server's templates."""
        route = self._resources.get(self.namespaced(server, uri))
        if route is not None and (route.server, route.name) == (server, uri):
            return True
        return any(template.matches(uri) for template in self._templates_of.get(server, ()))

    def routes_back(self, uri: str, server: str) -> bool:
        """Whether a client that asks for `uri`, as `server` wrote it, is led to that server."""
        try:
            route = self.resource(uri)
        except Unroutable:
            return False
        return route.server == server and route.name == uri

    def listed(self, kind: Kind) -> tuple[Listed, ...]:
        """Everything of a kind that clients see, in config order, each name once."""
        if kind not in self._listed:
            self._listed[kind] = tuple(self._names[kind].listed())
        return self._listed[kind]

    def listing(self, kind: Kind, era: Era = Era.LEGACY) -> bytes:
        """The JSON array of a kind, as clients see it; an item whose server is away says so in its `_meta`."""
        # Mostly there is one form for both eras, which is then made and kept once.
        key = (kind, era if any(entry.item.legacy is not None for entry in self.listed(kind)) else Era.MODERN)
        if key not in self._listings:
            away = {offer.server: offer.away for offer in self._offers}
            shown = [_fragment(kind, entry, away[entry.server], key[1]) for entry in self.listed(kind)]
            self._listings[key] = b"[%b]" % b",".join(shown)
        return self._listings[key]

    @cached_property
    def collisions(self) -> tuple[Collision, ...]:
        """Every name that several servers claim."""
        return tuple(found for names in self._names.values() for found in names.collisions())

    @cached_property
    def refused(self) -> tuple[RefusedName, ...]:
        """Every listed tool and prompt that LLM APIs refuse for its name."""
        return tuple(
            RefusedName(kind, entry.server, entry.name, problem)
            for kind in CALLED_BY_NAME
            for entry in self.listed(kind)
            if (problem := _refusal(entry.name))
        )

    @cached_property
    def _with_resources(self) -> tuple[str, ...]:
        return tuple(offer.server for offer in self._offers if offer.has_resources)

    @cached_property
    def _claimants(self) -> Mapping[Kind, Mapping[str, tuple[str, ...]]]:
        """For resources and for templates: the servers that list each bare URI."""
        return {kind: _claimants(kind, self._offers) for kind in (Kind.RESOURCE, Kind.TEMPLATE)}

    @cached_property
    def _patterns(self) -> tuple[tuple[str, Template], ...]:
        """Every template, with its server."""
        return tuple((o.server, Template(item.name)) for o in self._offers for item in o.catalog.items[Kind.TEMPLATE])

    @cached_property
    def _templates_of(self) -> Mapping[str, tuple[Template, ...]]:
        """The templates of each server that has any."""
        found: dict[str, tuple[Template, ...]] = {}
        for server, template in self._patterns:
            found[server] = (*found.get(server, ()), template)
        return found

    def _namespaced(self, uri: str) -> Route | None:
        found = self._namespaces.split(uri)
        return Route(*found) if found else None

    def _template(self, name: str) -> Route:
        named = self._templates.get(name) or self._namespaced(name)
        if named is not None:
            return named
        servers = self._claimants[Kind.TEMPLATE].get(name)
        # A client may complete a URI that it has filled in, too.
        return self._only(name, servers) if servers else self.resource(name)

    def _matching(self, uri: str) -> tuple[str, ...]:
        # A server with two templates that match is still one server.
        return tuple(dict.fromkeys(server for server, template in self._patterns if template.matches(uri)))

    def _only(self, uri: str, servers: tuple[str, ...]) -> Route:
        if len(servers) == 1:
            return Route(servers[0], uri)
        if not servers:
            raise Unroutable(f"no server offers {_shown(uri)}{_advice(self._with_resources)}")
        candidates = tuple(self.namespaced(server, uri) for server in servers)
        several = f"several servers offer {_shown(uri)}; ask for one of {_enumerated(candidates)}"
        raise Unroutable(several, is_offered=True)


def changed_kinds(old: Index, new: Index) -> frozenset[Kind]:
    """The kinds whose lists differ for clients. It is no difference that a server went away or came back."""
    return frozenset(kind for kind in Kind if not _look_alike(old.listed(kind), new.listed(kind)))


def _look_alike(old: tuple[Listed, ...], new: tuple[Listed, ...]) -> bool:
    if len(old) != len(new):
        return False
    return all(
        a.name == b.name and a.server == b.server and a.item.raw == b.item.raw for a, b in zip(old, new, strict=True)
    )


def _claimants(kind: Kind, offers: Iterable[Offer]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for offer in offers:
        for item in offer.catalog.items[kind]:
            found[item.name] = (*found.get(item.name, ()), offer.server)
    return found


def _fragment(kind: Kind, entry: Listed, away: str | None, era: Era) -> bytes:
    """The item under its listed name, with its server's name in `_meta`; all else stays the bytes it came as."""
    marks = {SERVER_KEY: Raw(encode(entry.server))} | ({STATE_KEY: Raw(encode(away))} if away is not None else {})
    raw = entry.item.raw if era is Era.MODERN or entry.item.legacy is None else entry.item.legacy
    if kind in CALLED_BY_NAME and entry.name != entry.item.name:
        marks[NAME_KEY] = Raw(encode(entry.item.name))
    # The usual case: nothing is decoded, and `_meta` is put before the closing brace.
    if entry.name == entry.item.name and b'"_meta"' not in raw:
        return b'%b,"_meta":%b}' % (raw[:-1], encode(marks))
    body = members(raw)
    body[kind.key] = Raw(encode(entry.name))
    meta = body.get("_meta")
    body["_meta"] = Raw(encode((members(meta) if meta is not None and is_object(meta) else {}) | marks))
    return encode(body)


def _refusal(name: str) -> str | None:
    if len(name) > LONGEST_NAME:
        return f"{len(name)} characters long; LLM APIs take {LONGEST_NAME}"
    if not _ACCEPTED.fullmatch(name):
        return "has characters outside A-Z a-z 0-9 _ -, which LLM APIs refuse"
    return None


def _shown(text: str) -> str:
    """A text of a client or server for an error message: short, and on one line."""
    return repr(text if len(text) <= LENGTH_SHOWN else f"{text[:LENGTH_SHOWN]}…")


def _enumerated(names: Sequence[str]) -> str:
    shown = [_shown(name) for name in names[:CANDIDATES_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _advice(servers: Sequence[str]) -> str:
    return f"; to ask a server all the same, write server:uri with one of {_enumerated(servers)}" if servers else ""
