"""A client of either era sees through the daemon what it would see straight at the server, whatever era that speaks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from .entries import Entry, fixture, module, npm
from .harness import Daemon
from .sdk import Mode, connected, direct_client, sdk_client
from .views import Namespace, Questions, view

FIXTURE = Questions(
    calls=(
        ("echo", {"text": "é", "n": [1, 2.5, None]}),
        ("link", {}),
        ("image", {}),
        ("fail", {}),
        ("big", {"bytes": 200_000}),
        ("rpc_error", {"code": 4242}),
    ),
    uris=("note://one", "note://blob", "note://hidden"),
    prompts=(("greet", {"language": "Suomi"}),),
)
ERAS = ("legacy", "modern", "both", "silent-on-probe", "dies-on-probe")


def fleet(directory: Path) -> dict[str, tuple[Entry, Questions, Mode]]:
    """Each server: how to start one, what to ask it, and how a client of its own must begin."""
    files, repository = directory / "files", directory / "repository"
    found = {era: (fixture(era, "--era", era, "--page-size", 4), FIXTURE, _begin(era)) for era in ERAS}
    time_call = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"})
    time_fails = ("convert_time", {"source_timezone": "Nowhere", "time": "12:00", "target_timezone": "UTC"})
    found["time"] = (module("mcp_server_time"), Questions(calls=(time_call, time_fails)), "auto")
    git_calls = tuple((name, {"repo_path": str(repository)}) for name in ("git_status", "git_log"))
    found["git"] = (module("mcp_server_git", "--repository", str(repository)), Questions(calls=git_calls), "auto")
    found["everything"] = (npm("everything", "stdio", mayAsk=[]), EVERYTHING, "legacy")  # more tools where it may
    listing = ("list_directory", {"path": str(files)})
    reading = ("read_text_file", {"path": str(files / "one.txt")})
    forbidden = ("read_text_file", {"path": "/etc/hostname"})
    found["filesystem"] = (npm("filesystem", str(files)), Questions(calls=(listing, reading, forbidden)), "legacy")
    found["memory"] = (npm("memory"), MEMORY, "legacy")
    return found


def _begin(era: str) -> Mode:
    return "legacy" if era.endswith("on-probe") else "auto"


EVERYTHING = Questions(
    calls=(
        ("echo", {"message": "hello"}),
        ("get-sum", {"a": 1, "b": 2}),
        ("get-structured-content", {"location": "Chicago"}),
        ("get-tiny-image", {}),
        ("get-annotated-message", {"messageType": "error", "includeImage": True}),
        ("get-resource-links", {"count": 2}),
        ("get-sum", {"a": "no number"}),
    ),
    uris=("demo://resource/static/document/features.md",),
    prompts=(("simple-prompt", {}), ("args-prompt", {"city": "Oslo"})),
)
ENTITY = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
MEMORY = Questions(
    calls=(("create_entities", {"entities": [ENTITY]}), ("read_graph", {}), ("search_nodes", {"query": "Ada"})),
    uris=("memory://knowledge-graph",),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("servers")
    (made / "files").mkdir()
    (made / "files" / "one.txt").write_text("the text of one\n")
    repository = made / "repository"
    git = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.com", "-C", str(repository))
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "the first"], check=True)
    return made


@pytest.fixture(scope="module")
def daemon(directory: Path) -> Iterator[Daemon]:
    servers = {name: _apart(entry, directory, "through") for name, (entry, _, _) in fleet(directory).items()}
    with Daemon(servers, settings={"naming": "qualified"}) as running:
        yield running.await_up(within=40)


def _apart(entry: Entry, directory: Path, whose: str) -> Entry:
    """The entry with a memory file of its own, so that both copies of a server begin with nothing."""
    return entry | {"env": entry["env"] | {"MEMORY_FILE_PATH": str(directory / f"memory-{whose}.json")}}


NAMES = (*ERAS, "time", "git", "everything", "filesystem", "memory")
_straight: dict[str, dict[str, Any]] = {}


def straight(name: str, directory: Path) -> dict[str, Any]:
    """What a client of its own sees; asked once for each server."""
    if name not in _straight:
        entry, questions, begin = fleet(directory)[name]

        async def main() -> dict[str, Any]:
            async with connected(direct_client(_apart(entry, directory, "straight"), begin)) as client:
                return await view(client, questions, Namespace())

        _straight[name] = anyio.run(main)
    return _straight[name]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_a_server_looks_the_same_through_the_daemon(name: str, mode: Mode, daemon: Daemon, directory: Path) -> None:
    questions = fleet(directory)[name][1]

    async def main() -> dict[str, Any]:
        async with connected(sdk_client(daemon.socket, mode)) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            await _forget(client, name)
            return await view(client, questions, Namespace(name))

    through, own = anyio.run(main), straight(name, directory)
    assert list(through) == list(own)
    for question, answer in own.items():
        assert through[question] == answer, question


async def _forget(client: Client, name: str) -> None:
    """The memory server remembers what the client of the other era told it."""
    if name == "memory":
        await client.call_tool("memory__delete_entities", {"entityNames": ["Ada"]})


def test_the_daemon_speaks_with_each_server_in_its_own_era(daemon: Daemon) -> None:
    spoken = {server["name"]: server["protocolVersion"] for server in daemon.status()["servers"]}
    assert {name: spoken[name] for name in ERAS} == {
        "legacy": "2025-11-25",
        "modern": "2026-07-28",
        "both": "2026-07-28",
        "silent-on-probe": "2025-11-25",
        "dies-on-probe": "2025-11-25",
    }
    assert {spoken[name] for name in ("everything", "filesystem", "memory")} == {"2025-11-25"}


def test_one_connection_serves_both_eras_at_once(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.initialize()
        old = wire.result("tools/list")
        wire.modern = True
        new = wire.result("tools/list")
        assert (new["resultType"], new["cacheScope"]) == ("complete", "private")
        assert [tool["name"] for tool in new["tools"]] == [tool["name"] for tool in old["tools"]]
        assert "resultType" not in old
        wire.modern = False
        assert wire.call("legacy__pid")["content"]
        wire.modern = True
        assert wire.call("legacy__pid")["resultType"] == "complete"


@pytest.mark.parametrize("name", ["legacy", "modern"])
def test_a_server_learns_which_client_asks(name: str, daemon: Daemon) -> None:
    """The modern envelope is the client's own; a legacy client is introduced by the name of its handshake."""
    with daemon.modern({"elicitation": {}}) as modern, daemon.legacy() as legacy:
        lines = [wire.call(f"{name}__received")["structuredContent"]["line"] for wire in (modern, legacy)]
    if name == "modern":
        assert '"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}' in lines[0].replace(" ", "")
        assert all('"name":"wire"' in line.replace(" ", "") for line in lines)
    else:
        assert all("io.modelcontextprotocol" not in line for line in lines)


def test_a_resource_that_is_not_there_is_an_error_of_the_clients_era(daemon: Daemon) -> None:
    with daemon.modern() as modern, daemon.legacy() as legacy:
        for server in ("legacy", "modern"):
            params = {"uri": f"{server}:note://nowhere"}
            assert modern.error("resources/read", params)["code"] == -32602
            assert legacy.error("resources/read", params)["code"] in (-32002, -32602)


@pytest.mark.parametrize("name", ["legacy", "modern"])
def test_completion_asks_the_server_that_owns_the_prompt_or_template(name: str, daemon: Daemon) -> None:
    with daemon.modern() as modern, daemon.legacy() as legacy:
        for wire in (modern, legacy):
            ref: dict[str, str] = {"type": "ref/prompt", "name": f"{name}__greet"}
            asked = {"ref": ref, "argument": {"name": "language", "value": "D"}}
            assert wire.result("completion/complete", asked)["completion"]["values"] == ["Dansk", "Deutsch"]
            ref = {"type": "ref/resource", "uri": f"{name}:note://{name}/{{path}}"}
            asked = {"ref": ref, "argument": {"name": "path", "value": "o"}}
            assert wire.result("completion/complete", asked)["completion"]["values"] == ["one", "other"]


def test_a_modern_client_answers_what_a_modern_server_asks(daemon: Daemon) -> None:
    """Multi round-trip requests pass untouched (basic/patterns/mrtr)."""
    with daemon.modern({"elicitation": {}}) as wire:
        first = wire.call("modern__ask")
        assert first["resultType"] == "input_required"
        assert first["requestState"] == "opaque é state"
        answers = {"who": {"action": "accept", "content": {"name": "Ada"}}}
        done = wire.call("modern__ask", inputResponses=answers, requestState=first["requestState"])
        assert done["structuredContent"] == {"result": answers["who"], "state": "opaque é state"}


def test_of_a_client_that_cannot_be_asked_its_server_learns_so(daemon: Daemon) -> None:
    with daemon.modern() as modern, daemon.legacy() as legacy:
        for wire in (modern, legacy):
            assert wire.error("tools/call", {"name": "modern__ask", "arguments": {}})["code"] == -32021
            assert wire.call("legacy__ask")["structuredContent"]["error"]["code"] == -32601
