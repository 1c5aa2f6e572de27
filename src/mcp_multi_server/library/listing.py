"""What a fleet lists, as the models of `mcp_types`: everything, or server by server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import mcp_types as types
import msgspec
from pydantic import TypeAdapter, ValidationError

from ..core.catalog.catalog import Catalog, Kind
from ..core.index import NAME_KEY, SERVER_KEY, STATE_KEY
from ..core.lifecycle import ROUTED, State
from ..core.uri import namespaced
from .away import UNKNOWN, Away, status_now
from .capabilities import ServerCapabilities

MARKS = frozenset({SERVER_KEY, NAME_KEY, STATE_KEY})
"""What the fleet writes into the `_meta` of an item."""

_log = logging.getLogger("mcp_multi_server.client")
M = TypeVar("M", types.Tool, types.Prompt, types.Resource, types.ResourceTemplate)
N = TypeVar("N", types.Tool, types.Prompt)
R = TypeVar("R", types.Resource, types.ResourceTemplate)


class _Meta(msgspec.Struct):
    """What the fleet wrote into an item's `_meta`."""

    server: str = msgspec.field(name=SERVER_KEY, default="")
    own_name: object = msgspec.field(name=NAME_KEY, default=None)
    """The server's own name for it, where that is not its listed name. A server may write anything there."""


class _Named(msgspec.Struct):
    """A listed tool or prompt, as far as requests are concerned that name it."""

    name: str
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)

    @property
    def own_name(self) -> str:
        """The name that its server gives it."""
        return own if isinstance(own := self.meta.own_name, str) else self.name


_read_named = msgspec.json.Decoder(list[_Named]).decode


class _Items(Generic[M]):
    """The listed items of one kind."""

    def __init__(
        self, model: type[M], every: TypeAdapter[list[M]], kind: Kind, catalog: Catalog, state: str | None
    ) -> None:
        self._model: type[M] = model
        self._every: TypeAdapter[list[M]] = every
        self._raws = [item.raw for item in catalog.items[kind]]
        self._state = state
        self._left_out: set[bytes] = set()

    def models(self) -> list[M]:
        """The items as models that are made anew each time, so that the caller may change them.

        To read them from the bytes takes half the time of a deep copy, and nothing is kept that most programs never ask
        for twice.
        """
        found = self._read()
        for item in found if self._state is not None else ():
            item.meta = {**(item.meta or {}), STATE_KEY: self._state}
        return found

    def _read(self) -> list[M]:
        try:
            return self._every.validate_json(_array(self._raws))
        except ValidationError:
            # Only now one by one, which takes several times as long.
            return [item for raw in self._raws if (item := self._model_of(raw)) is not None]

    def by_server(self) -> Iterable[tuple[str, list[M]]]:
        """Each server's name and its items as models, which the caller may change."""
        found: dict[str, list[M]] = {}
        for item in self.models():
            found.setdefault(_server(item), []).append(item)
        return found.items()

    @cached_property
    def named(self) -> list[_Named]:
        """The items that `models` has, by name. Only for tools and prompts."""
        self.models()  # finds out which are malformed
        return _read_named(_array(raw for raw in self._raws if raw not in self._left_out))

    def _model_of(self, raw: bytes) -> M | None:
        """The item; None if it is not as the protocol has it, which must not keep the others from being listed."""
        try:
            return self._model.model_validate_json(raw)
        except ValidationError as wrong:
            if raw not in self._left_out:  # said once, and not each time that a program asks for the lists
                self._left_out.add(raw)
                fields = ", ".join(sorted({".".join(map(str, error["loc"])) or "JSON" for error in wrong.errors()}))
                _log.warning("a %s is left out of the lists, as it is malformed: %s", self._model.__name__, fields)
            return None


def _array(raws: Iterable[bytes]) -> bytes:
    return b"[%b]" % b",".join(raws)


class Listing:
    """What a fleet listed at one time, and the status of its servers then; immutable.

    A client makes a new one whenever lists or status were read again. Models are made when first asked for: a program
    that only calls tools by name never pays for them.
    """

    def __init__(
        self, catalog: Catalog, status: Mapping[str, Any], before: Listing | None = None, away: Away | None = None
    ) -> None:
        self.status = status_now(status, away)
        """As `daemon/status` has it, and whether the client is connected."""
        self._catalog = catalog
        self._last_status = status
        self._state = None if away is None else UNKNOWN
        self._servers = {row["name"]: row for row in self.status.get("servers", ())}
        self._withdrawn = {} if before is None else self._withdrawn_since(before)

    def without_fleet(self, away: Away) -> Listing:
        """What was listed last, when there is no fleet any more that could list anything."""
        return Listing(self._catalog, self._last_status, self, away)

    @classmethod
    def empty(cls) -> Listing:
        """The listing of a client that was never connected."""
        return cls(Catalog(), {})

    def tools(self) -> list[types.Tool]:
        """All tools as listed, each with its server's name in its `_meta`."""
        return self._tools.models()

    def prompts(self) -> list[types.Prompt]:
        """All prompts as listed, likewise."""
        return self._prompts.models()

    def resources(self, use_namespace: bool) -> list[types.Resource]:
        """All resources, their URIs with the server's name in front or not."""
        rename = _named_uri if use_namespace else _own_uri
        return [_with_uri(item, rename) for item in self._resources.models()]

    def templates(self, use_namespace: bool) -> list[types.ResourceTemplate]:
        """All templates, likewise."""
        rename = _named_uri if use_namespace else _own_uri
        return [_with_uri(item, rename) for item in self._templates.models()]

    def servers_of(self, kind: Kind) -> dict[str, str]:
        """The server of each listed tool or prompt."""
        return dict(self._servers_of[kind])

    def server_of(self, kind: Kind, name: str) -> str | None:
        """The server of the tool or prompt that is listed under this name; None if none is."""
        return self._servers_of[kind].get(name)

    def may_be_at(self, kind: Kind, name: str, server: str) -> bool:
        """Whether a tool or prompt of that name, listed or qualified, may be that server's; if in doubt, it may."""
        listed = self.server_of(kind, name)
        row = self._servers.get(server)
        return listed == server if listed is not None else row is None or name.startswith(row["prefix"])

    def knows(self, server: str) -> bool:
        """Whether there is such a server."""
        return server in self._servers

    def qualified(self, server: str, name: str) -> str:
        """The name by which a server's own tool or prompt can always be called."""
        return f"{self._servers[server]['prefix']}{name}"

    def withdrawn(self, kind: Kind, name: str) -> str | None:
        """The qualified name of what was listed under this name, and is not while its server is away; else None."""
        return self._withdrawn.get((kind, name), (None, None))[1]

    def refusal(self, kind: Kind, server: str, name: str) -> str | None:
        """Why a server's own tool or prompt cannot be called; None where it can, or the server is away."""
        if not self.knows(server):
            return f"Unknown server: {server}"
        if self._state is not None:
            return None  # what was listed last need not be what the daemon offers that comes back
        own = self._own_names[kind].get(server)
        if not own and _is_on_its_way(self._servers[server]):
            return None  # the fleet holds the call until the server is there, or says why it will not be
        if not own:
            return self._absence(server) or f"Server '{server}' has no {kind.member}"
        return None if name in own else f"{kind.value.capitalize()} '{name}' not found in server '{server}'"

    def _absence(self, server: str) -> str | None:
        """That a server is away, and why; None if it is there."""
        row = self._servers[server]
        if row["state"] in ROUTED:
            return None
        return f"Server '{server}' is {row['state']}" + (f": {row['reason']}" if row["reason"] else "")

    def capabilities(self) -> dict[str, ServerCapabilities]:
        """What each server offers whose lists were read, under its own names; nothing of one that never got ready."""
        offers = {name: row.get("offers", ()) for name, row in self._servers.items() if row["refreshedAt"]}
        found = {name: _nothing_of(name, offered) for name, offered in offers.items()}

        def of(server: str) -> ServerCapabilities:
            # Status and lists are read one after the other: a server may have come or gone between them.
            return found.setdefault(server, ServerCapabilities(name=server))

        for server, tools in self._tools.by_server():
            of(server).tools = types.ListToolsResult(tools=[_under_own_name(tool) for tool in tools])
        for server, prompts in self._prompts.by_server():
            of(server).prompts = types.ListPromptsResult(prompts=[_under_own_name(prompt) for prompt in prompts])
        for server, resources in self._resources.by_server():
            own_resources = [_unmarked(_with_uri(resource, _own_uri)) for resource in resources]
            of(server).resources = types.ListResourcesResult(resources=own_resources)
        for server, templates in self._templates.by_server():
            own_templates = [_unmarked(_with_uri(template, _own_uri)) for template in templates]
            of(server).resource_templates = types.ListResourceTemplatesResult(resource_templates=own_templates)
        return {name: found.pop(name) for name in self._servers if name in found} | found

    @cached_property
    def _tools(self) -> _Items[types.Tool]:
        return self._of_kind(types.Tool, TypeAdapter(list[types.Tool]), Kind.TOOL)

    @cached_property
    def _prompts(self) -> _Items[types.Prompt]:
        return self._of_kind(types.Prompt, TypeAdapter(list[types.Prompt]), Kind.PROMPT)

    @cached_property
    def _resources(self) -> _Items[types.Resource]:
        return self._of_kind(types.Resource, TypeAdapter(list[types.Resource]), Kind.RESOURCE)

    @cached_property
    def _templates(self) -> _Items[types.ResourceTemplate]:
        return self._of_kind(types.ResourceTemplate, TypeAdapter(list[types.ResourceTemplate]), Kind.TEMPLATE)

    def _of_kind(self, model: type[M], every: TypeAdapter[list[M]], kind: Kind) -> _Items[M]:
        return _Items(model, every, kind, self._catalog, self._state)

    def _withdrawn_since(self, before: Listing) -> dict[tuple[Kind, str], tuple[str, str]]:
        """Server and qualified name of all that was listed by servers which are away and list nothing."""
        if self._state is not None:
            return before._withdrawn
        silent = {name for name, row in self._servers.items() if _is_on_its_way(row) and not _lists(row)}
        # Withdrawn earlier, and still away: only the listing before that knew it.
        known = {listed: meant for listed, meant in before._withdrawn.items() if meant[0] in silent}
        fresh = {name for name in silent if name in before._servers and _lists(before._servers[name])}
        for kind in (Kind.TOOL, Kind.PROMPT) if fresh else ():
            for item in before._named(kind):
                if (server := item.meta.server) in fresh:
                    known[kind, item.name] = server, self.qualified(server, item.own_name)
        return known

    def _named(self, kind: Kind) -> list[_Named]:
        return self._tools.named if kind is Kind.TOOL else self._prompts.named

    @cached_property
    def _servers_of(self) -> dict[Kind, dict[str, str]]:
        """The server of each tool and prompt, by its listed name."""
        return {kind: {item.name: item.meta.server for item in self._named(kind)} for kind in (Kind.TOOL, Kind.PROMPT)}

    @cached_property
    def _own_names(self) -> dict[Kind, dict[str, set[str]]]:
        """The own names of each server's tools and prompts."""
        found: dict[Kind, dict[str, set[str]]] = {Kind.TOOL: {}, Kind.PROMPT: {}}
        for kind, servers in found.items():
            for item in self._named(kind):
                servers.setdefault(item.meta.server, set()).add(item.own_name)
        return found


def _nothing_of(server: str, offered: Iterable[str]) -> ServerCapabilities:
    """A server whose lists are empty; None for those that it does not support."""
    return ServerCapabilities(
        name=server,
        tools=types.ListToolsResult(tools=[]) if "tools" in offered else None,
        resources=types.ListResourcesResult(resources=[]) if "resources" in offered else None,
        resource_templates=types.ListResourceTemplatesResult(resource_templates=[]) if "resources" in offered else None,
        prompts=types.ListPromptsResult(prompts=[]) if "prompts" in offered else None,
    )


def _is_on_its_way(row: Mapping[str, Any]) -> bool:
    """Whether the server is starting, or will be started again; one that is disabled or has a broken entry is not."""
    return row["state"] in (State.CONNECTING, State.STOPPING) or row["nextAttemptAt"] is not None


def _lists(row: Mapping[str, Any]) -> bool:
    """Whether the server has tools or prompts listed: the two kinds that are called by name."""
    return bool(row["tools"] or row["prompts"])


# What follows changes the model that it is given, which nobody else has.


def _server(item: M) -> str:
    return str((item.meta or {}).get(SERVER_KEY, ""))


def _under_own_name(item: N) -> N:
    own = (item.meta or {}).get(NAME_KEY)
    if isinstance(own, str):
        item.name = own
    return _unmarked(item)


def _with_uri(item: R, rename: Callable[[str, str], str]) -> R:
    """The item, its URI or template renamed; `rename` takes its server's name, and the URI as it is listed."""
    if isinstance(item, types.Resource):
        item.uri = rename(_server(item), item.uri)
    else:
        item.uri_template = rename(_server(item), item.uri_template)
    return item


def _own_uri(server: str, uri: str) -> str:
    """The URI that the server wrote: without its name, or without the scheme that stands for it."""
    named = namespaced(server, "")
    return uri.removeprefix(named) if uri.startswith(named) else uri.partition(":")[2]


def _named_uri(server: str, uri: str) -> str:
    """The URI with the server's own name in front, whatever stands for it in the list."""
    return namespaced(server, _own_uri(server, uri))


def _unmarked(item: M) -> M:
    """The item with the `_meta` that its server gave it."""
    item.meta = {key: value for key, value in (item.meta or {}).items() if key not in MARKS} or None
    return item
