"""JSON-RPC 2.0: lines of bytes to messages and back, without a stream.

Members that are only passed on (`id`, `params`, `result`, `error`) stay the bytes they came as, so big integers, number
formats, escapes and unknown members survive by construction.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from .errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, RpcError

Raw = msgspec.Raw
Buffer: TypeAlias = bytes | memoryview | msgspec.Raw
Members: TypeAlias = dict[str, msgspec.Raw]
"""One JSON object, its values undecoded."""

ABSENT = msgspec.Raw()
JOIN_BELOW = 16 * 1024
"""Bytes below which copying a payload into one buffer is cheaper than writing it as a part of its own."""

_ID = re.compile(rb'-?\d+|"(?:[^"\\]|\\.)*"')
_ID_AT_HEAD = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")\s*[,}]')
_ID_AT_TAIL = re.compile(rb'"id"\s*:\s*(-?\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')

_LEADING, _TRAILING = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"\\(?:%b\\%b|(%b|%b)|.)" % (_LEADING, _TRAILING, _LEADING, _TRAILING), re.DOTALL)
"""An escape in a JSON string; the group is half a surrogate pair."""


class Message(msgspec.Struct, gc=False):
    """A decoded line: a request (`method`, `id`), a notification (`method`) or a response (`id` alone)."""

    jsonrpc: str = ""
    id: msgspec.Raw = ABSENT
    method: str = ""
    params: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class InvalidMessage(RpcError):
    """A line that is no JSON-RPC message. `id` is what the answer carries: the sender's id where it could be read."""

    def __init__(self, code: int, message: str, id: bytes = b"null") -> None:
        super().__init__(code, message)
        self.id = id


class TooDeep(RpcError, msgspec.ValidationError):
    """JSON that is nested more deeply than Python's stack allows at the place where it is decoded.

    A message can be decoded further at a deeper place of the stack than the first time, so it can turn out too deep
    even then. A client gets an error of its own for it; elsewhere it is handled as JSON of the wrong shape.
    """

    def __init__(self) -> None:
        super().__init__(INVALID_PARAMS, "params are nested too deeply")


def decoder(wanted: Any, form: Any = msgspec.json) -> Callable[[Buffer], Any]:
    """Make a function that decodes JSON, or another form of msgspec's, to the wanted type.

    The function raises msgspec.DecodeError (TooDeep is one) or UnicodeDecodeError. No other module has to deal with
    RecursionError, since everything from outside is decoded by such a function. `decode` and `text` do the same without
    that call, since every message passes them.
    """
    decode = form.Decoder(wanted).decode

    def decoded(raw: Buffer) -> Any:
        try:
            return decode(raw)
        except RecursionError:
            raise TooDeep from None

    return decoded


_decode_message = msgspec.json.Decoder(Message).decode
_decode_any = msgspec.json.Decoder().decode
members: Callable[[Buffer], Members] = decoder(Members)
"""The members of a JSON object, with their values undecoded. Raises msgspec.ValidationError where it is no object."""
value: Callable[[Buffer], Any] = decoder(Any)
"""A JSON value as Python objects. Raises msgspec.DecodeError."""
encode = msgspec.json.Encoder().encode
"""Any value, `Raw` and `Members` included, as JSON bytes."""


def decode(line: bytes) -> Message:
    """The message in one line.

    Raises:
        InvalidMessage: -32700 where the line is no JSON, -32600 where it is no JSON-RPC 2.0 message (a batch, an id
            that is null, a float or a boolean, a method that is no string, params that are neither an object nor null).

    """
    try:
        message = _decode_message(line)
    except (msgspec.DecodeError, RecursionError):
        message = _decode_repaired(line)
    if message.jsonrpc != "2.0":
        raise InvalidMessage(INVALID_REQUEST, 'jsonrpc must be "2.0"', _usable_id(message.id))
    # Nearly every id is a number, which `isdigit` finds faster than the pattern.
    if message.id is not ABSENT and not bytes(message.id).isdigit() and not _ID.fullmatch(message.id):
        raise InvalidMessage(INVALID_REQUEST, "id must be a string or an integer")
    # The params stay undecoded, so their first byte has to tell their type.
    if message.params is not ABSENT and bytes(memoryview(message.params)[:1]) != b"{":
        if bytes(message.params) != b"null":  # as some languages write a member that is left out
            raise InvalidMessage(INVALID_REQUEST, "params must be an object", _usable_id(message.id))
        message.params = ABSENT
    if message.id is ABSENT and not message.method:
        raise InvalidMessage(INVALID_REQUEST, "neither a method nor an id")
    # msgspec does not check the UTF-8 of members that stay undecoded.
    if not line.isascii() and not _is_utf8(line):
        raise InvalidMessage(PARSE_ERROR, "not valid UTF-8", _usable_id(message.id))
    return message


def decode_answer(line: bytes) -> Message | None:
    """The response in a line that `decode` refuses for nothing but its id: a number that is written with a point."""
    try:
        message = _decode_message(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    is_answer = message.jsonrpc == "2.0" and not message.method and message.id is not ABSENT
    if not is_answer or meant_number(message.id) is None or not (line.isascii() or _is_utf8(line)):
        return None
    return message


def meant_number(raw: msgspec.Raw) -> int | None:
    """The whole number that an id means: 7 for `"7"` and `7.0`; None for what can mean none."""
    try:
        found = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, str):
        return int(found) if found.isascii() and found.isdigit() else None
    return int(found) if isinstance(found, float) and found.is_integer() else None


def text(raw: msgspec.Raw | None) -> str | None:
    """The string that `raw` holds; None if it is missing or no string."""
    if raw is None:
        return None
    try:
        found = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def is_object(raw: Buffer) -> bool:
    """Whether an already validated JSON value is an object."""
    return bytes(memoryview(raw)[:1]) == b"{"


def salvage_id(head: bytes, tail: bytes) -> bytes | None:
    """The id of a line that was too long to keep, from its first and last bytes; None if they do not show it.

    On valid JSON the id is never that of a nested object: at the head nothing is nested yet, and the last brace closes
    the outermost object.
    """
    found = _ID_AT_HEAD.match(head) or _ID_AT_TAIL.search(tail)
    return found[1] if found else None


def request(id: int, method: str, params: Buffer) -> list[Buffer]:
    """A request line, as parts to be written one after another."""
    return _frame(b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":' % (id, encode(method)), params)


def notification(method: str, params: Buffer | None = None) -> list[Buffer]:
    """A notification line."""
    if params is None:
        return [b'{"jsonrpc":"2.0","method":%b}\n' % encode(method)]
    return _frame(b'{"jsonrpc":"2.0","method":%b,"params":' % encode(method), params)


def result(id: bytes, payload: Buffer) -> list[Buffer]:
    """A response line that carries a result."""
    return _frame(b'{"jsonrpc":"2.0","id":%b,"result":' % id, payload)


def error(id: bytes, payload: Buffer) -> list[Buffer]:
    """A response line that carries an error object, already encoded."""
    return _frame(b'{"jsonrpc":"2.0","id":%b,"error":' % id, payload)


def error_object(failure: RpcError) -> bytes:
    """The error object of a failure, encoded."""
    body: dict[str, Any] = {"code": failure.code, "message": failure.message}
    if failure.data is not None:
        body["data"] = failure.data
    return encode(body)


def _frame(head: bytes, payload: Buffer) -> list[Buffer]:
    if len(memoryview(payload)) < JOIN_BELOW:
        return [b"".join((head, payload, b"}\n"))]
    return [head, payload, b"}\n"]


def _decode_repaired(line: bytes) -> Message:
    """The slow path of `decode`: half a surrogate pair, as JavaScript writes for a cut emoji, becomes U+FFFD."""
    repaired = _ESCAPE.sub(lambda escape: escape[0] if escape[1] is None else rb"\ufffd", line)
    if repaired != line:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return _decode_message(repaired)
    raise _explain(line)


def _explain(line: bytes) -> InvalidMessage:
    """Why `line` is no message; the slow path of `decode`."""
    try:
        found = value(line)
    except TooDeep:
        return InvalidMessage(PARSE_ERROR, "nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return InvalidMessage(PARSE_ERROR, "not valid JSON")
    if isinstance(found, list):
        return InvalidMessage(INVALID_REQUEST, "batches are not supported: send one message a line")
    if not isinstance(found, Mapping):
        return InvalidMessage(INVALID_REQUEST, "a message must be an object")
    wrong = "jsonrpc" if not isinstance(found.get("jsonrpc", ""), str) else "method"
    id = found.get("id")
    # To Python, true is an int.
    usable = isinstance(id, (int, str)) and not isinstance(id, bool)
    return InvalidMessage(INVALID_REQUEST, f"{wrong} must be a string", encode(id) if usable else b"null")


def _usable_id(id: msgspec.Raw) -> bytes:
    return bytes(id) if id is not ABSENT and _ID.fullmatch(id) else b"null"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
