"""What a daemon knows of its servers before any of them is there: the last good catalogs, from the one before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.polling import eventually

from .entries import Entry, fixture
from .harness import Daemon
from .wire import Message, Wire

STATE = "mcp-multi-server/state"
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
SCRIPT = """
while [ -e "$0/shut" ]; do sleep 0.05; done
[ -e "$0/broken" ] && exit 3
exec "$@" $(cat "$0/more" 2>&-)
"""


class Gate:
    """Stands before servers: what they do when they are started is up to the test, though their entries stay the same.

    They wait while `shut` exists, fail while `broken` does, and take further options from `more`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def before(self, entry: Entry) -> Entry:
        return entry | {
            "command": "/bin/sh",
            "args": ["-c", SCRIPT, str(self.directory), entry["command"], *entry["args"]],
        }

    def shut(self) -> None:
        (self.directory / "shut").touch()

    def open(self) -> None:
        (self.directory / "shut").unlink()

    def breaks(self) -> None:
        (self.directory / "broken").touch()

    def more(self, words: str) -> None:
        (self.directory / "more").write_text(words)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def lists(wire: Wire) -> dict[str, list[Message]]:
    return {member: wire.result(method)[member] for method, member in LISTS.items()}


def unmarked(listed: dict[str, list[Message]]) -> dict[str, list[Message]]:
    """The lists without the word on who is away."""
    return {
        member: [item | {"_meta": {k: v for k, v in item["_meta"].items() if k != STATE}} for item in items]
        for member, items in listed.items()
    }


def states(listed: dict[str, list[Message]]) -> set[str | None]:
    return {item["_meta"].get(STATE) for items in listed.values() for item in items}


def files(daemon: Daemon) -> list[Path]:
    return [path for path in (daemon.directory / "state").rglob("*") if path.is_file()]


def warnings(daemon: Daemon) -> list[str]:
    """What the log says of the state directory."""
    lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    return [line["message"] for line in lines if line["event"] == "daemon.warning" and line["subject"] == "state"]


def kill(daemon: Daemon) -> None:
    """As the kernel does when there is no memory left."""
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait(10)


# --- lists at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_after_a_restart_the_lists_answer_at_once_and_then_become_fresh_without_a_word(gate: Gate, end: str) -> None:
    servers = {"old": fixture("old"), "new": fixture("new", "--era", "modern", "--tools", 50)}
    with Daemon({name: gate.before(entry) for name, entry in servers.items()}) as daemon:
        with daemon.await_up().legacy() as wire:
            before = lists(wire)
        assert all(before.values())
        read_at = {name: daemon.server(name)["refreshedAt"] for name in servers}
        if end == "kill":
            eventually(lambda: _remembers(daemon, *servers), what="both servers in the file")
            kill(daemon)
        else:
            daemon.stop()
        gate.shut()
        daemon.start()
        with daemon.legacy() as wire:
            early = lists(wire)
            assert unmarked(early) == before
            assert states(early) == {"connecting"}
            for name in servers:
                row = daemon.server(name)
                assert (row["state"], row["stale"], row["tools"] > 0) == ("connecting", True, True)
                assert row["refreshedAt"][:16] >= read_at[name][:16]
            gate.open()
            daemon.await_up()
            assert wire.drain(quiet=0.5) == []
            assert lists(wire) == before
        assert not any(daemon.server(name)["stale"] for name in servers)
        assert warnings(daemon) == []


def _remembers(daemon: Daemon, *servers: str) -> bool:
    """Whether the file holds these; one that is still to take its place, `….new`, would be lost with the daemon."""
    written = b"".join(path.read_bytes() for path in files(daemon) if path.suffix != ".new")
    return all(f"by {name}, version".encode() in written for name in servers)


def test_lists_that_differ_are_told_once(gate: Gate) -> None:
    with Daemon({"one": gate.before(fixture("one"))}) as daemon:
        daemon.await_up().stop()
        gate.shut()
        gate.more("--tools 1 --prompts 1")
        daemon.start()
        with daemon.legacy() as wire:
            assert "extra_0" not in [tool["name"] for tool in lists(wire)["tools"]]
            gate.open()
            daemon.await_up()
            told = sorted(message["method"] for message in wire.drain(quiet=0.5))
            assert told == ["notifications/prompts/list_changed", "notifications/tools/list_changed"]
            assert "extra_0" in [tool["name"] for tool in lists(wire)["tools"]]


def test_calls_wait_for_a_server_that_is_only_remembered_also_by_names_that_are_new(gate: Gate) -> None:
    with Daemon({"one": gate.before(fixture("one"))}, settings={"hold": 30}) as daemon:
        daemon.await_up().stop()
        gate.shut()
        gate.more("--prompts 1")
        daemon.start()
        with daemon.legacy() as wire:
            known = wire.post("tools/call", {"name": "echo", "arguments": {}})
            fresh = wire.post("prompts/get", {"name": "one__prompt_0"})
            listed = wire.post("resources/read", {"uri": "one:note://one"})
            assert states(lists(wire)) == {"connecting"}
            gate.open()
            assert wire.answer(known)["result"]["structuredContent"]["server"] == "one"
            assert wire.answer(fresh)["result"]["messages"]
            assert wire.answer(listed)["result"]["contents"]


def test_names_of_a_server_that_does_not_come_back_go_after_the_grace_that_follows_its_first_failure(
    gate: Gate,
) -> None:
    servers = {"one": gate.before(fixture("one")), "two": fixture("two")}
    with Daemon(servers, settings={"grace": 0.1}) as daemon:
        daemon.await_up().stop()
        gate.shut()
        daemon.start().await_up("two")
        with daemon.legacy() as wire:
            assert wire.drain(quiet=0.5) == [], "a grace that began before anything had failed"
            assert "two__echo" in [tool["name"] for tool in lists(wire)["tools"]]
            gate.breaks()
            gate.open()
            assert wire.notification("notifications/tools/list_changed")
            assert {tool["_meta"]["serverName"] for tool in lists(wire)["tools"]} == {"two"}
            assert "two__echo" not in [tool["name"] for tool in lists(wire)["tools"]]


# --- whose they are --------------------------------------------------------------------------------------------------


def test_a_changed_entry_and_a_removed_one_are_not_remembered(gate: Gate) -> None:
    servers = {name: gate.before(fixture(name)) for name in ("kept", "changed", "removed")}
    with Daemon(servers, settings={"firstList": 0}) as daemon:
        daemon.await_up().stop()
        gate.shut()
        changed = servers["changed"] | {"env": servers["changed"]["env"] | {"OTHER": "1"}}
        daemon.rewrite({"kept": servers["kept"] | {"timeout": 5}, "changed": changed})
        daemon.start()
        with daemon.legacy() as wire:
            assert {tool["_meta"]["serverName"] for tool in lists(wire)["tools"]} == {"kept"}
        assert (daemon.server("changed")["tools"], daemon.server("changed")["stale"]) == (0, False)
        eventually(lambda: b"by removed" not in files(daemon)[0].read_bytes(), what="a file without the removed one")
        assert b"by kept" in files(daemon)[0].read_bytes()
        gate.open()
        daemon.await_up()


def test_two_daemons_of_one_user_remember_each_their_own(gate: Gate) -> None:
    with Daemon({"one": gate.before(fixture("one"))}) as first:
        state = {"XDG_STATE_HOME": str(first.directory / "state")}
        with Daemon({"two": gate.before(fixture("two"))}, environment=state) as second:
            first.await_up()
            second.await_up().stop()
            first.stop()
            assert len(files(first)) == 2
            gate.shut()
            for daemon, name in ((first.start(), "one"), (second.start(), "two")):
                with daemon.legacy() as wire:
                    assert {tool["_meta"]["serverName"] for tool in lists(wire)["tools"]} == {name}
            gate.open()


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_for_its_user_alone_and_holds_no_secret(tmp_path: Path) -> None:
    entry = fixture("one", "--journal", tmp_path / "sesame-argument")
    entry |= {"env": entry["env"] | {"TOKEN": "sesame-variable"}}
    with Daemon({"one": entry}) as daemon:
        daemon.await_up().stop()
        (path,) = files(daemon)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        data = path.read_bytes()
        assert b'"name":"echo"' in data.replace(b" ", b"")
        assert b"sesame" not in data
        daemon.start()


@pytest.mark.parametrize("damage", ["flip", "link"])
def test_a_file_that_cannot_be_trusted_costs_one_line_in_the_log_and_nothing_else(gate: Gate, damage: str) -> None:
    """By a whole daemon these two only, of content and of trust: `tests/servers` and `tests/core` have the others."""
    with Daemon({"one": gate.before(fixture("one"))}, settings={"firstList": 0}) as daemon:
        daemon.await_up().stop()
        (path,) = files(daemon)
        data = path.read_bytes()
        if damage == "flip":
            path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
        else:
            path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        gate.shut()
        daemon.start()
        with daemon.legacy() as wire:
            assert wire.result("tools/list") == {"tools": []}
        gate.open()
        daemon.await_up()
        assert len(warnings(daemon)) == 1
        assert str(path) in warnings(daemon)[0]
        daemon.stop()
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o600
        gate.shut()
        daemon.start()
        with daemon.legacy() as wire:
            assert len(wire.result("tools/list")["tools"]) == 20, "the file was not put right"
        gate.open()


class Mounted(Daemon):
    """A daemon whose state directory is a file system of its own, mounted with `options` where only it sees it."""

    options = ""

    @property
    def command(self) -> list[str]:
        mount = f'mount -t tmpfs -o {self.options} none "$0" && exec "$@"'
        return [*UNSHARE, "sh", "-c", mount, str(self.directory / "state"), *super().command]


UNSHARE = ["unshare", "--map-root-user", "--mount"]


@pytest.fixture
def mounting() -> None:
    """Where nothing can be mounted, the test fails in CI and is left out elsewhere."""
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") and subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0:
        return
    assert not os.environ.get("CI"), "CI must be able to mount in a namespace of its own"
    pytest.skip("mounting takes rights that are not there")


@pytest.mark.usefixtures("mounting")
@pytest.mark.parametrize(("options", "why"), [("size=64k", "No space left"), ("ro", "Read-only file system")])
def test_a_disk_that_takes_nothing_costs_one_warning(options: str, why: str) -> None:
    class OnBadDisk(Mounted):
        pass

    OnBadDisk.options = options
    with OnBadDisk({"one": fixture("one", "--tools", 300)}) as daemon, daemon.await_up().legacy() as wire:
        eventually(lambda: warnings(daemon), what="a warning")
        for number in range(2):
            wire.call("grow")
            eventually(lambda: wire.drain(quiet=0.1), what="a change")
            assert wire.call("echo")["structuredContent"]["server"] == "one", number
        daemon.stop()
        (warning,) = warnings(daemon)
        assert why in warning
        daemon.start()
