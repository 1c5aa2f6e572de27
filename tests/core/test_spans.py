"""What a span is called and what it tells."""

import pytest

from mcp_multi_server.core.spans import LONGEST, Operation, attributes, error_attributes, span_name


def operation(method: str = "tools/call", target: str = "log", url: str = "") -> Operation:
    return Operation(method, target, "git", "2026-07-28", url, 7)


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("tools/call", "log", "tools/call log"),
        ("prompts/get", "greet", "prompts/get greet"),
        ("resources/read", "note://one", "resources/read"),
        ("completion/complete", "greet", "completion/complete"),
        ("tools/call", "x" * 10_000, "tools/call " + "x" * LONGEST),
    ],
)
def test_a_span_is_named_by_method_and_tool_but_never_by_uri(method: str, target: str, name: str) -> None:
    assert span_name(operation(method, target)) == name


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("https://example.com/mcp?token=secret", "example.com", 443),
        ("http://user:secret@[::1]:8080/mcp", "::1", 8080),
        ("http://example.com", "example.com", 80),
    ],
)
def test_of_a_url_only_host_and_port_are_told(url: str, address: str, port: int) -> None:
    told = attributes(operation(url=url))
    assert (told["server.address"], told["server.port"], told["network.transport"]) == (address, port, "tcp")
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("method", "attribute"),
    [
        ("tools/call", "gen_ai.tool.name"),
        ("prompts/get", "gen_ai.prompt.name"),
        ("resources/read", "mcp.resource.uri"),
        ("completion/complete", None),
    ],
)
def test_the_target_has_the_name_that_its_kind_has(method: str, attribute: str | None) -> None:
    told = attributes(operation(method, "what"))
    assert [name for name, value in told.items() if value == "what"] == ([attribute] if attribute else [])


def test_a_child_has_no_address() -> None:
    told = attributes(operation())
    assert told["network.transport"] == "pipe"
    assert not [name for name in told if name.startswith("server.")]


@pytest.mark.parametrize(
    ("error", "status"), [("-32602", "-32602"), ("4242", "4242"), ("timeout", None), ("tool_error", None)]
)
def test_a_code_is_the_status_and_a_word_is_only_the_type(error: str, status: str | None) -> None:
    told = error_attributes(error)
    assert (told["error.type"], told.get("rpc.response.status_code")) == (error, status)
