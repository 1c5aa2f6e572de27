"""What a fleet lists, as the models of `mcp_types`: everything, or server by server."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import mcp_types as types
from pydantic import TypeAdapter, ValidationError

from ..core.catalog import Catalog, Kind
from ..core.index import NAME_KEY, SERVER_KEY, STATE_KEY
from ..core.lifecycle import ROUTED, State
from .away import UNKNOWN, Away, status_now
from .capabilities import ServerCapabilities

_log = logging.getLogger("mcp_multi_server")
M = TypeVar("M", types.Tool, types.Prompt, types.Resource, types.ResourceTemplate)


class _Items(Generic[M]):
    """The listed items of one kind, as models."""

    def __init__(self, model: type[M], kind: Kind, catalog: Catalog, state: str | None) -> None:
        raws = [item.raw for item in catalog.items[kind]]
        try:
            every: TypeAdapter[list[M]] = TypeAdapter(list[model])  # type: ignore[valid-type]  # a type at run time
            self.all: list[M] = every.validate_json(b"[%b]" % b",".join(raws))
        except ValidationError:
            # Only now one by one, which takes several times as long.
            self.all = [item for raw in raws if (item := _item(model, raw)) is not None]
        for item in self.all if state is not None else ():
            item.meta = {**(item.meta or {}), STATE_KEY: state}

    def with_servers(self) -> Iterator[tuple[str, M]]:
        """Each item after its server's name."""
        for item in self.all:
            yield str((item.meta or {}).get(SERVER_KEY, "")), item

    def by_server(self) -> Iterable[tuple[str, list[M]]]:
        """Each server's name and its items."""
        found: dict[str, list[M]] = {}
        for server, item in self.with_servers():
            found.setdefault(server, []).append(item)
        return found.items()


def _item(model: type[M], raw: bytes) -> M | None:
    """The item; None if it is not as the protocol has it, which must not keep the others from being listed."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as wrong:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) or "JSON" for error in wrong.errors()}))
        _log.warning("a %s is left out of the lists, as it is malformed: %s", model.__name__, fields)
        return None


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
        return list(self._tools.all)

    def prompts(self) -> list[types.Prompt]:
        """All prompts as listed, likewise."""
        return list(self._prompts.all)

    def resources(self, use_namespace: bool) -> list[types.Resource]:
        """All resources, their URIs with the server's name in front or not."""
        if use_namespace:
            return list(self._resources.all)
        return [_with_own_uri(server, item) for server, item in self._resources.with_servers()]

    def templates(self, use_namespace: bool) -> list[types.ResourceTemplate]:
        """All templates, likewise."""
        if use_namespace:
            return list(self._templates.all)
        return [_with_own_template(server, item) for server, item in self._templates.with_servers()]

    def servers_of(self, kind: Kind) -> dict[str, str]:
        """The server of each listed tool or prompt."""
        return {item.name: server for server, item in self._of(kind).with_servers()}

    def may_be_at(self, kind: Kind, name: str, server: str) -> bool:
        """Whether a tool or prompt of that name, listed or qualified, may be that server's; if in doubt, it may."""
        listed = self.servers_of(kind).get(name)
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
        """What each server offers, under its own names; servers that offer nothing yet are there too."""
        found = {name: ServerCapabilities(name=name) for name in self._servers}

        def of(server: str) -> ServerCapabilities:
            # Status and lists are read one after the other: a server may have come or gone between them.
            return found.setdefault(server, ServerCapabilities(name=server))

        for server, tools in self._tools.by_server():
            of(server).tools = types.ListToolsResult(tools=[_under_own_name(tool) for tool in tools])
        for server, prompts in self._prompts.by_server():
            of(server).prompts = types.ListPromptsResult(prompts=[_under_own_name(prompt) for prompt in prompts])
        for server, resources in self._resources.by_server():
            own_resources = [_with_own_uri(server, resource) for resource in resources]
            of(server).resources = types.ListResourcesResult(resources=own_resources)
        for server, templates in self._templates.by_server():
            own_templates = [_with_own_template(server, template) for template in templates]
            of(server).resource_templates = types.ListResourceTemplatesResult(resource_templates=own_templates)
        return found

    @cached_property
    def _tools(self) -> _Items[types.Tool]:
        return _Items(types.Tool, Kind.TOOL, self._catalog, self._state)

    @cached_property
    def _prompts(self) -> _Items[types.Prompt]:
        return _Items(types.Prompt, Kind.PROMPT, self._catalog, self._state)

    @cached_property
    def _resources(self) -> _Items[types.Resource]:
        return _Items(types.Resource, Kind.RESOURCE, self._catalog, self._state)

    @cached_property
    def _templates(self) -> _Items[types.ResourceTemplate]:
        return _Items(types.ResourceTemplate, Kind.TEMPLATE, self._catalog, self._state)

    def _withdrawn_since(self, before: Listing) -> dict[tuple[Kind, str], tuple[str, str]]:
        """Server and qualified name of all that was listed by servers which are away and list nothing."""
        if self._state is not None:
            return before._withdrawn
        silent = {name for name, row in self._servers.items() if _is_on_its_way(row) and not _lists(row)}
        # Withdrawn earlier, and still away: only the listing before that knew it.
        known = {listed: meant for listed, meant in before._withdrawn.items() if meant[0] in silent}
        fresh = {name for name in silent if name in before._servers and _lists(before._servers[name])}
        for kind in (Kind.TOOL, Kind.PROMPT) if fresh else ():
            for server, item in before._of(kind).with_servers():
                if server in fresh:
                    known[kind, item.name] = server, self.qualified(server, _own_name(item))
        return known

    def _of(self, kind: Kind) -> _Items[types.Tool] | _Items[types.Prompt]:
        return self._tools if kind is Kind.TOOL else self._prompts

    @cached_property
    def _own_names(self) -> dict[Kind, dict[str, set[str]]]:
        """The own names of each server's tools and prompts."""
        return {
            Kind.TOOL: {server: set(map(_own_name, tools)) for server, tools in self._tools.by_server()},
            Kind.PROMPT: {server: set(map(_own_name, prompts)) for server, prompts in self._prompts.by_server()},
        }


N = TypeVar("N", types.Tool, types.Prompt)


def _under_own_name(item: N) -> N:
    """The item under its own name."""
    own = _own_name(item)
    return item if own == item.name else item.model_copy(update={"name": own})


def _own_name(item: types.Tool | types.Prompt) -> str:
    own = (item.meta or {}).get(NAME_KEY)
    return own if isinstance(own, str) else item.name


def _is_on_its_way(row: Mapping[str, Any]) -> bool:
    """Whether the server is starting, or will be started again; one that is disabled or has a broken entry is not."""
    return row["state"] in (State.CONNECTING, State.STOPPING) or row["nextAttemptAt"] is not None


def _lists(row: Mapping[str, Any]) -> bool:
    """Whether the server has tools or prompts listed: the two kinds that are called by name."""
    return bool(row["tools"] or row["prompts"])


def _with_own_uri(server: str, item: types.Resource) -> types.Resource:
    return item.model_copy(update={"uri": item.uri.removeprefix(f"{server}:")})


def _with_own_template(server: str, item: types.ResourceTemplate) -> types.ResourceTemplate:
    return item.model_copy(update={"uri_template": item.uri_template.removeprefix(f"{server}:")})
