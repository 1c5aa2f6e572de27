"""The names of what servers offer: who claims a name, who has it, and under which name each thing is listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from .catalog.catalog import Catalog, Item, Kind
from .uri import namespaced

CALLED_BY_NAME = (Kind.TOOL, Kind.PROMPT)
"""The kinds that clients call by a name of their own; the others are read by URI."""


@dataclass(frozen=True)
class Naming:
    """How tools and prompts are named.

    `bare`: the owner of a name is listed under it alone, and everything is callable under its qualified name too.
    `qualified`: there are qualified names only; a bare one does not route.
    """

    style: Literal["bare", "qualified"] = "bare"
    separator: str = "__"
    collisions: Literal["first", "last"] = "first"
    """Which claimant of a bare name owns it, in config order."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one configured server offers. The supervisor makes one for each server and snapshot.

    `prefix`: what stands for the server in qualified names.
    """

    server: str
    prefix: str
    catalog: Catalog
    has_resources: bool
    away: str | None = None
    """The server's state if calls cannot be forwarded to it at present."""


class Route(msgspec.Struct, frozen=True, gc=False):
    """The server that a name or URI means, and its own name for it.

    `namespace`: how the client spelled the server, where it wrote `server:uri`; else "".

    One is made for every item at every build, so it is a msgspec struct: that costs a fifth of a dataclass.
    """

    server: str
    name: str
    namespace: str = ""
    is_guess: bool = False
    """Whether no server lists the URI: this one is asked as the only one that has resources."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One row of a list: an item, and the name under which clients see it."""

    name: str
    server: str
    item: Item


@dataclass(frozen=True, slots=True)
class Collision:
    """One name that several servers claim. `shadowed` are those that do not get it, in config order."""

    kind: Kind
    name: str
    owner: str
    shadowed: tuple[str, ...]


class Names:
    """The names of one kind, made while an index is built: which servers claim a name, and which one has it.

    Everything has a qualified name, `server:uri` for resources and templates; tools and prompts have a bare one too.
    """

    def __init__(self, kind: Kind, offers: Sequence[Offer], naming: Naming, schemes: Mapping[str, str]) -> None:
        called = kind in CALLED_BY_NAME
        self._kind = kind
        self._bare = called and naming.style == "bare"
        self._claims = [
            (offer.prefix + naming.separator if called else namespaced(schemes[offer.server], ""), offer)
            for offer in offers
        ]
        self.routes = self._give(last_wins=naming.collisions == "last")

    def _give(self, *, last_wins: bool) -> dict[str, Route]:
        """Every name that can be called. Qualified names are given first, so that no bare name can take one away."""
        names: dict[str, Route] = {}
        by_uri = self._kind not in CALLED_BY_NAME
        claims = []
        for qualifier, offer in self._claims:
            namespace = qualifier[:-1] if by_uri else ""
            routes = [Route(offer.server, item.name, namespace) for item in offer.catalog.items[self._kind]]
            claims.append((qualifier, routes))
        for qualifier, routes in claims:
            for route in routes:
                names.setdefault(qualifier + route.name, route)
        if self._bare:
            # The first to be asked here gets a name and keeps it, whatever order the servers connected in.
            for _, routes in reversed(claims) if last_wins else claims:
                for route in routes:
                    names.setdefault(route.name, route)
        return names

    def listed(self) -> Iterator[Listed]:
        """Each item under its bare name if it owns that, else its qualified one. One that owns neither is left out."""
        for qualifier, offer in self._claims:
            for item in offer.catalog.items[self._kind]:
                if self._bare and _means(self.routes[item.name], offer, item):
                    yield Listed(item.name, offer.server, item)
                elif _means(self.routes[qualified := qualifier + item.name], offer, item):
                    yield Listed(qualified, offer.server, item)

    def collisions(self) -> Iterator[Collision]:
        """Every name that several servers claim."""
        shadowed: dict[str, dict[str, None]] = {}
        for qualifier, offer in self._claims:
            for item in offer.catalog.items[self._kind]:
                for name in (item.name, qualifier + item.name) if self._bare else (qualifier + item.name,):
                    # A server that claims a name twice, bare and qualified, is in no collision with itself.
                    if self.routes[name].server != offer.server:
                        shadowed.setdefault(name, {})[offer.server] = None
        for name, servers in shadowed.items():
            yield Collision(self._kind, name, self.routes[name].server, tuple(servers))


def _means(route: Route, offer: Offer, item: Item) -> bool:
    return route.name == item.name and route.server == offer.server
