"""Configs and sockets that cannot be used: refused with a reason, or contained where a single entry is bad."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .entries import Entry, fixture
from .harness import Daemon, eventually, run_serve
from .processes import descendants

UNUSABLE = 78
GOOD = fixture("good")


def serve(text: str | bytes | None, **more: Any) -> tuple[int, str]:
    """Exit code and log of a daemon with this config file; None: without one."""
    daemon = Daemon(**more)
    if text is None:
        daemon.config.unlink()
    else:
        daemon.write(text)
    return run_serve(daemon)


FILES: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "mcp_servers.json"),
    "empty": ("", "empty"),
    "blank": ("  \n", "empty"),
    "cut short": ('{"mcpServers": {', "not JSON"),
    "a comment": ('// servers\n{"mcpServers": {}}', "comments"),
    "a trailing comma": ('{"mcpServers": {},}', "comma"),
    "a list": ("[]", "object"),
    "no servers": ("{}", "mcpServers"),
    "servers as a list": ('{"mcpServers": []}', "mcpServers"),
    "two of one name": ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "a"),
    "an empty name": ('{"mcpServers": {"": {"command": "x"}}}', "name"),
    "names that coincide": ('{"mcpServers": {"a.b": {"command": "x"}, "a b": {"command": "y"}}}', "prefix"),
    "bad daemon object": ('{"mcpServers": {}, "daemon": []}', "daemon"),
    "bad naming": ('{"mcpServers": {}, "daemon": {"naming": "short"}}', "daemon.naming"),
    "bad listen address": ('{"mcpServers": {}, "daemon": {"metrics": {"listen": "9464"}}}', "daemon.metrics.listen"),
    "negative hold": ('{"mcpServers": {}, "daemon": {"hold": -1}}', "daemon.hold"),
    "no text": (b"\xff\xfe\x00{", "UTF-8"),
    "nested without end": ('{"mcpServers":' + "[" * 100_000, "nested"),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_a_file_that_is_refused_ends_serve_with_its_reason(text: str | bytes | None, words: str) -> None:
    code, log = serve(text)
    assert code == UNUSABLE
    assert words in log
    assert "Traceback" not in log


def test_a_directory_in_the_place_of_the_file_is_refused() -> None:
    daemon = Daemon()
    daemon.config.unlink()
    daemon.config.mkdir()
    code, log = run_serve(daemon)
    assert (code, "Traceback" in log) == (UNUSABLE, False)


def test_a_file_that_anybody_may_write_is_refused() -> None:
    daemon = Daemon({"good": GOOD})
    daemon.config.chmod(0o666)
    code, log = run_serve(daemon)
    assert code == UNUSABLE
    assert "writ" in log


def test_a_file_that_is_not_ours_is_refused() -> None:
    """Root reads everything, so for root it is the owner that is wrong."""
    daemon = Daemon({"good": GOOD})
    if os.geteuid() == 0:
        os.chown(daemon.config, 65534, 65534)
    else:
        daemon.config.chmod(0)
    code, log = run_serve(daemon)
    assert (code, "Traceback" in log) == (UNUSABLE, False)
    assert "mcp_servers.json" in log


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
    "env_number": ({"command": "x", "env": {"A": 1}}, "env"),
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


def test_a_second_daemon_on_the_socket_gives_up_and_harms_nothing() -> None:
    with Daemon({"good": GOOD}) as first:
        first.await_up()
        second = Daemon({"good": GOOD})
        second.socket = first.socket
        code, log = run_serve(second)
        assert code == 1
        assert f"already running (pid {first.pid})" in log
        with first.legacy() as wire:
            assert wire.call("echo")["structuredContent"]["server"] == "good"


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


def test_serve_prints_nothing_on_its_standard_output() -> None:
    daemon = Daemon({"good": GOOD})
    started = subprocess.Popen(daemon.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=daemon.environment)
    try:
        daemon.process = started
        eventually(daemon.answers, what="a daemon that answers")
        daemon.await_up()
        started.terminate()
        out, error = started.communicate(timeout=20)
    finally:
        daemon.remove()
    assert (started.returncode, out) == (0, b"")
    assert b"daemon.listening" in error


def test_a_server_of_the_daemons_may_not_connect_to_it() -> None:
    """Access: a process that descends from the daemon is turned away."""
    with Daemon({"good": GOOD}, expected_trouble=("Traceback (most recent call last)",)) as daemon:
        daemon.await_up()
        assert descendants(daemon.pid)
        script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10);"
        script += 's.sendall(b\'{"jsonrpc":"2.0","id":1,"method":"daemon/status"}\\n\'); '
        script += "sys.stderr.write('answer: ' + s.recv(65536).decode(errors='replace')[:300] + '\\n')"
        curious = fixture("x") | {"args": ["-I", "-S", "-c", script, str(daemon.socket)]}
        daemon.rewrite({"good": GOOD, "curious": curious})
        daemon.await_states(curious="backoff")
        said = str(daemon.control("logs", {"server": "curious", "lines": 20})["lines"])
        assert "servers" not in said
        assert "answer:" in said or "BrokenPipe" in said or "ConnectionReset" in said
