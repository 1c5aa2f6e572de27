"""What each era requires, and how messages of one are translated for the other."""

import json
from typing import Any

import msgspec
import pytest

from mcp_multi_server.core import jsonrpc, protocol
from mcp_multi_server.core.errors import INVALID_PARAMS, UNSUPPORTED_PROTOCOL_VERSION, RpcError
from mcp_multi_server.core.jsonrpc import Buffer, Members
from mcp_multi_server.core.protocol import (
    CAPABILITIES_KEY,
    CLIENT_INFO_KEY,
    LOG_LEVEL_KEY,
    SERVER_INFO_KEY,
    VERSION_KEY,
    Era,
)

L, M = Era.LEGACY, Era.MODERN
ENVELOPE = {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {"sampling": {}}, CLIENT_INFO_KEY: {"name": "c"}}


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def meta(value: dict[str, Any]) -> Members:
    return jsonrpc.members(raw(value))


def plain(found: object) -> Any:
    return json.loads(jsonrpc.encode(found))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({VERSION_KEY: "2026-07-28"}, INVALID_PARAMS),
        ({VERSION_KEY: 20260728, CAPABILITIES_KEY: {}}, INVALID_PARAMS),
        ({VERSION_KEY: None, CAPABILITIES_KEY: {}}, INVALID_PARAMS),
        ({VERSION_KEY: "1900-01-01", CAPABILITIES_KEY: {}}, UNSUPPORTED_PROTOCOL_VERSION),
        ({VERSION_KEY: "2025-11-25", CAPABILITIES_KEY: {}}, UNSUPPORTED_PROTOCOL_VERSION),
    ],
)
def test_an_envelope_that_lacks_something_is_refused(given: dict[str, Any], code: int) -> None:
    with pytest.raises(RpcError) as refused:
        protocol.check_envelope(meta(given))
    assert refused.value.code == code
    if code == UNSUPPORTED_PROTOCOL_VERSION:
        assert refused.value.data == {"supported": ["2026-07-28"], "requested": given[VERSION_KEY]}


@pytest.mark.parametrize("given", [ENVELOPE, {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {}}])
def test_a_whole_envelope_passes(given: dict[str, Any]) -> None:
    protocol.check_envelope(meta(given))


def test_the_revision_may_be_written_with_escapes() -> None:
    protocol.check_envelope({VERSION_KEY: msgspec.Raw(rb'"2026\u002d07\u002d28"'), CAPABILITIES_KEY: raw({})})


class Introduced:
    """What a legacy client said in its handshake, and afterwards."""

    client_info: Buffer | None = b'{"name":"l"}'

    def __init__(self, capabilities: dict[str, Any] | None = None, log_level: str | None = None) -> None:
        self.capabilities = meta(capabilities or {})
        self.log_level = log_level


def forwarded(
    given: dict[str, Any] | None,
    client: Era,
    server: Era,
    token: int | None = None,
    introduction: Introduced | None = None,
) -> Any:
    found = protocol.meta_for_server(
        None if given is None else meta(given),
        client=client,
        server=server,
        introduction=introduction or Introduced(),
        token=token,
    )
    return None if found is None else plain(found)


def test_to_a_server_of_the_same_era_the_meta_is_forwarded_as_it_is() -> None:
    given = meta(ENVELOPE)
    same = protocol.meta_for_server(given, client=M, server=M, introduction=Introduced(), token=None)
    assert same is given
    assert forwarded(None, L, L) is None


def test_a_modern_clients_envelope_is_taken_off_for_a_legacy_server() -> None:
    assert forwarded(ENVELOPE | {"traceparent": "00-1"}, M, L) == {"traceparent": "00-1"}
    assert forwarded(ENVELOPE, M, L) is None


def test_a_legacy_client_gets_an_envelope_for_a_modern_server() -> None:
    assert forwarded({"vendor/x": 12345678901234567890}, L, M) == {
        "vendor/x": 12345678901234567890,
        VERSION_KEY: "2026-07-28",
        CAPABILITIES_KEY: {},
        CLIENT_INFO_KEY: {"name": "l"},
    }


def test_what_a_legacy_client_can_be_asked_and_logs_is_told_to_a_modern_server_with_each_request() -> None:
    told = forwarded(None, L, M, introduction=Introduced({"sampling": {"x": 1.0}}, "notice"))
    assert (told[CAPABILITIES_KEY], told[LOG_LEVEL_KEY]) == ({"sampling": {"x": 1.0}}, "notice")
    assert forwarded(None, L, L, introduction=Introduced({"sampling": {}}, "notice")) is None


@pytest.mark.parametrize(("client", "server"), [(L, L), (L, M), (M, L), (M, M)])
def test_the_progress_token_becomes_ours(client: Era, server: Era) -> None:
    given = (ENVELOPE if client is M else {}) | {"progressToken": "mine"}
    assert forwarded(given, client, server, token=7)["progressToken"] == 7


def result(given: object, method: str, client: Era, server: Era) -> Any:
    return json.loads(bytes(protocol.result_for_client(raw(given), method=method, client=client, server=server)))


def test_a_client_of_the_same_era_gets_the_result_as_it_is() -> None:
    same = raw({"a": 1})
    assert protocol.result_for_client(same, method="tools/call", client=L, server=L) is same


def test_a_modern_client_gets_what_its_era_requires() -> None:
    body = result({"content": [], "x-top": 1, "_meta": {"v": 2}}, "tools/call", M, L)
    assert body["resultType"] == "complete"
    assert body["x-top"] == 1
    assert body["_meta"] == {"v": 2, SERVER_INFO_KEY: protocol.OWN_INFO}
    assert "ttlMs" not in body
    read = result({"contents": []}, "resources/read", M, L)
    assert (read["ttlMs"], read["cacheScope"]) == (0, "private")


def test_a_legacy_client_gets_nothing_of_the_modern_era() -> None:
    modern = {"contents": [], "resultType": "complete", "ttlMs": 5, "cacheScope": "public"}
    assert result(modern | {"_meta": {SERVER_INFO_KEY: {}}}, "resources/read", L, M) == {"contents": []}
    assert result(modern | {"_meta": {SERVER_INFO_KEY: {}, "v": 1}}, "resources/read", L, M) == {
        "contents": [],
        "_meta": {"v": 1},
    }


def test_a_meta_that_is_no_object_is_left_to_the_client() -> None:
    assert result({"content": [], "_meta": 1}, "tools/call", M, L) == {
        "content": [],
        "_meta": 1,
        "resultType": "complete",
    }
    assert result({"content": [], "_meta": [SERVER_INFO_KEY]}, "tools/call", L, M) == {
        "content": [],
        "_meta": [SERVER_INFO_KEY],
    }


def test_a_legacy_client_cannot_be_asked_for_input() -> None:
    with pytest.raises(RpcError, match="2026-07-28"):
        result({"resultType": "input_required", "inputRequests": {}}, "tools/call", L, M)


@pytest.mark.parametrize(
    ("client", "server", "method", "code", "expected"),
    [
        (M, L, "resources/read", -32002, -32602),
        (L, L, "resources/read", -32002, -32002),
        (M, L, "tools/call", -32002, -32002),
        (M, L, "resources/read", -32603, -32603),
        (L, M, "resources/read", -32602, -32602),
    ],
)
def test_resource_not_found_has_the_code_of_the_clients_era(
    client: Era, server: Era, method: str, code: int, expected: int
) -> None:
    error = raw({"code": code, "message": "no", "data": {"uri": "x"}, "vendor": 1})
    found = json.loads(bytes(protocol.error_for_client(error, method=method, client=client, server=server)))
    assert found == {"code": expected, "message": "no", "data": {"uri": "x"}, "vendor": 1}


@pytest.mark.parametrize(
    ("requested", "answered"),
    [("2024-11-05", "2024-11-05"), ("2025-11-25", "2025-11-25"), ("2099-01-01", "2025-11-25"), (None, "2025-11-25")],
)
def test_initialize_offers_the_revision_asked_for_or_the_latest_legacy_one(
    requested: str | None, answered: str
) -> None:
    assert protocol.initialize_result(requested, "", 1024)["protocolVersion"] == answered


def test_instructions_are_passed_on_where_there_are_any() -> None:
    assert protocol.initialize_result(None, "use it well", 1024)["instructions"] == "use it well"
    assert "instructions" not in protocol.discover_result("", 1024)


@pytest.mark.parametrize(
    "answer", [{}, {"supportedVersions": "2026-07-28"}, {"supportedVersions": ["2027-01-01"]}, [], "x"]
)
def test_what_is_no_modern_discovery_means_no_modern_server(answer: object) -> None:
    assert protocol.from_discover(raw(answer)) is None


@pytest.mark.parametrize("answer", [[], {}, {"protocolVersion": 3}, {"protocolVersion": "1999-01-01"}])
def test_an_unusable_initialize_result_says_why(answer: object) -> None:
    with pytest.raises(ValueError, match=r"protocol version|not an object"):
        protocol.from_initialize(raw(answer))


def test_capabilities_are_read_whatever_their_shape() -> None:
    odd = {"tools": {"listChanged": "yes"}, "prompts": True, "resources": {"listChanged": True}}
    found = protocol.from_initialize(raw({"protocolVersion": "2025-06-18", "capabilities": odd}))
    assert (found.has("tools"), found.has("prompts"), found.has("logging")) == (True, False, False)
    assert (found.announces_changes("tools"), found.announces_changes("resources")) == (False, True)


def test_a_listing_has_the_form_of_the_era() -> None:
    assert json.loads(protocol.listing_result("tools", b"[1]", L)) == {"tools": [1]}
    modern = json.loads(protocol.listing_result("tools", b"[1]", M))
    assert modern["tools"] == [1]
    assert (modern["resultType"], modern["ttlMs"], modern["cacheScope"]) == ("complete", 0, "private")
