"""Input requests: what may be asked of whom, how a modern server's are read, and how a modern client is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core import input_requests, jsonrpc
from mcp_multi_server.core.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from mcp_multi_server.core.jsonrpc import Members, Raw

EXACT = b'{"z":123456789012345678901234567890,"a":1.0,"s":"\\u00e9\\/"}'


def members(value: dict[str, Any]) -> Members:
    return jsonrpc.members(jsonrpc.encode(value))


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "code"),
    [
        ("sampling/createMessage", {}, {"sampling": {}}, None),
        ("sampling/createMessage", {}, {"elicitation": {}}, METHOD_NOT_FOUND),
        ("roots/list", {}, {"roots": {"listChanged": True}}, None),
        ("roots/list", {}, {}, METHOD_NOT_FOUND),
        ("elicitation/create", {}, {"elicitation": {}}, None),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {}}, None),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {"url": {}}}, None),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, None),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, INVALID_PARAMS),
        ("tools/call", {}, {"tools/call": {}}, METHOD_NOT_FOUND),
    ],
)
def test_a_client_can_be_asked_what_it_declares(
    method: str, params: dict[str, Any], capabilities: dict[str, Any], code: int | None
) -> None:
    refusal = input_requests.refusal(method, members(params), members(capabilities))
    assert (refusal.code if refusal else None) == code


def test_a_method_of_a_megabyte_is_not_repeated() -> None:
    assert len(input_requests.unsupported("x" * 1_000_000).message) < 200


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (None, {}),
        (b"[]", {}),
        (b"null", {}),
        (b'{"sampling":{"tools":{}},"tasks":{},"roots":true,"elicitation":null}', {"sampling": {"tools": {}}}),
    ],
)
def test_of_a_clients_capabilities_those_count_that_are_passed_on(raw: bytes | None, kept: dict[str, Any]) -> None:
    assert json.loads(jsonrpc.encode(input_requests.client_capabilities(raw))) == kept


def test_what_we_declare_has_all_modes_and_no_promise_to_tell_of_changes() -> None:
    assert input_requests.declared(["roots", "elicitation"]) == {"elicitation": {"form": {}, "url": {}}, "roots": {}}
    assert input_requests.declared([]) == {}


@pytest.mark.parametrize(
    ("params", "meta"),
    [
        ({}, {}),
        ({"_meta": {"a": 1}}, {"a": 1}),
        ({"_meta": {"serverName": "another"}}, {}),
        ({"_meta": None}, {}),
        ({"_meta": [1]}, {}),
    ],
)
def test_the_server_is_named_whatever_it_says_itself(params: dict[str, Any], meta: dict[str, Any]) -> None:
    assert json.loads(input_requests.named(members(params), "öne"))["_meta"] == meta | {"serverName": "öne"}


@pytest.mark.parametrize("result", [b"{}", b'{"resultType":"complete"}', b'{"resultType":null,"x":"input_required"}'])
def test_an_answer_asks_for_nothing(result: bytes) -> None:
    assert input_requests.input_needed(result) is None


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b',"inputRequests":{}',
        b',"inputRequests":[],"requestState":"s"',
        b',"inputRequests":{"a":1}',
        b',"inputRequests":{"a":{}}',
        b',"inputRequests":{"a":{"method":7}}',
        b',"inputRequests":{"a":{"method":"roots/list","params":[]}}',
    ],
)
def test_an_input_request_that_cannot_be_read_is_the_servers_fault(rest: bytes) -> None:
    with pytest.raises(RpcError) as broken:
        input_requests.input_needed(b'{"resultType":"input_required"%b}' % rest)
    assert broken.value.code == INTERNAL_ERROR


def test_an_input_request_is_read_and_its_state_kept_as_it_is() -> None:
    found = input_requests.input_needed(
        b'{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"\\u00e9"}'
    )
    assert found is not None
    assert (found.requests, found.state) == ({"k": ("roots/list", {})}, Raw(b'"\\u00e9"'))
    assert jsonrpc.encode(found.retry({"k": Raw(EXACT)})) == b'{"inputResponses":{"k":%b},"requestState":"\\u00e9"}' % (
        EXACT
    )


keys = st.text(max_size=8)
objects = st.dictionaries(keys, st.none() | st.integers() | keys | st.lists(keys, max_size=2), max_size=3)


questions = st.tuples(st.sampled_from(sorted(input_requests.ABILITIES)), objects)


@given(requests=st.dictionaries(keys, questions, min_size=1, max_size=3))
def test_what_is_asked_is_what_is_read(requests: dict[str, tuple[str, dict[str, Any]]]) -> None:
    made = input_requests.needs_input_result(
        {key: (method, jsonrpc.encode(params)) for key, (method, params) in requests.items()}, "s"
    )
    found = input_requests.input_needed(made)
    assert found is not None
    assert found.state == Raw(b'"s"')
    read = {key: (method, json.loads(jsonrpc.encode(params))) for key, (method, params) in found.requests.items()}
    assert read == requests


@given(responses=st.dictionaries(keys, objects, max_size=3))
def test_responses_are_read_as_they_were_given(responses: dict[str, dict[str, Any]]) -> None:
    found = input_requests.responses_in(members({"inputResponses": responses}))
    assert {key: json.loads(bytes(raw)) for key, raw in found.items()} == responses


@pytest.mark.parametrize("responses", [None, [], 1, {"a": 1}, {"a": None}, {"a": [1]}])
def test_responses_that_are_none_are_refused(responses: object) -> None:
    with pytest.raises(RpcError) as refused:
        input_requests.responses_in(members({"inputResponses": responses}))
    assert refused.value.code == INVALID_PARAMS


def test_a_call_may_come_back_without_responses() -> None:
    assert input_requests.responses_in({}) == {}
