"""URIs inside results."""

import json
from typing import Any

import pytest

from mcp_multi_server.core.resource_links import renamed_links


def rename(uri: str) -> str:
    return uri if uri.startswith("keep:") else f"srv:{uri}"


def renamed(body: object, method: str) -> Any:
    return json.loads(bytes(renamed_links(json.dumps(body).encode(), method, rename)))


def test_links_and_embedded_resources_of_a_tool_are_renamed() -> None:
    body = {
        "content": [
            {"type": "text", "text": '"uri"'},
            {"type": "resource_link", "uri": "a:1", "name": "n", "x": 1},
            {"type": "resource", "resource": {"uri": "a:2", "text": "t"}},
            {"type": "resource_link", "uri": "keep:3", "name": "n"},
            {"type": "resource", "resource": {"uri": "keep:5", "text": "t"}},
        ],
        "structuredContent": {"uri": "a:4"},
    }
    found = renamed(body, "tools/call")
    assert [block.get("uri") for block in found["content"]] == [None, "srv:a:1", None, "keep:3", None]
    assert found["content"][2]["resource"] == {"uri": "srv:a:2", "text": "t"}
    assert found["content"][4]["resource"] == {"uri": "keep:5", "text": "t"}
    assert found["structuredContent"] == {"uri": "a:4"}, "content says nothing of it"


def test_structured_content_gets_the_same_names_as_content_and_keeps_all_else() -> None:
    link = b'{"type":"resource_link","uri":"a:1","n":1E+2}'
    before = (
        b'{"content":[%b],"structuredContent":{ "x":[ "a:1" , "a:12",{"a:1":"keep:1"}],"y":[ 1E+2, "\\u00e9" ]}}' % link
    )
    after = bytes(renamed_links(before, "tools/call", rename))
    assert json.loads(after)["structuredContent"]["x"] == ["srv:a:1", "a:12", {"a:1": "keep:1"}]
    assert b'[ 1E+2, "\\u00e9" ]' in after
    assert b'{"a:1":"keep:1"}' in after


def test_a_structure_too_deep_to_be_searched_keeps_both_as_they_came() -> None:
    deep = b"[" * 700 + b'"a:1"' + b"]" * 700
    before = b'{"content":[{"type":"resource_link","uri":"a:1"}],"structuredContent":{"x":%b}}' % deep
    after = json.loads(bytes(renamed_links(before, "tools/call", rename)))
    assert ("srv:" in json.dumps(after["structuredContent"])) is (after["content"][0]["uri"] == "srv:a:1")


def test_the_messages_of_a_prompt_are_searched_one_or_many_blocks_each() -> None:
    link = {"type": "resource_link", "uri": "a:1", "name": "n"}
    found = renamed({"messages": [{"role": "user", "content": link}, {"content": [link]}, {}]}, "prompts/get")
    assert found["messages"][0]["content"]["uri"] == "srv:a:1"
    assert found["messages"][1]["content"][0]["uri"] == "srv:a:1"
    assert found["messages"][2] == {}


def test_the_contents_of_a_read_are_renamed() -> None:
    assert renamed({"contents": [{"uri": "a:1", "text": "t"}]}, "resources/read")["contents"][0]["uri"] == "srv:a:1"


def test_what_is_beside_a_renamed_link_stays_the_bytes_it_came_as() -> None:
    before = b'{"content":[{"type":"resource_link","uri":"a:1","n":1E+2}],"big":123456789012345678901, "e":"\\u00e9"}'
    after = bytes(renamed_links(before, "tools/call", rename))
    assert b'"n":1E+2' in after
    assert b"123456789012345678901" in after
    assert b'"\\u00e9"' in after


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": "x", "messages": 3, "contents": {"uri": "a:1"}},
        {"content": ["uri"], "messages": [1], "contents": ["uri"]},
        {"content": [{"type": "resource", "resource": "uri"}], "messages": [{"content": 3}], "contents": [{"uri": 1}]},
    ],
)
def test_a_result_of_another_shape_comes_back_untouched(method: str, body: object) -> None:
    before = json.dumps(body).encode()
    assert bytes(renamed_links(before, method, rename)) == before
