"""The last good catalogs as bytes: what is written comes back, and other bytes are refused."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.catalog.cache import HEAD, Remembered, Unusable, dump, fingerprint, load
from mcp_multi_server.core.catalog.catalog import Catalog, Item, Kind, read_page
from mcp_multi_server.core.config.config import ServerConfig
from mcp_multi_server.core.config.plan import APPLIES_AT_ONCE, DEFINES_THE_SERVER
from mcp_multi_server.core.jsonrpc import value
from mcp_multi_server.core.protocol import LEGACY_VERSIONS, MODERN_VERSION, Era, Negotiated

from .server_entries import CHANGES, server

TOOL = b'{"name":"t","inputSchema":{"type":"object"}}'
ODD = (
    b'{ "title":"\\u00e9",  "name":"sum", "inputSchema":{ "type":"object" },'
    b' "x-huge":12345678901234567890123, "ratio":1.50, "o":{ }}'
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
items = st.fixed_dictionaries({}, optional={kind.key: names for kind in Kind} | {"x": json_values})


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Made as a real one is: from list results."""
    pages = {}
    for kind in Kind:
        result = {kind.member: draw(st.lists(items, max_size=4)), "cacheScope": draw(st.sampled_from(["public", 3]))}
        text = json.dumps(result, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        pages[kind] = [read_page(kind, text.encode())]
    return Catalog.of(pages)


@st.composite
def negotiations(draw: st.DrawFn) -> Negotiated:
    era = draw(st.sampled_from(Era))
    version = MODERN_VERSION if era is Era.MODERN else draw(st.sampled_from(LEGACY_VERSIONS))
    capabilities = value(json.dumps(draw(st.dictionaries(names, json_values, max_size=3))).encode())
    return Negotiated(era, version, capabilities, draw(names))


moments = st.floats(min_value=0, max_value=1e11)
remembered = st.builds(Remembered, st.just("f" * 64), negotiations(), catalogs(), moments)
fleets = st.dictionaries(names, remembered, max_size=3)


def known(*tools: bytes, capabilities: dict[str, Any] | None = None) -> Remembered:
    catalog = Catalog.of({Kind.TOOL: [read_page(Kind.TOOL, b'{"tools":[%b]}' % b",".join(tools))]})
    return Remembered("f", Negotiated(Era.LEGACY, "2025-11-25", capabilities or {"tools": {}}, "be kind"), catalog, 7.5)


def sealed(body: bytes) -> bytes:
    """A file with a right checksum, whatever is in it."""
    return HEAD + sha256(body).digest() + body


def record(**changes: Any) -> bytes:
    """A file with one server, its record made by hand."""
    fields: dict[str, Any] = {
        "fingerprint": "f",
        "era": "legacy",
        "version": "2025-11-25",
        "capabilities": b"{}",
        "instructions": "",
        "refreshed_at": 1.0,
        "items": {"tool": [TOOL]},
    }
    return sealed(msgspec.msgpack.encode({"one": [*(fields | changes).values()]}))


# --- there and back --------------------------------------------------------------------------------------------------


@given(fleets)
def test_what_is_written_comes_back(servers: dict[str, Remembered]) -> None:
    data, left_out = dump(servers)
    found = load(data)
    assert (found, left_out) == (servers, ())
    assert {name: one.refreshed_at for name, one in found.items()} == {
        name: one.refreshed_at for name, one in servers.items()
    }


def test_an_item_comes_back_as_the_bytes_that_it_came_as() -> None:
    found = load(dump({"one": known(ODD)})[0])
    assert found["one"].catalog.items[Kind.TOOL] == (Item("sum", ODD),)


def test_integers_of_any_size_in_capabilities_come_back() -> None:
    wide = {"tools": {"x": 123456789012345678901234567890}}
    assert load(dump({"one": known(capabilities=wide)})[0])["one"].negotiated.capabilities == wide


def test_what_is_remembered_of_a_server_is_equal_whenever_it_was_read() -> None:
    early, late = known(ODD), known(ODD)
    assert early == Remembered(late.fingerprint, late.negotiated, late.catalog, 99.0)
    assert early != known(b'{"name":"other"}')


# --- what cannot be used ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no file of catalogs"),
        (b"{}", "no file of catalogs"),
        (HEAD.replace(b" 2\n", b" 1\n") + bytes(40), "another version"),
        (HEAD.replace(b" 2\n", b" 20\n") + bytes(40), "another version"),
        (HEAD, "damaged"),
        (HEAD + bytes(32), "damaged"),
        (sealed(b""), "damaged"),
        (sealed(b"\x93\x01\x02\x03"), "damaged"),
        (sealed(msgspec.msgpack.encode({1: 2})), "damaged"),
        (sealed(b"\x81\xa1\xff\xc0"), "damaged"),
        (sealed(b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0"), "damaged"),
    ],
)
def test_a_file_that_is_not_of_ours_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        load(data)


@given(fleets.filter(bool), st.data())
def test_no_cut_or_flipped_bit_goes_unseen(servers: dict[str, Remembered], data: st.DataObject) -> None:
    whole = dump(servers)[0]
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    for damaged in (whole[:at], flipped, whole + b"\0"):
        with pytest.raises(Unusable):
            load(damaged)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: HEAD + rest))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Unusable):
        load(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | names | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=100) | anything.map(msgspec.msgpack.encode))
def test_an_invented_body_is_read_or_refused(body: bytes) -> None:
    try:
        found = load(sealed(body))
    except Unusable:
        return
    assert all(isinstance(one, Remembered) for one in found.values())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["era", "version", "capabilities", "items"], anything)))
def test_an_invented_record_is_used_or_left_out(changes: dict[str, Any]) -> None:
    assert set(load(record(**changes))) <= {"one"}


def test_a_record_made_by_hand_is_used() -> None:
    assert load(record())["one"].catalog.items[Kind.TOOL] == (Item("t", TOOL),)


@pytest.mark.parametrize(
    "changes",
    [
        {"era": "future"},
        {"version": "1999-01-01"},
        {"version": MODERN_VERSION},
        {"era": "modern"},
        {"capabilities": b"[]"},
        {"capabilities": b"{"},
        {"capabilities": b'{"a":' * 100_000 + b"1" + b"}" * 100_000},
        {"refreshed_at": -1.0},
        {"refreshed_at": float("nan")},
        {"refreshed_at": float("inf")},
        {"items": {"song": []}},
        {"items": {"tool": [b'{"name":"t","x":"\xff"}']}},
        {"more": 1},
    ],
)
def test_a_record_that_we_would_not_write_is_left_out_alone(changes: dict[str, Any]) -> None:
    assert load(record(**changes)) == {}
    theirs = msgspec.msgpack.decode(record(**changes)[len(HEAD) + 32 :])
    ours = msgspec.msgpack.decode(dump({"two": known(ODD)})[0][len(HEAD) + 32 :])
    assert list(load(sealed(msgspec.msgpack.encode(theirs | ours)))) == ["two"]


TOO_DEEP = b'{"name":"t","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize("raw", [b"3", b"{", b"{}", b'{"name":7}', b'{"name":""}', b"", TOO_DEEP])
def test_an_item_without_a_usable_name_is_left_out(raw: bytes) -> None:
    assert load(record(items={"tool": [raw, b'{"name":"t"}']}))["one"].catalog.count(Kind.TOOL) == 1


def test_two_items_of_one_name_are_one() -> None:
    assert load(record(items={"tool": [b'{"name":"t"}'] * 2}))["one"].catalog.count(Kind.TOOL) == 1


# --- size ------------------------------------------------------------------------------------------------------------


def test_over_the_cap_the_largest_go_and_are_named() -> None:
    large = known(b'{"name":"%b"}' % (b"x" * 5000))
    servers = {"large": large, "small": known(ODD), "larger": known(b'{"name":"%b"}' % (b"x" * 9000))}
    data, left_out = dump(servers, cap=7000)
    assert left_out == ("larger",)
    assert list(load(data)) == ["small", "large"]
    assert dump(servers, cap=2000)[1] == ("large", "larger")


@given(fleets, st.integers(100, 3000))
def test_no_file_is_over_the_cap(servers: dict[str, Remembered], cap: int) -> None:
    data, left_out = dump(servers, cap)
    assert len(data) <= cap
    assert load(data) == {name: one for name, one in servers.items() if name not in left_out}


def test_long_names_of_many_servers_count_too() -> None:
    servers = {f"{number:0300}": known(b'{"name":"t"}') for number in range(100)}
    data, left_out = dump(servers, cap=20_000)
    assert 19_000 < len(data) <= 20_000
    assert len(load(data)) == 100 - len(left_out)


def test_capabilities_nested_too_deeply_leave_out_only_their_own_server() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    data, left_out = dump({"deep": known(capabilities=deep), "one": known(ODD)})
    assert left_out == ("deep",)
    assert list(load(data)) == ["one"]


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", sorted(DEFINES_THE_SERVER | APPLIES_AT_ONCE))
def test_a_fingerprint_is_another_exactly_where_the_server_is_another(field: str) -> None:
    before, after = (server(**fields) for fields in CHANGES[field])
    assert (fingerprint(before) != fingerprint(after)) is (field in DEFINES_THE_SERVER)


def test_the_order_of_variables_and_headers_makes_no_other_server() -> None:
    assert fingerprint(server(env={"A": "1", "B": "2"})) == fingerprint(server(env={"B": "2", "A": "1"}))


def test_a_fingerprint_shows_nothing_of_the_entry() -> None:
    found = fingerprint(ServerConfig(command="run", args=("sesame",), env={"TOKEN": "sesame"}))
    assert len(found) == 64
    assert set(found) <= set("0123456789abcdef")
