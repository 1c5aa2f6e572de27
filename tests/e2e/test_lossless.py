"""What a server wrote arrives as it was written: byte for byte in the same era, member for member across eras."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fixtures.fixture import EXACT, META, MODERN, member

from .entries import fixture
from .harness import Daemon
from .pipe import Pipe
from .wire import Wire, result_of

SERVERS = {
    "old": fixture("old", "--era", "legacy", "--tools", 1),
    "new": fixture("new", "--era", "modern", "--tools", 2),
}
BARE = {"old": "extra_0", "new": "extra_1"}
"""A tool of each server whose bare name is its own; both answer like `echo`."""
ARGUMENTS = (
    '{"big":123456789012345678901234567890, "float":1.0,"exp":1E+2, "zero":-0.0,"deep":'
    + "[" * 150
    + "]" * 150
    + ',"escape":"\\u00e9\\/\\ud83d\\ude00","raw":"é😀","_meta":{"uri":"note://one"},"name":"echo","x":null}'
)
ENVELOPE = f'"{META}protocolVersion":"{MODERN}","{META}clientCapabilities":{{}}'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon(SERVERS) as running:
        yield running.await_up()


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    with daemon.legacy() as made:
        yield made


def params(name: str, era: str, arguments: str = ARGUMENTS) -> str:
    meta = f'"_meta":{{{ENVELOPE if era == "new" else ""}{"," if era == "new" else ""}"vendor.example/k":1.0}}'
    return f'{{"x-top" : 1.0,{meta},"arguments":{arguments},"name":"{name}"}}'


def ask(wire: Wire, params: str, *, method: str = "tools/call", id: str = '"an id"') -> bytes:
    """The line that answers; the request goes out exactly as given."""
    wire.send(f'{{"id":{id},"method":"{method}","jsonrpc":"2.0","params":{params}}}'.encode())
    return wire.answer_line(json.loads(id))


def straight(server: str, params: str) -> str:
    """The result of the same call without the daemon."""
    with Pipe(SERVERS[server]) as pipe:
        if server == "old":
            pipe.initialize()
        pipe.send(f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode())
        return result_of(pipe.line())


@pytest.mark.parametrize("server", ["old", "new"])
@pytest.mark.parametrize("qualified", [False, True])
def test_a_result_is_the_same_bytes_in_the_same_era(server: str, qualified: bool, wire: Wire) -> None:
    name = f"{server}__{BARE[server]}" if qualified else BARE[server]
    through = result_of(ask(wire, params(name, server)))
    assert through == straight(server, params(BARE[server], server))
    assert member(through, "x-top") == EXACT
    assert member(through, "structuredContent", "arguments") == ARGUMENTS


@pytest.mark.parametrize(("server", "era"), [("old", "new"), ("new", "old")])
def test_across_eras_every_member_keeps_its_bytes(server: str, era: str, wire: Wire) -> None:
    through = result_of(ask(wire, params(BARE[server], era)))
    own = straight(server, params(BARE[server], server))
    for name in ("content", "structuredContent", "x-top"):
        assert member(through, name) == member(own, name), name
    assert json.loads(member(through, "_meta"))["vendor.example/big"] == 123456789012345678901234567890
    assert ("resultType" in json.loads(through)) is (era == "new")


@pytest.mark.parametrize("server", ["old", "new"])
def test_params_reach_a_server_of_the_same_era_as_the_same_bytes(server: str, wire: Wire) -> None:
    """`received` is claimed by both servers, so the second is reached by its qualified name alone."""
    said = params("received" if server == "old" else "new__received", server)
    line = json.loads(result_of(ask(wire, said)))["structuredContent"]["line"]
    if server == "old":
        assert member(line, "params") == said
    for name in ("x-top", "_meta", "arguments"):
        assert member(line, "params", name) == member(said, name)
    assert member(line, "params", "name") == '"received"'


@pytest.mark.parametrize(("server", "era"), [("old", "new"), ("new", "old")])
def test_across_eras_params_keep_what_no_era_defines(server: str, era: str, wire: Wire) -> None:
    said = params(f"{server}__received", era)
    line = json.loads(result_of(ask(wire, said)))["structuredContent"]["line"]
    assert member(line, "params", "arguments") == ARGUMENTS
    assert member(line, "params", "x-top") == "1.0"
    assert member(line, "params", "_meta", "vendor.example/k") == "1.0"


@pytest.mark.parametrize("era", ["old", "new"])
@pytest.mark.parametrize("server", ["old", "new"])
def test_an_error_keeps_its_code_message_and_data(server: str, era: str, wire: Wire) -> None:
    error = member(ask(wire, params(f"{server}__rpc_error", era, '{"code":77}')).decode(), "error")
    assert member(error, "code") == "77"
    assert member(error, "message") == '"no such luck"'
    assert member(error, "data").replace(" ", "") == '{"exact":123456789012345678901234567890,"keep":[1.0,null]}'


@pytest.mark.parametrize("era", ["old", "new"])
@pytest.mark.parametrize("server", ["old", "new"])
def test_a_read_keeps_members_that_no_revision_knows(server: str, era: str, wire: Wire) -> None:
    meta = f'"_meta":{{{ENVELOPE}}},' if era == "new" else ""
    result = result_of(ask(wire, f'{{{meta}"uri":"{server}:note://one"}}', method="resources/read"))
    assert member(result, "x-top") == EXACT
    assert json.loads(result)["contents"][0]["x-vendor"] == {"keep": True}


def test_what_is_listed_keeps_every_member(wire: Wire) -> None:
    with Pipe(SERVERS["old"]) as pipe:
        pipe.initialize()
        own = {tool["name"]: tool for tool in pipe.ask("tools/list")["result"]["tools"]}
    listed = {tool["name"]: tool for tool in wire.result("tools/list")["tools"]}
    assert listed["extra_0"].pop("_meta") == {"serverName": "old"}
    assert listed["extra_0"] == own["extra_0"]
    assert listed["extra_0"]["inputSchema"]["x-number"] == 123456789012345678901234567890
    wire.post("resources/list", id="R")
    assert b'"x-vendor":{"keep":1.0}' in wire.answer_line("R").replace(b" ", b"")


@pytest.mark.parametrize(
    "id", ["7", '"7"', "-3", "0", '""', '"\\u00e9\\""', "9007199254740993", "12345678901234567890"]
)
def test_an_id_comes_back_as_it_was_written(id: str, wire: Wire) -> None:
    line = ask(wire, params(BARE["old"], "old"), id=id)
    assert member(line.decode(), "id") == id


@pytest.mark.parametrize("token", ["7", '"7"', '"\\u00e9"', "12345678901234567890"])
@pytest.mark.parametrize("server", ["old", "new"])
def test_progress_keeps_the_clients_token_and_unknown_members(token: str, server: str, wire: Wire) -> None:
    arguments = '{"seconds":0.05,"steps":1}'
    said = f'{{"name":"{server}__slow","_meta":{{"progressToken":{token}}},"arguments":{arguments}}}'
    wire.send(f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{said}}}'.encode())
    line = wire.line().decode()
    assert member(line, "method") == '"notifications/progress"'
    assert member(line, "params", "progressToken") == token
    assert member(line, "params", "progress") == "1.0"
    assert member(line, "params", "x-vendor") == "1E+2"
    assert wire.answer(1)["result"]["structuredContent"]["seconds"] == 0.05


@pytest.mark.parametrize("size", [100_000, 3_000_000, 12_000_000])
def test_a_large_result_arrives_whole(size: int, wire: Wire) -> None:
    assert wire.call("old__big", {"bytes": size}, within=30)["content"][0]["text"] == "x" * size


def test_large_arguments_arrive_whole(wire: Wire) -> None:
    text = "é" * 600_000
    assert wire.call("old__echo", {"text": text}, within=30)["structuredContent"]["arguments"]["text"] == text
