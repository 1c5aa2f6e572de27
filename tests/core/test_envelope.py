"""What a JSON-RPC line is, told by its ends: the same as decoding it tells."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.bridge.envelope import Envelope, own_timeout, progress_token, read, read_ends

NESTED: dict[str, Any] = {"id": 99, "method": "inner", "jsonrpc": "2.0", "result": {"id": 98}}
PARTS: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"a": NESTED, "_meta": NESTED}}

ids = st.integers() | st.text(max_size=300) | st.sampled_from(['"', "\\", ',"id":5}', "é", "\ud83d"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"id":3}', ',"id"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(list(NESTED)), inner),
    max_leaves=8,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Messages of every kind, their members in any order."""
    kind = draw(st.sampled_from(["request", "notification", "result", "error"]))
    found: dict[str, Any] = {"jsonrpc": "2.0"}
    if kind != "notification":
        found["id"] = draw(ids)
    if kind in ("request", "notification"):
        found["method"] = draw(st.text(min_size=1) | st.sampled_from(["tools/call", "notifications/x"]))
        found["params"] = draw(st.dictionaries(st.text() | st.sampled_from(list(NESTED)), json_values, max_size=3))
    else:
        found[kind] = draw(json_values)
    if draw(st.booleans()):
        found[draw(st.sampled_from(["extra", "id2", "x"]))] = draw(json_values)
    return dict(draw(st.permutations(list(found.items()))))


def truth(message: dict[str, Any]) -> Envelope:
    return Envelope(message.get("method", ""), message.get("id"))


@given(messages(), st.booleans(), st.sampled_from([None, (",", ":"), (" , ", " : ")]))
def test_a_line_is_what_decoding_it_says(message: dict[str, Any], ascii_only: bool, separators: Any) -> None:
    if message.get("method", "").startswith("notifications/") and "id" in message:
        return  # no such request exists, and a line that begins like a notification is taken for one
    line = json.dumps(message, ensure_ascii=ascii_only, separators=separators).encode(errors="surrogatepass")
    if ascii_only or line.decode(errors="replace").encode() == line:  # half a surrogate pair has no bytes
        assert read(line) == truth(json.loads(line))


@pytest.mark.parametrize("order", list(permutations(PARTS)), ids="-".join)
@pytest.mark.parametrize("size", [0, 100_000])
def test_members_may_stand_in_any_order(order: tuple[str, ...], size: int) -> None:
    message = {name: PARTS[name] for name in order}
    message["params"] = message["params"] | {"filler": "x" * size}
    assert read(json.dumps(message).encode()) == ("tools/call", 7)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b"",
        b"1",
        b'{"jsonrpc":"2.0"',
        b'{"method":5}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"{}",
        b'{"id":\xff}',
    ],
)
def test_what_is_no_message_has_no_envelope(line: bytes) -> None:
    assert read(line) is None


@pytest.mark.parametrize("id", [b"null", b"true", b"1.5", b"[]", b"{}"])
def test_an_id_that_json_rpc_does_not_allow_is_none(id: bytes) -> None:
    assert read(b'{"jsonrpc":"2.0","id":%b,"error":{"code":1}}' % id) == ("", None)


def test_a_number_too_long_for_python_is_no_message() -> None:
    assert read(b'{"id":%b,"method":"a"}' % (b"1" * 10_000)) is None


@pytest.mark.parametrize("order", [("method", "params", "jsonrpc", "id"), ("jsonrpc", "id", "method", "params")])
def test_the_two_ends_of_a_line_are_enough_for_what_sdks_write(order: tuple[str, ...]) -> None:
    line = json.dumps({name: PARTS[name] for name in order}).encode()
    assert read_ends(line[:64], line[-64:]) == ("tools/call", 7)


def test_ends_that_show_nothing_tell_nothing() -> None:
    assert read_ends(b'{"jsonrpc":"2.0","method":"a","par', b"xxx") == ("a", None)
    assert read_ends(b"xxx", b"xxx") is None


@pytest.mark.parametrize(
    ("meta", "token", "seconds"),
    [
        ({}, None, None),
        ({"progressToken": 7}, 7, None),
        ({"progressToken": "a é"}, "a é", None),
        ({"progressToken": {}}, None, None),
        ({"mcp-multi-server/timeout": 2}, None, 2.0),
        ({"progressToken": 1, "mcp-multi-server/timeout": 0.25}, 1, 0.25),
        ({"mcp-multi-server/timeout": -1}, None, None),
        ({"mcp-multi-server/timeout": "2"}, None, None),
    ],
)
def test_what_a_request_says_of_itself_is_found(meta: dict[str, Any], token: object, seconds: object) -> None:
    line = json.dumps({"params": {"_meta": meta}}, ensure_ascii=False).encode()
    assert (progress_token(line), own_timeout(line)) == (token, seconds)
