"""Input requests: what a server may ask of a client (sampling, elicitation, roots), and how each era asks it.

A legacy server sends a request (2025-11-25, client/*); a modern one answers a call with `input_required` and gets the
call once more, with the responses (2026-07-28, basic/patterns/mrtr).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from .index import SERVER_KEY
from .jsonrpc import ABSENT, Buffer, Members, encode, is_object, members, text
from .protocol import modern_result

ABILITIES = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""The client's capability that each method needs."""
INPUT_REQUIRED = b'"input_required"'
"""Stands in every result that asks for something; looked for before anything is decoded."""
LONGEST_SHOWN = 100
"""Characters of a method's name in an error."""

_DECLARED: dict[str, dict[str, Any]] = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}}
_ASKS = msgspec.Raw(INPUT_REQUIRED)


@dataclass(frozen=True, slots=True)
class InputNeeded:
    """The input that a modern server needs before it can answer a call; `input_needed` reads it from a result."""

    requests: Mapping[str, tuple[str, Members]]
    """Method and params of what is asked, by the server's keys."""
    state: msgspec.Raw | None
    """What it wants back as it is."""

    def retry(self, responses: Members) -> Members:
        """The members that are added to the call's params when it is made once more."""
        more = {"inputResponses": msgspec.Raw(encode(responses))} if responses else {}
        return more | ({} if self.state is None else {"requestState": self.state})


def declared(abilities: Iterable[str]) -> dict[str, Any]:
    """The client capabilities that we declare to a server which may use these abilities."""
    return {ability: _DECLARED[ability] for ability in _DECLARED if ability in abilities}


def client_capabilities(raw: Buffer | None) -> Members:
    """The capabilities of a client that input requests need, of all that it declares."""
    if raw is None or not is_object(raw):
        return {}
    return {name: found for name, found in members(raw).items() if name in _DECLARED and is_object(found)}


def refusal(method: str, params: Members, capabilities: Members) -> RpcError | None:
    """Why a client with these capabilities cannot be asked this; None where it can."""
    ability = ABILITIES.get(method)
    if ability is None:
        return unsupported(method)
    if ability not in capabilities:
        return RpcError(METHOD_NOT_FOUND, f"the client does not support {method}")
    if text(params.get("mode")) == "url" and "url" not in members(capabilities[ability]):
        return RpcError(INVALID_PARAMS, "the client takes no elicitation by URL")
    return None


def unsupported(method: str) -> RpcError:
    """The error for a request that no client can be asked."""
    return RpcError(METHOD_NOT_FOUND, f"{method[:LONGEST_SHOWN]} is not supported")


def named(params: Members, server: str) -> bytes:
    """`params` with the server's name in their `_meta`, as in lists, so that people see which server asks."""
    meta = members(params["_meta"]) if "_meta" in params and is_object(params["_meta"]) else {}
    meta[SERVER_KEY] = msgspec.Raw(encode(server))
    return encode({**params, "_meta": meta})


def params_of(raw: Buffer) -> Members:
    """The members of a message's params, which it may lack."""
    return members(raw) if raw is not ABSENT else {}


def input_needed(result: Buffer) -> InputNeeded | None:
    """What a result asks for; None where it is an answer. Raises RpcError where it cannot be read."""
    body = members(result)
    if body.get("resultType") != _ASKS:
        return None
    try:
        entries = members(body["inputRequests"]) if "inputRequests" in body else {}
        found = InputNeeded({key: _entry(raw) for key, raw in entries.items()}, body.get("requestState"))
    except (msgspec.ValidationError, KeyError):
        raise RpcError(INTERNAL_ERROR, "the server asks for input in a way that cannot be read") from None
    if not found.requests and found.state is None:
        raise RpcError(INTERNAL_ERROR, "the server asks for input without saying what")
    return found


def needs_input_result(requests: Mapping[str, tuple[str, Buffer]], state: str) -> bytes:
    """A result of ours that asks a modern client for input. `requests`: method and params by our keys."""
    entries = {key: {"method": method, "params": msgspec.Raw(params)} for key, (method, params) in requests.items()}
    return encode(modern_result({"inputRequests": entries, "requestState": state}) | {"resultType": "input_required"})


def responses_in(params: Members) -> Members:
    """The `inputResponses` of a call that is made once more. Raises RpcError -32602."""
    try:
        found = members(params["inputResponses"]) if "inputResponses" in params else {}
    except msgspec.ValidationError:
        raise RpcError(INVALID_PARAMS, "params.inputResponses must be an object") from None
    for key, response in found.items():
        if not is_object(response):
            raise RpcError(INVALID_PARAMS, f"params.inputResponses[{key[:LONGEST_SHOWN]!r}] must be an object")
    return found


def _entry(raw: Buffer) -> tuple[str, Members]:
    body = members(raw)
    method = text(body["method"])
    if method is None:
        raise KeyError("method")
    return method, members(body["params"]) if "params" in body else {}
