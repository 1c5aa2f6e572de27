"""What a fleet lists, as the library's models: all of it, and by server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import mcp_types as types
from pydantic import TypeAdapter, ValidationError

from ..core.catalog import Catalog, Kind
from ..core.index import NAME_KEY, SERVER_KEY
from ..core.lifecycle import ROUTED, State
from .capabilities import ServerCapabilities

_log = logging.getLogger("mcp_multi_server")
M = TypeVar("M", types.Tool, types.Prompt, types.Resource, types.ResourceTemplate)


class _Listed(Generic[M]):
    """The listed items of one kind as models, made by a `Listing`; a malformed item is left out and warned of."""

    def __init__(self, model: type[M], kind: Kind, catalog: Catalog) -> None:
        raws = [item.raw for item in catalog.items[kind]]
        try:
            every: TypeAdapter[list[M]] = TypeAdapter(list[model])  # type: ignore[valid-type]  # a type at run time
            self.items: list[M] = every.validate_json(b"[%b]" % b",".join(raws))
        except ValidationError:  # one by one, which is slower, to lose only the malformed ones
            self.items = [item for raw in raws if (item := _item(model, raw)) is not None]

    def by_server(self) -> Iterator[tuple[str, M]]:
        """Each item with its server."""
        for item in self.items:
            yield str((item.meta or {}).get(SERVER_KEY, "")), item


def _item(model: type[M], raw: bytes) -> M | None:
    """The item, or None for one that is not as the protocol has it: its server's fault, and no other's trouble."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as wrong:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) or "JSON" for error in wrong.errors()}))
        _log.warning("a %s is left out of the lists, as it is malformed: %s", model.__name__, fields)
        return None


class Listing:
    """All that a fleet listed at one moment, and how its servers were. Immutable; models are made when first asked for.

    The client makes a new one, from the one before it, whenever its attachment has read the lists again.
    """

    def __init__(self, catalog: Catalog, status: Mapping[str, Any], before: Listing | None = None) -> None:
        self.status = status
        self._catalog = catalog
        self._servers = {row["name"]: row for row in status.get("servers", ())}
        self._withdrawn = {} if before is None else self._withdrawn_since(before)

    @classmethod
    def none(cls) -> Listing:
        """The listing of a client that was never connected: empty."""
        return cls(Catalog(), {})

    def tools(self) -> list[types.Tool]:
        """All tools as listed."""
        return list(self._tools.items)

    def prompts(self) -> list[types.Prompt]:
        """All prompts as listed."""
        return list(self._prompts.items)

    def resources(self, use_namespace: bool) -> list[types.Resource]:
        """All resources, their URIs with the server's name in front or not."""
        if use_namespace:
            return list(self._resources.items)
        return [_own_resource(server, item) for server, item in self._resources.by_server()]

    def templates(self, use_namespace: bool) -> list[types.ResourceTemplate]:
        """All templates, likewise."""
        if use_namespace:
            return list(self._templates.items)
        return [_own_template(server, item) for server, item in self._templates.by_server()]

    def servers_of(self, kind: Kind) -> dict[str, str]:
        """The server of each listed tool or prompt."""
        return {item.name: server for server, item in self._called(kind).by_server()}

    def may_be_at(self, kind: Kind, name: str, server: str) -> bool:
        """Whether a tool or prompt of that name, listed or qualified, may be that server's."""
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
        """The qualified name of what is not listed while its server is away, and was listed under this name before."""
        return self._withdrawn.get((kind, name), (None, None))[1]

    def refusal(self, kind: Kind, server: str, name: str) -> str | None:
        """Why a server's own tool or prompt cannot be called; None where it can, or the server is away."""
        if not self.knows(server):
            return f"Unknown server: {server}"
        own = self._own_names[kind].get(server)
        if not own and _is_on_its_way(self._servers[server]):
            return None
        if not own:
            return self._absence(server) or f"Server '{server}' has no {kind.member}"
        return None if name in own else f"{kind.value.capitalize()} '{name}' not found in server '{server}'"

    def _absence(self, server: str) -> str | None:
        """What keeps a server from offering anything, if it is not there."""
        row = self._servers[server]
        if row["state"] in ROUTED:
            return None
        return f"Server '{server}' is {row['state']}" + (f": {row['reason']}" if row["reason"] else "")

    def capabilities(self) -> dict[str, ServerCapabilities]:
        """What each server offers, under its own names; servers that offer nothing yet are there too."""
        found = {name: ServerCapabilities(name=name) for name in self._servers}
        for server, tool in self._tools.by_server():
            into = found.setdefault(server, ServerCapabilities(name=server))
            into.tools = into.tools or types.ListToolsResult(tools=[])
            into.tools.tools.append(_named(tool))
        for server, prompt in self._prompts.by_server():
            into = found.setdefault(server, ServerCapabilities(name=server))
            into.prompts = into.prompts or types.ListPromptsResult(prompts=[])
            into.prompts.prompts.append(_named(prompt))
        for server, resource in self._resources.by_server():
            into = found.setdefault(server, ServerCapabilities(name=server))
            into.resources = into.resources or types.ListResourcesResult(resources=[])
            into.resources.resources.append(_own_resource(server, resource))
        for server, template in self._templates.by_server():
            into = found.setdefault(server, ServerCapabilities(name=server))
            into.resource_templates = into.resource_templates or types.ListResourceTemplatesResult(
                resource_templates=[]
            )
            into.resource_templates.resource_templates.append(_own_template(server, template))
        return found

    @cached_property
    def _tools(self) -> _Listed[types.Tool]:
        return _Listed(types.Tool, Kind.TOOL, self._catalog)

    @cached_property
    def _prompts(self) -> _Listed[types.Prompt]:
        return _Listed(types.Prompt, Kind.PROMPT, self._catalog)

    @cached_property
    def _resources(self) -> _Listed[types.Resource]:
        return _Listed(types.Resource, Kind.RESOURCE, self._catalog)

    @cached_property
    def _templates(self) -> _Listed[types.ResourceTemplate]:
        return _Listed(types.ResourceTemplate, Kind.TEMPLATE, self._catalog)

    def _withdrawn_since(self, before: Listing) -> dict[tuple[Kind, str], tuple[str, str]]:
        """Server and qualified name of all that was listed by servers which are away and list nothing."""
        bare = {name for name, row in self._servers.items() if _is_on_its_way(row) and not _lists(row)}
        known = {listed: meant for listed, meant in before._withdrawn.items() if meant[0] in bare}
        fresh = {name for name in bare if name in before._servers and _lists(before._servers[name])}
        for kind in (Kind.TOOL, Kind.PROMPT) if fresh else ():
            for server, item in before._called(kind).by_server():
                if server in fresh:
                    known[kind, item.name] = server, self.qualified(server, _own_name(item))
        return known

    def _called(self, kind: Kind) -> _Listed[types.Tool] | _Listed[types.Prompt]:
        return self._tools if kind is Kind.TOOL else self._prompts

    @cached_property
    def _own_names(self) -> dict[Kind, dict[str, set[str]]]:
        """The own names of each server's tools and prompts."""
        names: dict[Kind, dict[str, set[str]]] = {Kind.TOOL: {}, Kind.PROMPT: {}}
        for server, tool in self._tools.by_server():
            names[Kind.TOOL].setdefault(server, set()).add(_own_name(tool))
        for server, prompt in self._prompts.by_server():
            names[Kind.PROMPT].setdefault(server, set()).add(_own_name(prompt))
        return names


N = TypeVar("N", types.Tool, types.Prompt)


def _named(item: N) -> N:
    """The item under its own name."""
    own = _own_name(item)
    return item if own == item.name else item.model_copy(update={"name": own})


def _own_name(item: types.Tool | types.Prompt) -> str:
    own = (item.meta or {}).get(NAME_KEY)
    return own if isinstance(own, str) else item.name


def _is_on_its_way(row: Mapping[str, Any]) -> bool:
    """Whether a server that is away is tried again; one that is disabled, or has a broken entry, is not."""
    return row["state"] in (State.CONNECTING, State.STOPPING) or row["nextAttemptAt"] is not None


def _lists(row: Mapping[str, Any]) -> bool:
    return bool(row["tools"] or row["prompts"])


def _own_resource(server: str, item: types.Resource) -> types.Resource:
    return item.model_copy(update={"uri": item.uri.removeprefix(f"{server}:")})


def _own_template(server: str, item: types.ResourceTemplate) -> types.ResourceTemplate:
    return item.model_copy(update={"uri_template": item.uri_template.removeprefix(f"{server}:")})
