"""What a client sees of a server, as data that can be compared: straight to it, and through the daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp import Client, MCPError

from tests.fixtures.fixture import META

ERA_MEMBERS = ("resultType", "ttlMs", "cacheScope")
"""What the eras add to a result or leave out; the only differences that translating may make."""
Normal = Callable[[Any], Any]


@dataclass(frozen=True)
class Questions:
    """What to ask one server."""

    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    uris: tuple[str, ...] = ()
    prompts: tuple[tuple[str, dict[str, str]], ...] = ()


@dataclass(frozen=True)
class Namespace:
    """How the daemon names what `server` offers; the empty one stands for the server itself."""

    server: str = ""

    def name(self, own: str) -> str:
        return f"{self.server}__{own}" if self.server else own

    def uri(self, own: str) -> str:
        return f"{self.server}:{own}" if self.server else own

    def is_own(self, item: Any) -> bool:
        named = item.get("name", "") if "uri" not in item and "uriTemplate" not in item else ""
        address = item.get("uri") or item.get("uriTemplate") or ""
        return not self.server or named.startswith(self.name("")) or address.startswith(self.uri(""))

    def plain(self, value: Any, key: str = "") -> Any:
        """`value` as the server itself would have it, without what the era adds or the daemon says of an item."""
        if isinstance(value, dict):
            added = {*ERA_MEMBERS, META + "serverInfo"} | (
                {"serverName", "mcp-multi-server/name"} if key == "_meta" and self.server else set()
            )
            kept = {k: self.plain(v, k) for k, v in value.items() if k not in added}
            return {k: v for k, v in kept.items() if k != "_meta" or v}
        if isinstance(value, list):
            return [self.plain(item, key) for item in value]
        if isinstance(value, str) and self.server:
            return value.removeprefix(self.uri("")) if key in ("uri", "uriTemplate") else value
        return value


async def view(client: Client, questions: Questions, space: Namespace) -> dict[str, Any]:
    """Everything listed and every answer, under the server's own names."""
    seen: dict[str, Any] = {}
    capabilities = client.server_capabilities
    if capabilities.tools:
        seen["tools"] = _items([tool async for tool in _pages(client.list_tools, "tools")], space)
    if capabilities.prompts:
        seen["prompts"] = _items([one async for one in _pages(client.list_prompts, "prompts")], space)
    if capabilities.resources:
        seen["resources"] = _items([one async for one in _pages(client.list_resources, "resources")], space)
        found = [one async for one in _pages(client.list_resource_templates, "resource_templates")]
        seen["templates"] = _items(found, space)
    for name, arguments in questions.calls:
        seen[f"call {name} {arguments}"] = await _answer(client.call_tool(space.name(name), arguments), space)
    for uri in questions.uris:
        seen[f"read {uri}"] = await _answer(client.read_resource(space.uri(uri)), space)
    for name, words in questions.prompts:
        seen[f"prompt {name}"] = await _answer(client.get_prompt(space.name(name), words), space)
    return {kind: items for kind, items in seen.items() if items != []}


async def _pages(read: Any, member: str) -> Any:
    cursor = None
    while True:
        page = await read(cursor=cursor)
        for item in getattr(page, member):
            yield item
        if (cursor := page.next_cursor) is None:
            return


def _items(items: list[Any], space: Namespace) -> list[Any]:
    dumped = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
    own = [space.plain(item) for item in dumped if space.is_own(item)]
    return [item | {"name": item["name"].removeprefix(space.name(""))} if space.server else item for item in own]


async def _answer(asked: Any, space: Namespace) -> Any:
    try:
        result = await asked
    except MCPError as error:
        return {"error": error.code, "message": error.message}
    return space.plain(result.model_dump(mode="json", by_alias=True, exclude_none=True))
