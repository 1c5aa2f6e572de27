"""The envelope of a JSON-RPC line: which message it is and its id, without decoding the rest.

The bridge reads every line of every call, and a line can be megabytes long. So it looks at the two ends of a line,
where every SDK writes the envelope. Only a line of another shape is decoded as a whole.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, TypeAlias

Id: TypeAlias = int | str
"""The id of a request, by value: a client and the daemon may write the same text with other escapes."""

ENDS = 256
"""Bytes at either end of a line that are looked at; a longer id has the line decoded."""

_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"'
_ID = rb'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{0,128}")'
_HEAD = re.compile(
    rb'\s*\{\s*(?:%b\s*,\s*)?(?:%b\s*,\s*)?"(?:method"\s*:\s*"([^"\\]{1,128})"|result"|error")' % (_VERSION, _ID)
)
_TAIL = re.compile(rb"[,{]\s*(?:%b\s*,\s*)?%b\s*(?:,\s*%b\s*)?\}\s*\Z" % (_VERSION, _ID, _VERSION))
_PROGRESS_TOKEN = re.compile(rb'"progressToken"\s*:\s*(-?\d{1,18}|"[^"\\]{0,128}")')
_TIMEOUT = re.compile(rb'"mcp-multi-server/timeout"\s*:\s*(\d{1,9}(?:\.\d{1,9})?)\s*[,}]')


class Envelope(NamedTuple):
    """A request has a method and an id, a notification has a method, and a response has an id.

    An error about a message whose id could not be read has neither.
    """

    method: str
    id: Id | None


_new = tuple.__new__


def read(line: bytes) -> Envelope | None:
    """The envelope of a line; None where the line is no JSON-RPC message.

    On valid JSON the answer is right. A line that only begins and ends like a message is for its receiver to refuse.
    """
    head = _HEAD.match(line)
    if head is None:
        return _decoded(line)
    id, method = head.groups()
    if id is None:
        if method is not None and method.startswith(b"notifications/"):
            return Envelope(method.decode("utf-8", "replace"), None)
        # What stands before the last brace of valid JSON belongs to the outermost object.
        tail = _TAIL.search(line, max(0, len(line) - ENDS))
        if tail is None:
            return _decoded(line)
        id = tail[1]
    # Made without the call of a function of the class, as it is done twice for each call.
    return _new(Envelope, ("" if method is None else method.decode("utf-8", "replace"), _id(id)))


def read_ends(head: bytes, tail: bytes) -> Envelope | None:
    """The envelope of a line that was too long to keep, from its first and last bytes; None if they do not show it."""
    found = _HEAD.match(head)
    if found is None:
        return None
    id, method = found.groups()
    last = None if id is not None else _TAIL.search(tail)
    id = last[1] if last else id
    return Envelope("" if method is None else method.decode("utf-8", "replace"), None if id is None else _id(id))


def progress_token(line: bytes) -> Id | None:
    """The first progress token in a line, if it has one: of a request, or of a progress notification."""
    found = _PROGRESS_TOKEN.search(line)
    return _id(found[1]) if found else None


def own_timeout(line: bytes) -> float | None:
    """The seconds that a request gives itself in `params._meta["mcp-multi-server/timeout"]`, if it does."""
    found = _TIMEOUT.search(line)
    return float(found[1]) if found else None


def decode(line: bytes) -> dict[str, Any]:
    """The whole message; an empty one where the line is no JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def encode(message: dict[str, Any]) -> bytes:
    """A message as a line, with its newline."""
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n"


def member(value: Any, *path: str) -> Any:
    """What is found at `path` in nested JSON objects; None where there is nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def as_id(value: Any) -> Id | None:
    """A decoded id, if it is one that JSON-RPC allows. To Python, true is an int."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _decoded(line: bytes) -> Envelope | None:
    message = decode(line)
    method = message.get("method", "")
    if not isinstance(method, str) or not (method or "result" in message or "error" in message):
        return None
    return Envelope(method, as_id(message.get("id")))


def _id(token: bytes) -> Id:
    """By value. A text that is no UTF-8 is no valid JSON, and what it becomes does not matter."""
    return token[1:-1].decode("utf-8", "replace") if token[:1] == b'"' else int(token)
