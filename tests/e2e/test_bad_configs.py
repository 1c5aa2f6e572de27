"""Configs and sockets that cannot be used: refused with a reason, or contained where a single entry is bad."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .entries import Entry, fixture
from .harness import Daemon, run_serve

UNUSABLE = 78
GOOD = fixture("good")


def serve(text: str | None) -> tuple[int, str]:
    """Exit code and log of a daemon with this config file; None: without one."""
    daemon = Daemon()
    if text is None:
        daemon.config.unlink()
    else:
        daemon.write(text)
    return run_serve(daemon)


@pytest.mark.parametrize(("text", "words"), [(None, "mcp_servers.json"), ('{"mcpServers": {', "not JSON")])
def test_a_file_that_is_refused_ends_serve_with_its_reason(text: str | None, words: str) -> None:
    """As processes only these: what else is refused, `tests/daemon/test_main.py` has."""
    code, log = serve(text)
    assert code == UNUSABLE
    assert words in log
    assert "Traceback" not in log


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str) -> None:
    """Opening a FIFO waits for a writer, reading /dev/zero never ends."""
    daemon = Daemon()
    daemon.config.unlink()
    if kind == "fifo":
        os.mkfifo(daemon.config)
    else:
        daemon.config.symlink_to("/dev/zero")
    code, log = run_serve(daemon, within=5)
    assert (code, "Traceback" in log) == (UNUSABLE, False)


def not_executable() -> Entry:
    return fixture("x") | {"command": str(Path(__file__).resolve())}


BROKEN: dict[str, tuple[Any, str]] = {
    "neither": ({"args": ["x"]}, "command"),
    "both": ({"command": "x", "url": "http://127.0.0.1:9/mcp"}, "url"),
    "no_object": ("python server.py", "object"),
    "args_string": ({"command": "x", "args": "-v"}, "args"),
    "args_number": ({"command": "x", "args": [1]}, "args"),
    "env_list": ({"command": "x", "env": {"A": []}}, "env"),
    "timeout_string": ({"command": "x", "timeout": "long"}, "timeout"),
    "timeout_zero": ({"command": "x", "timeout": 0}, "timeout"),
    "timeout_bool": ({"command": "x", "timeout": True}, "timeout"),
    "bad_type": ({"command": "x", "type": "pigeon"}, "type"),
    "bad_url": ({"url": "ftp://127.0.0.1/mcp"}, "url"),
    "bad_header": ({"url": "http://127.0.0.1:9/mcp", "headers": {"A B": "x"}}, "headers"),
    "undefined": ({"command": "x", "env": {"TOKEN": "${env:MMS_NOWHERE_DEFINED}"}}, "MMS_NOWHERE_DEFINED"),
    "unreadable": ({"command": "x", "args": ["${file:/no/such/file}"]}, "/no/such/file"),
    "no_credential": ({"command": "x", "args": ["${cred:none}"]}, "cred"),
}
"""Entries that disable only themselves, and what their problem mentions."""
UNSTARTABLE: dict[str, Entry] = {
    "not_found": fixture("x") | {"command": "no-such-program-anywhere"},
    "no_such_path": fixture("x") | {"command": "/no/such/program"},
    "not_executable": not_executable(),
    "a_directory": fixture("x") | {"command": "/tmp"},
    "bad_cwd": fixture("x", cwd="/no/such/directory"),
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    broken = {name: entry for name, (entry, _) in BROKEN.items()}
    servers = {**broken, "good": GOOD, **UNSTARTABLE, "off": fixture("x", disabled=True)}
    with Daemon(servers) as running:
        yield running.await_up("good")


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, (_, words) in BROKEN.items()], ids=BROKEN)
def test_a_broken_entry_is_parked_with_its_reason_and_the_rest_runs(name: str, words: str, daemon: Daemon) -> None:
    row = daemon.server(name)
    assert (row["state"], row["reason"].partition(":")[0]) == ("parked", "config")
    found = [problem for problem in daemon.status()["config"]["lastReload"]["problems"] if problem["server"] == name]
    assert found, f"no problem of {name} in the status"
    assert any(words in problem["field"] + problem["message"] for problem in found)


def test_the_good_entry_works_beside_all_the_broken_ones(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        assert wire.call("echo")["structuredContent"]["server"] == "good"
    assert daemon.server("off")["state"] == "disabled"


def test_a_call_to_a_broken_entry_says_that_it_is_broken(daemon: Daemon) -> None:
    with daemon.legacy() as wire:
        error = wire.error("tools/call", {"name": "neither__anything", "arguments": {}})
        assert "neither" in error["message"]


@pytest.mark.parametrize("name", UNSTARTABLE)
def test_a_command_that_cannot_run_is_parked_and_says_so(name: str, daemon: Daemon) -> None:
    wanted: dict[str, Any] = {name: "parked"}
    daemon.await_states(**wanted)
    row = daemon.server(name)
    assert row["reason"].partition(":")[0] == "spawn"
    assert row["nextAttemptAt"], "it is tried again, some time"
    assert row["consecutiveFailures"] == 1


def test_variables_are_expanded_where_they_stand(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    entry = fixture("one")
    entry["env"] = entry["env"] | {
        "A": "${env:MMS_TEST_VALUE}/x",
        "B": "${MMS_TEST_VALUE}",
        "C": "${MMS_NOT_SET:-a default}",
        "D": f"${{file:{secret}}}",
        "E": "$${literal}",
    }
    entry["args"] = [*entry["args"], "--version", "${MMS_TEST_VALUE}"]
    environment = {"MMS_TEST_VALUE": "from outside", "MMS_NOT_PASSED": "stays here"}
    with Daemon({"one": entry}, environment=environment) as daemon, daemon.await_up().legacy() as wire:
        found = wire.call("environment")["structuredContent"]
        seen = {name: found["env"].get(name) for name in "ABCDE"}
        assert seen["A"] == "from outside/x"
        assert seen["B"] == "from outside"
        assert seen["C"] == "a default"
        assert seen["D"].rstrip("\n") == "from a file"
        assert seen["E"] == "${literal}"
        assert found["argv"][-1] == "from outside"
        assert "MMS_NOT_PASSED" not in found["env"]


def test_a_config_as_other_hosts_write_it_works_unchanged() -> None:
    """VS Code's `servers`, and keys of other hosts."""
    entry = fixture("one", type="stdio", gallery=True, autoApprove=["*"])
    daemon = Daemon()
    daemon.write(json.dumps({"servers": {"one": entry}, "inputs": [], "daemon": {"metrics": {"listen": "off"}}}))
    with daemon:
        daemon.await_states(one="up")


def test_several_daemons_at_once_make_one() -> None:
    with Daemon({"good": GOOD}) as first:
        rivals = [Daemon({"good": GOOD}) for _ in range(4)]
        try:
            for rival in rivals:
                rival.socket = first.socket
                rival.launch()
            assert [rival.wait() for rival in rivals] == [1] * 4
            assert first.status()["pid"] == first.pid
        finally:
            for rival in rivals:
                rival.remove()


def test_a_socket_that_a_dead_daemon_left_is_replaced() -> None:
    daemon = Daemon({"good": GOOD})
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(daemon.socket))
    stale.close()
    assert daemon.socket.exists()
    with daemon:
        daemon.await_up()


def test_a_socket_on_which_somebody_else_listens_is_never_taken() -> None:
    daemon = Daemon({"good": GOOD})
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(daemon.socket))
        living.listen()
        inode = daemon.socket.stat().st_ino
        daemon.launch()
        assert daemon.wait() == 1
        assert "another program" in daemon.log
        assert daemon.socket.stat().st_ino == inode
    daemon.remove()


def test_a_file_that_is_no_socket_is_never_removed() -> None:
    daemon = Daemon({"good": GOOD})
    daemon.socket.write_text("precious")
    daemon.launch()
    assert daemon.wait() == 1
    assert daemon.socket.read_text() == "precious"
    daemon.remove()


def test_a_path_that_is_too_long_for_a_socket_is_refused_by_name() -> None:
    daemon = Daemon({"good": GOOD})
    daemon.socket = daemon.directory / ("d" * 60) / ("s" * 60)
    code, log = run_serve(daemon)
    assert code in (1, 2)
    assert "107" in log
    assert "Traceback" not in log


def test_the_socket_and_its_directory_are_private() -> None:
    daemon = Daemon({"good": GOOD})
    daemon.socket = daemon.directory / "fresh" / "mcp.sock"
    with daemon:
        assert daemon.socket.stat().st_mode & 0o777 == 0o600
        assert daemon.socket.parent.stat().st_mode & 0o777 == 0o700
