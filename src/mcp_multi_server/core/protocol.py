"""The two eras of MCP: what each requires of a message, and how messages of one are translated for the other.

Legacy revisions (up to 2025-11-25) begin with an `initialize` handshake; modern ones (2026-07-28) are stateless and
carry version and capabilities in every request's `_meta`.
Sources: modelcontextprotocol.io/specification/2026-07-28, basic and basic/versioning; 2025-11-25, basic/lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from .. import __version__
from .errors import INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, UNSUPPORTED_PROTOCOL_VERSION, RpcError
from .jsonrpc import Buffer, Members, encode, is_object, members, text, value

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_LEGACY = LEGACY_VERSIONS[-1]

NAMESPACE = "io.modelcontextprotocol/"
VERSION_KEY = NAMESPACE + "protocolVersion"
CLIENT_INFO_KEY = NAMESPACE + "clientInfo"
CAPABILITIES_KEY = NAMESPACE + "clientCapabilities"
SERVER_INFO_KEY = NAMESPACE + "serverInfo"
SUBSCRIPTION_KEY = NAMESPACE + "subscriptionId"
LOG_LEVEL_KEY = NAMESPACE + "logLevel"
PROGRESS_TOKEN = "progressToken"
TIMEOUT_KEY = "mcp-multi-server/timeout"
"""In the `_meta` of a request to us: the seconds that it may take, instead of its server's `timeout`."""
CALLS = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
"""What is forwarded to the server that owns the name or URI."""
DAEMON_EXTENSION = "mcp-multi-server/daemon"
"""Advertises the `daemon/…` control methods."""
LONGEST = "clientLine"
"""Its member that says how many bytes a message of this client may have."""

OWN_INFO = {"name": "mcp-multi-server", "version": __version__}
"""The name and version that we give to servers and clients."""

_OWN_INFO_RAW = msgspec.Raw(encode(OWN_INFO))
_VERSION_RAW = msgspec.Raw(encode(MODERN_VERSION))
_COMPLETE = msgspec.Raw(b'"complete"')
_ZERO = msgspec.Raw(b"0")
_PRIVATE = msgspec.Raw(b'"private"')
_CACHEABLE_READS = frozenset({"resources/read"})
"""Forwarded methods whose modern results must carry caching hints."""


class Era(StrEnum):
    """Which family of revisions a peer speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a server said of itself in its answer to `initialize` or `server/discover`."""

    era: Era
    version: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""

    def has(self, capability: str) -> bool:
        """Whether the server offers `tools`, `resources`, `prompts`, `completions` and so on."""
        return isinstance(self.capabilities.get(capability), Mapping)

    def announces_changes(self, capability: str) -> bool:
        """Whether the server says when that list changes."""
        offered = self.capabilities.get(capability)
        return isinstance(offered, Mapping) and offered.get("listChanged") is True


def is_modern(meta: Members | None) -> bool:
    """Whether a request with this `_meta` speaks the modern era."""
    return meta is not None and VERSION_KEY in meta


def check_envelope(meta: Members) -> None:
    """Check the `_meta` of a modern request (basic/index, "Per-request protocol fields").

    Raises:
        RpcError: -32602 where a required key is missing or of the wrong type, -32022 for another version.

    """
    capabilities = meta.get(CAPABILITIES_KEY)
    # The usual case is found by comparing bytes, without decoding.
    if meta[VERSION_KEY] == _VERSION_RAW and capabilities is not None and is_object(capabilities):
        return
    requested = text(meta[VERSION_KEY])
    if requested is None:
        raise RpcError(INVALID_PARAMS, f"params._meta[{VERSION_KEY!r}] must be a string")
    if capabilities is None:
        raise RpcError(INVALID_PARAMS, f"params._meta lacks the required key {CAPABILITIES_KEY!r}")
    if not is_object(capabilities):
        raise RpcError(INVALID_PARAMS, f"params._meta[{CAPABILITIES_KEY!r}] must be an object")
    if requested != MODERN_VERSION:
        supported = {"supported": [MODERN_VERSION], "requested": requested}
        raise RpcError(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", supported)


def own_envelope(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The `_meta` of a modern request of our own."""
    return {VERSION_KEY: MODERN_VERSION, CLIENT_INFO_KEY: OWN_INFO, CAPABILITIES_KEY: capabilities}


def initialize_params(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Our `initialize` request. `capabilities`: what the server may ask of us."""
    return {"protocolVersion": LATEST_LEGACY, "capabilities": capabilities, "clientInfo": OWN_INFO}


def from_initialize(result: Buffer) -> Negotiated:
    """What an `initialize` result says. Raises ValueError with a text for people where it cannot be used."""
    body = _object(result, "initialize")
    version = body.get("protocolVersion")
    if version not in LEGACY_VERSIONS:
        raise ValueError(f"speaks protocol version {str(version)[:40]!r}, which is not supported")
    return Negotiated(Era.LEGACY, str(version), _mapping(body.get("capabilities")), _string(body.get("instructions")))


def from_discover(result: Buffer) -> Negotiated | None:
    """What a `server/discover` result says; None where it is not a modern server's."""
    try:
        body = _object(result, "server/discover")
    except ValueError:
        return None
    versions = body.get("supportedVersions")
    if not isinstance(versions, list) or MODERN_VERSION not in versions:
        return None
    return Negotiated(Era.MODERN, MODERN_VERSION, _mapping(body.get("capabilities")), _string(body.get("instructions")))


class Introduction(Protocol):
    """What a legacy client said of itself once, at the start, and a modern server has to be told with every request."""

    client_info: Buffer | None
    capabilities: Members
    log_level: str | None


def meta_for_server(
    meta: Members | None, *, client: Era, server: Era, introduction: Introduction, token: int | None
) -> Members | None:
    """The `_meta` to forward. `token` replaces the client's progress token, which other clients may use as well."""
    if client is server and token is None:
        return meta
    forwarded = dict(meta) if meta else {}
    if server is Era.LEGACY and client is Era.MODERN:
        forwarded = {key: raw for key, raw in forwarded.items() if not key.startswith(NAMESPACE)}
    elif server is Era.MODERN and client is Era.LEGACY:
        forwarded[VERSION_KEY] = _VERSION_RAW
        forwarded[CAPABILITIES_KEY] = msgspec.Raw(encode(introduction.capabilities))
        info = introduction.client_info
        # A client that gave no name goes by ours.
        forwarded[CLIENT_INFO_KEY] = msgspec.Raw(info) if info else _OWN_INFO_RAW
        if introduction.log_level is not None:
            forwarded[LOG_LEVEL_KEY] = msgspec.Raw(encode(introduction.log_level))
    if token is not None:
        forwarded[PROGRESS_TOKEN] = msgspec.Raw(b"%d" % token)
    return forwarded or None


def result_for_client(result: Buffer, *, method: str, client: Era, server: Era) -> Buffer:
    """A server's result in the client's era; the same bytes if both speak the same era.

    Raises:
        RpcError: the result is of a kind that the client's era does not have.

    """
    if client is server:
        return result
    body = members(result)
    if client is Era.MODERN:
        return encode(_modernised(body, method))
    # The legacy era knows complete results only.
    if body.pop("resultType", _COMPLETE) != _COMPLETE:
        raise RpcError(INTERNAL_ERROR, f"the server answers with what needs a client of revision {MODERN_VERSION}")
    for hint in ("ttlMs", "cacheScope"):
        body.pop(hint, None)
    _without_server_info(body)
    return encode(body)


def error_for_client(error: Buffer, *, method: str, client: Era, server: Era) -> Buffer:
    """A server's error object in the client's era: "resource not found" is the one code that differs."""
    if client is server or method != "resources/read":
        return error
    body = members(error)
    code = bytes(body.get("code", _ZERO))
    if client is Era.MODERN and code == b"%d" % RESOURCE_NOT_FOUND_LEGACY:
        return encode(body | {"code": msgspec.Raw(b"%d" % INVALID_PARAMS)})
    return error


def own_capabilities(longest: int) -> dict[str, Any]:
    """What we offer to clients: all that we may ever offer, since a legacy client cannot be told of more later.

    `longest`: bytes that a message of this client may have.
    """
    changing = {"listChanged": True}
    return {
        "tools": changing,
        "prompts": changing,
        "resources": changing,
        "completions": {},
        "logging": {},
        "extensions": {DAEMON_EXTENSION: {LONGEST: longest}},
    }


def initialize_result(requested: object, instructions: str, longest: int) -> dict[str, Any]:
    """Our answer to `initialize`: the revision asked for where we know it, else the latest legacy one."""
    version = requested if requested in LEGACY_VERSIONS else LATEST_LEGACY
    answer = {"protocolVersion": version, "capabilities": own_capabilities(longest), "serverInfo": OWN_INFO}
    return answer | ({"instructions": instructions} if instructions else {})


def discover_result(instructions: str, longest: int) -> dict[str, Any]:
    """Our answer to `server/discover`."""
    answer = {"supportedVersions": [MODERN_VERSION], "capabilities": own_capabilities(longest)}
    return modern_result(answer | ({"instructions": instructions} if instructions else {}), cacheable=True)


def modern_result(body: dict[str, Any], *, cacheable: bool = False) -> dict[str, Any]:
    """A result of our own, with what the modern era requires in it."""
    hints = {"ttlMs": 0, "cacheScope": "private"} if cacheable else {}
    return {"resultType": "complete", **body, **hints, "_meta": {SERVER_INFO_KEY: OWN_INFO}}


def listing_result(member: str, listing: bytes, era: Era) -> bytes:
    """The result of a list method around the JSON array of its items."""
    if era is Era.LEGACY:
        return b'{"%b":%b}' % (member.encode(), listing)
    return encode(modern_result({member: msgspec.Raw(listing)}, cacheable=True))


def subscription_meta(subscription: bytes) -> dict[str, Any]:
    """The `_meta` that ties a notification to its `subscriptions/listen` request (basic/patterns/subscriptions)."""
    return {SUBSCRIPTION_KEY: msgspec.Raw(subscription)}


def _modernised(body: Members, method: str) -> Members:
    body.setdefault("resultType", _COMPLETE)
    # A legacy server promises nothing about caching, so the client is told not to cache.
    if method in _CACHEABLE_READS:
        body.setdefault("ttlMs", _ZERO)
        body.setdefault("cacheScope", _PRIVATE)
    try:
        meta = members(body["_meta"]) if "_meta" in body else {}
    except msgspec.ValidationError:
        return body
    meta.setdefault(SERVER_INFO_KEY, _OWN_INFO_RAW)
    body["_meta"] = msgspec.Raw(encode(meta))
    return body


def _without_server_info(body: Members) -> None:
    # Searching the bytes is cheaper than decoding, and the key is rarely there.
    if "_meta" not in body or SERVER_INFO_KEY.encode() not in bytes(body["_meta"]):
        return
    try:
        meta = members(body["_meta"])
    except msgspec.ValidationError:
        return
    meta.pop(SERVER_INFO_KEY, None)
    if meta:
        body["_meta"] = msgspec.Raw(encode(meta))
    else:
        del body["_meta"]


def _object(raw: Buffer, method: str) -> dict[str, Any]:
    found = value(raw)
    if not isinstance(found, dict):
        raise ValueError(f"answered {method} with a result that is not an object")
    return found


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _string(found: object) -> str:
    return found if isinstance(found, str) else ""
