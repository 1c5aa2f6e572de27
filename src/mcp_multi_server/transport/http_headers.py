"""The headers that repeat what a message says, so that what stands between need not read it. No I/O.

Sources: modelcontextprotocol.io/specification/2026-07-28, basic/transports/streamable-http, "Request Metadata";
2025-11-25, basic/transports, "Session Management" and "Protocol Version Header".
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from ..core import jsonrpc
from ..core.jsonrpc import ABSENT, Buffer, Members, Message
from ..core.protocol import VERSION_KEY

ANNOTATION = "x-mcp-header"
"""The keyword by which a tool's schema wants an argument repeated in a header."""
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The param that names what a request is about, by method."""
SESSION, VERSION, METHOD, NAME, PARAM = (
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-",
)

Path: TypeAlias = tuple[str, ...]
"""The properties that lead to an argument."""

_PLAIN = re.compile(r"(?!=\?base64\?.*\?=\Z)(?:[!-~](?:[ -~]*[!-~])?)?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TYPES = ("string", "integer", "boolean")
_SCHEMA = frozenset({"items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "contentSchema"})
_SCHEMA |= {"unevaluatedProperties", "not", "if", "then", "else"}
_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""The keywords of JSON Schema 2020-12 that hold schemas."""

_list = jsonrpc.decoder(list[msgspec.Raw])


class SessionHeaders:
    """The headers of one session's messages. Made by its transport, which shows it what there is to learn from."""

    def __init__(self) -> None:
        self.session: str | None = None
        """The id that the server gave our session; legacy servers alone have such."""
        self._version: str | None = None
        self._annotations: dict[str, Mapping[Path, str]] = {}

    def standing(self) -> dict[str, str]:
        """The headers of a legacy request, whatever it says."""
        found = {SESSION: self.session, VERSION: self._version}
        return {name: text for name, text in found.items() if text is not None}

    def of(self, message: Message) -> dict[str, str]:
        """The headers of one message."""
        if message.method == "initialize":
            self.session = self._version = None
        params = jsonrpc.members(message.params) if message.params is not ABSENT else {}
        version = _modern_version(params)
        if version is None:
            return self.standing()
        self._version = encoded(version)
        headers = {VERSION: self._version, METHOD: encoded(message.method)}
        name = jsonrpc.text(params.get(NAMED.get(message.method, "")))
        if name is not None:
            headers[NAME] = encoded(name)
            if message.method == "tools/call" and (wanted := self._annotations.get(name)):
                headers |= _argument_headers(wanted, params.get("arguments", ABSENT))
        return headers

    def initialized(self, result: Buffer) -> None:
        """Learn the version from the result of `initialize`."""
        version = jsonrpc.text(jsonrpc.members(result).get("protocolVersion")) if jsonrpc.is_object(result) else None
        self._version = None if version is None else encoded(version)

    def listed(self, result: Buffer) -> tuple[Buffer, list[str]]:
        """Learn which arguments tools want in headers, from the result of `tools/list`.

        The result without the tools that want what cannot be, as clients of streamable HTTP must leave them out, and
        the names of those.
        """
        if not self._annotations and ANNOTATION.encode() not in bytes(result):
            return result, []
        try:
            body = jsonrpc.members(result)
            tools = _list(body["tools"])
        except (ValueError, LookupError):
            return result, []  # no list of tools, which is for its reader to say
        invalid = {index: name for index, tool in enumerate(tools) if (name := self._learn(tool)) is not None}
        if not invalid:
            return result, []
        kept = [tool for index, tool in enumerate(tools) if index not in invalid]
        return jsonrpc.encode({**body, "tools": kept}), list(invalid.values())

    def _learn(self, raw: msgspec.Raw) -> str | None:
        """Keep what one tool wants; its name where that is not valid."""
        try:
            tool = jsonrpc.members(raw)
            name, schema = jsonrpc.text(tool.get("name")), tool.get("inputSchema", b"null")
            wanted = annotated(jsonrpc.value(schema)) if ANNOTATION.encode() in bytes(schema) else {}
        except ValueError:
            return None
        if name is not None and wanted is not None:
            self._annotations[name] = wanted
        return name if wanted is None else None


def encoded(text: str) -> str:
    """A header's value: the text where a header can hold it, else its bytes in base64 between marks."""
    if _PLAIN.fullmatch(text):
        return text
    return f"=?base64?{b64encode(text.encode()).decode()}?="


def annotated(schema: Any) -> dict[Path, str] | None:
    """The header that each annotated argument of a tool goes into; None where an annotation is not valid.

    Valid is one that names a header not yet taken, for a string, integer or boolean that properties alone lead to.
    """
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for path, node in _schemas(schema):
        if ANNOTATION not in node:
            continue
        name = node[ANNOTATION]
        if not path or node.get("type") not in _TYPES or not isinstance(name, str) or not _TOKEN.fullmatch(name):
            return None
        if name.lower() in taken:
            return None
        taken.add(name.lower())
        found[path] = name
    return found


def _schemas(root: Any) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every schema within a schema, and the properties that lead to it; None where something else does, too."""
    found: list[tuple[Path | None, Any]] = [((), root)]
    while found:
        path, node = found.pop()
        if isinstance(node, dict):
            yield path, node
            found += _within(path, node)


def _within(path: Path | None, node: dict[str, Any]) -> Iterator[tuple[Path | None, Any]]:
    for keyword, held in node.items():
        if keyword in _SCHEMA:
            yield None, held
        elif keyword in _SCHEMAS and isinstance(held, list):
            yield from ((None, each) for each in held)
        elif keyword in _SCHEMAS_BY_NAME and isinstance(held, dict):
            for name, each in held.items():
                yield (*path, name) if keyword == "properties" and path is not None else None, each


def _argument_headers(wanted: Mapping[Path, str], arguments: Buffer) -> dict[str, str]:
    texts = {name: _argument(arguments, path) for path, name in wanted.items()}
    return {PARAM + name: encoded(text) for name, text in texts.items() if text is not None}


def _argument(raw: Buffer, path: Path) -> str | None:
    """An argument as text; None where it is missing, null, or has no text of its own."""
    try:
        for name in path:
            raw = jsonrpc.members(raw)[name]
        found = jsonrpc.value(raw)
        if isinstance(found, bool):
            return "true" if found else "false"
        return str(found) if isinstance(found, str | int | float) else None
    except (ValueError, LookupError):
        return None  # a number that Python has no name for, say: the server says then what it lacks


def _modern_version(params: Members) -> str | None:
    """The protocol version that a message of the modern era carries."""
    meta = params.get("_meta")
    return (
        jsonrpc.text(jsonrpc.members(meta).get(VERSION_KEY)) if meta is not None and jsonrpc.is_object(meta) else None
    )
