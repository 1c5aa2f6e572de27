"""The process: how it starts, what it does with signals and edits of its config, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_multi_server.daemon.main import run
from tests.e2e.entries import Entry, fixture
from tests.e2e.harness import Daemon, lines_about, run_serve
from tests.e2e.wire import Closed, Message, subscription, texts
from tests.polling import eventually

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 78
WITHIN = 15.0
BROKEN: Entry = {"command": 5, "env": {"TOKEN": "sesame"}}


@contextmanager
def mortal(servers: dict[str, Entry], **settings: Any) -> Iterator[Daemon]:
    """A daemon that the test itself brings to its end."""
    daemon = Daemon(servers, settings=settings)
    try:
        yield daemon.start()
        assert daemon.process is not None
        assert daemon.process.poll() is not None, "still running"
        daemon.assert_no_trouble()
    except BaseException as error:
        error.add_note(f"the daemon's log ends with:\n{daemon.log[-4000:]}")
        raise
    finally:
        daemon.remove()


# --- start -----------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "blank": (b"  \n", "empty"),
    "cut short": (b'{"mcpServers": {', "not JSON"),
    "a comment without its end": (b'/* servers\n{"mcpServers": {}}', "without its end"),
    "a comma too many": (b'{"mcpServers": {},,}', "not JSON"),
    "TOML": (b'[mcp_servers.a]\ncommand = "x"', "TOML"),
    "a list": (b"[]", "object"),
    "no servers": (b"{}", "mcpServers"),
    "servers as a list": (b'{"mcpServers": []}', "mcpServers"),
    "two of one name": (b'{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "two servers"),
    "bad daemon object": (b'{"mcpServers": {}, "daemon": []}', "daemon"),
    "bad naming": (b'{"mcpServers": {}, "daemon": {"naming": "short"}}', "daemon.naming"),
    "bad listen address": (b'{"mcpServers": {}, "daemon": {"metrics": {"listen": "94"}}}', "daemon.metrics.listen"),
    "bad separator": (b'{"mcpServers": {}, "daemon": {"separator": ""}}', "daemon.separator"),
    "negative hold": (b'{"mcpServers": {}, "daemon": {"hold": -1}}', "daemon.hold"),
    "hold in words": (b'{"mcpServers": {}, "daemon": {"hold": "sesame"}}', "daemon.hold"),
    "no text": (b"\xff\xfe\x00{", "UTF-8"),
    "nested without end": (b'{"mcpServers":' + b"[" * 100_000, "nested"),
}


def refusal(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a daemon says that ends before it has made anything: the same call that the command line makes."""
    assert run(config=str(config), socket=str(config.with_name("never.sock"))) == EXIT_CONFIG
    assert not config.with_name("never.sock").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert str(config) in said.err
    return said.err


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_config_that_cannot_be_used_exits_78_and_says_what_is_wrong(
    text: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_bytes(text)
    said = refusal(path, capsys)
    assert words in said
    assert "sesame" not in said


def test_a_config_that_is_not_there_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refusal(tmp_path / "mcp_servers.json", capsys)


def test_a_directory_in_the_place_of_the_config_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(tmp_path, capsys)


def test_a_config_that_everyone_can_write_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mcp_servers.json"
    path.write_text('{"mcpServers": {}}')
    path.chmod(0o666)
    assert "everyone can write it" in refusal(path, capsys)


def test_a_config_that_is_not_ours_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Root reads everything, so for root it is the owner that is wrong."""
    path = tmp_path / "mcp_servers.json"
    path.write_text('{"mcpServers": {}}')
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.chmod(0)
    refusal(path, capsys)


def test_a_socket_that_cannot_be_had_exits_1_and_says_why() -> None:
    idle = Daemon()
    idle.socket.write_text("a file")
    code, said = run_serve(idle)
    assert code == EXIT_FAILED
    assert "is not a socket" in said
    assert "Traceback" not in said


def test_a_second_daemon_is_told_of_the_first_and_does_not_disturb_it() -> None:
    with Daemon({"one": fixture()}) as first:
        first.await_up("one")
        second = subprocess.run(first.command, env=first.environment, capture_output=True, text=True, timeout=WITHIN)
        assert second.returncode == EXIT_FAILED
        assert f"already running (pid {first.pid})" in second.stderr
        assert second.stdout == ""
        assert first.server("one")["state"] == "ready"
        with first.legacy() as wire:
            assert wire.call("echo")["structuredContent"]["server"] == "fixture"


def test_broken_entries_and_doubts_are_logged_at_the_start_and_the_rest_runs() -> None:
    with Daemon({"one": fixture(oops=1), "bad": BROKEN}) as daemon:
        daemon.await_states(one="up", bad="parked")
        told = " ".join(line["message"] for line in daemon.await_logged("daemon.warning", times=2))
        assert "mcpServers.bad.command" in told
        assert "mcpServers.one.oops" in told
        assert "sesame" not in daemon.log
        assert daemon.last_reload()["outcome"] == "partial"
        assert [problem["server"] for problem in daemon.last_reload()["problems"]] == ["bad"]


def test_nothing_is_written_to_stdout_and_nothing_but_the_lock_is_left() -> None:
    daemon = Daemon({"one": fixture()})
    try:
        process = subprocess.Popen(
            daemon.command, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        daemon.process = process  # type: ignore[assignment]  # its streams are text here
        eventually(daemon.socket.exists, within=WITHIN)
        daemon.await_up("one")
        with daemon.legacy() as wire:
            wire.call("echo")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WITHIN)
        assert process.returncode == EXIT_OK
        assert out == ""
        assert lines_about("daemon.stopping", err)[0]["why"] == "SIGTERM"
        assert not lines_about("internal.error", err)
        left = {path.name for path in daemon.socket.parent.rglob("*") if path.is_file() or path.is_socket()}
        assert left == {"mcp.sock.lock"}
    finally:
        daemon.remove()


def test_a_port_in_use_costs_the_metrics_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with Daemon({"one": fixture()}, settings={"metrics": {"listen": listen}}) as daemon:
            daemon.await_up("one")
            (warning,) = [line for line in daemon.await_logged("daemon.warning") if line["subject"] == "metrics"]
            assert listen.rpartition(":")[2] in warning["message"]
            assert daemon.await_logged("daemon.listening")[0]["metrics"] == "off"


# --- signals and the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    with mortal({"one": fixture()}) as daemon:
        daemon.await_up("one")
        daemon.signal(number)
        assert daemon.wait() == EXIT_OK
        assert daemon.await_logged("daemon.stopping")[0]["why"] == number.name
        assert not daemon.socket.exists()
        daemon.assert_nothing_left()


def test_a_running_call_may_end_before_the_daemon_does() -> None:
    with mortal({"one": fixture()}, drain=10) as daemon:
        daemon.await_up("one")
        with daemon.legacy() as wire:
            id = wire.post("tools/call", {"name": "slow", "arguments": {"seconds": 0.5}})
            eventually(lambda: daemon.server("one")["inFlight"] == 1, within=WITHIN)
            daemon.signal(signal.SIGTERM)
            assert texts(wire.answer(id)["result"]) == ["done"]
            with pytest.raises(Closed):
                wire.line()
        assert daemon.wait() == EXIT_OK


def test_a_call_without_end_is_cut_off_when_the_drain_is_over() -> None:
    with mortal({"one": fixture()}, drain=0.2) as daemon:
        daemon.await_up("one")
        with daemon.legacy() as wire:
            wire.post("tools/call", {"name": "slow", "arguments": {"seconds": 60}})
            eventually(lambda: daemon.server("one")["inFlight"] == 1, within=WITHIN)
            daemon.signal(signal.SIGTERM)
            assert wire.is_closed()
        assert daemon.wait() == EXIT_OK


def test_a_second_signal_ends_it_at_once() -> None:
    with mortal({"one": fixture()}, drain=60) as daemon:
        daemon.await_up("one")
        with daemon.legacy() as wire:
            wire.post("tools/call", {"name": "slow", "arguments": {"seconds": 60}})
            eventually(lambda: daemon.server("one")["inFlight"] == 1, within=WITHIN)
            daemon.signal(signal.SIGTERM)
            daemon.await_logged("daemon.stopping")
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(within=10) == EXIT_FAILED
        assert daemon.socket.exists(), "it had no time for more"


def test_it_can_be_stopped_while_servers_are_starting() -> None:
    servers = {
        "slow": fixture("slow", "--delay", 30, stopTimeout=0.2),
        "mute": fixture("mute", "--mute"),
        "one": fixture(),
    }
    with mortal(servers) as daemon:
        daemon.await_states(one="up", slow="connecting", mute="connecting")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == EXIT_OK
        assert time.monotonic() - started < 10
        daemon.assert_nothing_left()


def test_it_can_be_stopped_the_moment_it_listens() -> None:
    daemon = Daemon({"one": fixture("one", "--delay", 30, stopTimeout=0.2)})
    try:
        process = daemon.launch()
        eventually(lambda: "daemon.listening" in daemon.log, within=WITHIN)
        process.send_signal(signal.SIGTERM)
        assert daemon.wait() == EXIT_OK
        daemon.assert_nothing_left()
        daemon.assert_no_trouble()
    finally:
        daemon.remove()


def test_subscriptions_end_gracefully_when_it_stops() -> None:
    with mortal({"one": fixture()}) as daemon:
        daemon.await_up("one")
        with daemon.modern() as wire:
            id = wire.listen(toolsListChanged=True)
            daemon.signal(signal.SIGTERM)
            result = wire.answer(id)["result"]
            assert result["resultType"] == "complete"
            assert subscription({"params": result}) == id
            assert wire.is_closed()
        assert daemon.wait() == EXIT_OK


# --- reload ----------------------------------------------------------------------------------------------------------


def test_an_edit_is_noticed_without_a_signal() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        daemon.rewrite({"one": fixture(), "two": fixture("two")})
        daemon.await_up("one", "two")
        assert daemon.await_logged("config.applied")[0]["start"] == ["two"]


def test_an_edit_between_reading_and_watching_is_noticed() -> None:
    daemon = Daemon({"one": fixture()})
    try:
        daemon.launch()
        eventually(daemon.socket.exists, within=WITHIN)  # the config is read, the watch is not there yet
        daemon.rewrite({"two": fixture("two")})
        daemon.await_states(two="up")
        daemon.stop()
    finally:
        daemon.remove()


def test_another_naming_is_in_force_at_once() -> None:
    with Daemon({"one": fixture()}) as daemon:
        pid = daemon.await_up("one").server("one")["pid"]
        with daemon.legacy() as wire:
            daemon.rewrite({"one": fixture()}, settings={"naming": "qualified"})
            daemon.reload()
            wire.notification("notifications/tools/list_changed")
            names = [tool["name"] for tool in wire.result("tools/list")["tools"]]
            assert names
            assert all(name.startswith("one__") for name in names)
            assert wire.call("one__echo")
        assert daemon.server("one")["pid"] == pid


def test_another_log_level_is_in_force_at_once() -> None:
    with Daemon({"one": fixture()}, settings={"log": {"format": "json", "level": "info"}}) as daemon:
        daemon.await_up("one")
        assert not daemon.logged("client.connected")
        daemon.rewrite({"one": fixture()}, settings={"log": {"format": "json", "level": "debug"}})
        daemon.reload()
        daemon.status()
        daemon.await_logged("client.connected")


def test_the_log_level_of_the_command_line_outlives_a_reload() -> None:
    daemon = Daemon({"one": fixture()}, settings={"log": {"format": "json", "level": "debug"}})
    try:
        command = [*daemon.command, "--log-level", "info"]
        with daemon.log_file.open("ab") as log:
            daemon.process = subprocess.Popen(command, env=daemon.environment, stderr=log)
        eventually(daemon.socket.exists, within=WITHIN)
        daemon.await_up("one")
        daemon.rewrite({"one": fixture()}, settings={"hold": 1})
        assert daemon.reload()["outcome"] in ("applied", "unchanged")
        daemon.status()
        daemon.stop()
        assert daemon.logged("config.applied")
        assert not daemon.logged("client.connected")
    finally:
        daemon.remove()


def test_what_only_a_new_process_can_do_is_said() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        daemon.rewrite({"one": fixture()}, settings={"metrics": {"listen": "127.0.0.1:1"}, "access": {"users": [4321]}})
        daemon.reload()
        told = " ".join(line["message"] for line in daemon.await_logged("daemon.warning", times=2))
        assert "daemon.metrics: takes effect when the daemon is started again" in told
        assert "daemon.access: for other users" in told


def test_what_the_process_itself_has_to_say_reaches_followers_too() -> None:
    with mortal({"one": fixture()}) as daemon, daemon.wire() as wire:
        daemon.await_up("one")
        wire.post("daemon/events")
        daemon.rewrite({"one": fixture()}, settings={"metrics": {"listen": "127.0.0.1:1"}})
        daemon.reload()

        def is_warning(notification: Message) -> bool:
            event = notification["params"]
            return bool(event["event"] == "warning" and event["message"].startswith("daemon.metrics: takes effect"))

        wire.notification(is_warning)
        daemon.signal(signal.SIGTERM)
        wire.notification(lambda notification: notification["params"].get("why") == "SIGTERM")
        assert daemon.wait() == EXIT_OK


# --- control methods of the process ----------------------------------------------------------------------------------


def test_a_server_of_the_daemon_may_not_be_its_client() -> None:
    """The fixture cannot connect by itself: a child that is told to does it in its place."""
    script = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);print(s.recv(999),file=sys.stderr)"
    )
    with Daemon() as daemon:
        daemon.rewrite({"spy": {"command": sys.executable, "args": ["-c", script, str(daemon.socket)]}})
        daemon.reload()
        eventually(lambda: daemon.control("logs", {"server": "spy"})["lines"], within=WITHIN)
        (line, *_) = daemon.control("logs", {"server": "spy"})["lines"]
        assert "allowDescendants" in line
        assert daemon.await_logged("client.rejected")[0]["reason"] == "access"


def test_what_it_says_on_stderr_fits_one_line_each() -> None:
    with Daemon({"one": fixture()}) as daemon:
        daemon.await_up("one")
        with daemon.wire() as wire:
            wire.send(b"garbage \x00\xff")
            wire.message()
        daemon.await_logged("client.rejected")
        odd: list[Any] = [line for line in daemon.log.splitlines() if not line.lstrip("<0123456789>").startswith("{")]
        assert not odd


def test_paths_with_spaces_and_odd_letters_work(tmp_path: Path) -> None:
    daemon = Daemon({"one": fixture()})
    try:
        odd = daemon.directory / "a b é"
        os.rename(daemon.directory / "config", odd)
        daemon.config = odd / "mcp servers.json"
        os.rename(odd / "mcp_servers.json", daemon.config)
        daemon.start().await_up("one")
        assert daemon.status()["config"]["path"] == str(daemon.config)
        daemon.stop()
    finally:
        daemon.remove()
