"""What headers say of messages, and what tools may want them to say."""

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core import jsonrpc
from mcp_multi_server.transport.http_headers import SessionHeaders, annotated, encoded

META = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


def headers(session: SessionHeaders, method: str, params: dict[str, Any] | None = None) -> dict[str, str]:
    line = b"".join(jsonrpc.request(1, method, jsonrpc.encode(params or {})))
    return session.of(jsonrpc.decode(line))


def listed(session: SessionHeaders, *tools: Any) -> tuple[list[Any], list[str]]:
    result, left_out = session.listed(json.dumps({"tools": tools, "x": 1}).encode())
    return json.loads(bytes(result))["tools"], left_out


def argument(kind: str, header: str) -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("us-west1", "us-west1"),
        ("", ""),
        ("two words", "two words"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("=?base64?open", "=?base64?open"),
    ],
)
def test_a_value_is_encoded_as_the_specification_shows(text: str, value: str) -> None:
    assert encoded(text) == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_fits_into_a_header_and_can_be_told_from_an_encoded_one(text: str) -> None:
    value = encoded(text)
    assert all(" " <= character <= "~" for character in value)
    assert value == value.strip()
    is_encoded = value.startswith("=?base64?") and value.endswith("?=") and len(value) >= 11
    assert (b64decode(value[9:-2]).decode() if is_encoded else value) == text


def test_a_legacy_message_says_its_session_and_the_version_agreed_on() -> None:
    session = SessionHeaders()
    assert headers(session, "initialize") == {}
    session.session = "s-1"
    session.initialized(b'{"protocolVersion":"2025-06-18"}')
    expected = {"mcp-session-id": "s-1", "mcp-protocol-version": "2025-06-18"}
    assert headers(session, "tools/call", {"name": "x"}) == session.standing() == expected
    assert headers(session, "initialize") == {}, "a new handshake begins without either"


@pytest.mark.parametrize("result", [b"", b"[]", b"{}", b'{"protocolVersion":7}'])
def test_a_handshake_without_a_version_has_none(result: bytes) -> None:
    session = SessionHeaders()
    session.initialized(result)
    assert session.standing() == {}


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": "echo"}, "echo"),
        ("prompts/get", {"name": "greet"}, "greet"),
        ("resources/read", {"uri": "file:///ü"}, "=?base64?ZmlsZTovLy/DvA==?="),
        ("tools/call", {"name": 7}, None),
        ("tools/list", {"name": "echo"}, None),
    ],
)
def test_a_modern_message_says_what_it_is_about(method: str, params: dict[str, Any], name: str | None) -> None:
    found = headers(SessionHeaders(), method, params | META)
    expected = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    assert found == (expected | {"mcp-name": name} if name is not None else expected)


def test_arguments_go_into_the_headers_that_the_schema_wants() -> None:
    session = SessionHeaders()
    nested = {"type": "object", "properties": {"id": argument("integer", "Tenant")}}
    tools = [tool("t", region=argument("string", "Region"), dry=argument("boolean", "Dry-Run"), who=nested)]
    assert listed(session, *tools) == (tools, [])

    def wanted(arguments: Any) -> dict[str, str]:
        found = headers(session, "tools/call", {"name": "t", "arguments": arguments} | META)
        return {name.removeprefix("mcp-param-"): text for name, text in found.items() if name.startswith("mcp-param")}

    assert wanted({"region": "Zürich", "dry": False, "who": {"id": 7}}) == {
        "Region": "=?base64?WsO8cmljaA==?=",
        "Dry-Run": "false",
        "Tenant": "7",
    }
    assert wanted({"region": None, "dry": True, "who": None}) == {"Dry-Run": "true"}
    assert wanted({"region": ["no", "text"], "who": {"id": 10**30}}) == {"Tenant": str(10**30)}
    assert wanted([]) == wanted({}) == wanted(None) == {}
    assert "mcp-param-Region" not in headers(session, "tools/call", {"name": "t", "arguments": {"region": "x"}})


def test_an_argument_that_is_no_number_to_python_goes_without_its_header() -> None:
    session = SessionHeaders()
    listed(session, tool("t", n=argument("integer", "N"), region=argument("string", "Region")))
    line = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"n":1e400,"region":"x"},'
    line += b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
    found = session.of(jsonrpc.decode(line))
    assert "mcp-param-N" not in found
    assert found["mcp-param-Region"] == "x"


def test_a_tool_whose_annotations_are_not_valid_is_left_out_and_named() -> None:
    good, plain = tool("good", region=argument("string", "Region")), tool("plain", x={"type": "string"})
    bad = tool("bad", region=argument("object", "Region"))
    assert listed(SessionHeaders(), good, bad, plain) == ([good, plain], ["bad"])


def test_the_bytes_of_the_tools_that_stay_are_kept() -> None:
    good = b'{"name": "good", "n": 1.0, "big": 123456789012345678901234567890}'
    bad = json.dumps(tool("bad", x=argument("array", "X"))).encode()
    result, _ = SessionHeaders().listed(b'{"tools":[' + good + b", " + bad + b'],"nextCursor":"\\u00e9"}')
    assert bytes(result) == b'{"tools":[' + good + b'],"nextCursor":"\\u00e9"}'


def test_a_tool_that_wants_no_header_any_more_gets_none() -> None:
    session = SessionHeaders()
    listed(session, tool("t", region=argument("string", "Region")))
    listed(session, tool("t", region={"type": "string"}))
    assert "mcp-param-Region" not in headers(session, "tools/call", {"name": "t", "arguments": {"region": "x"}} | META)


@pytest.mark.parametrize("result", [b"[]", b"{}", b'{"tools":7,"y":"x-mcp-header"}', b'{"tools":["x-mcp-header",{}]}'])
def test_what_is_no_list_of_tools_stays_as_it_is(result: bytes) -> None:
    assert SessionHeaders().listed(result) == (result, [])


A = argument("string", "A")


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({"properties": {"a": A}}, {("a",): "A"}),
        ({"properties": {"x-mcp-header": {"type": "string"}}}, {}),
        ({"properties": {"a": {"properties": {"b": argument("boolean", "A-1")}}}}, {("a", "b"): "A-1"}),
        ({"default": {"x-mcp-header": 7}, "examples": [A], "const": A, "enum": [A]}, {}),
        (None, {}),
        ({"properties": {"a": argument("number", "A")}}, None),
        ({"properties": {"a": argument("string", "")}}, None),
        ({"properties": {"a": argument("string", "no token")}}, None),
        ({"properties": {"a": argument("string", "a\r\nb")}}, None),
        ({"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}}, None),
        ({"properties": {"a": {"type": "string", "x-mcp-header": 7}}}, None),
        ({"properties": {"a": A, "b": argument("string", "a")}}, None),
        (A, None),
        ({"items": A}, None),
        ({"anyOf": [{"properties": {"a": A}}]}, None),
        ({"$defs": {"d": A}}, None),
        ({"properties": {"a": {"items": {"properties": {"b": A}}}}}, None),
        ({"patternProperties": {".*": A}}, None),
    ],
)
def test_an_annotation_is_valid_where_properties_alone_lead_to_it(schema: Any, found: dict[Any, str] | None) -> None:
    assert annotated(schema) == found


def test_a_schema_of_any_depth_is_walked() -> None:
    schema: dict[str, Any] = {}
    for _ in range(10_000):
        schema = {"not": schema}
    assert annotated(schema) == {}
