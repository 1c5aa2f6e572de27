"""The service under a systemd that is PID 1, as its installer left it."""

from __future__ import annotations

import json
import re
import threading

import pytest

from tests.e2e.wire import Closed, Message, Wire
from tests.polling import eventually
from tests.systemd.machine import IN_A_HURRY, SOURCE, Machine
from tests.systemd.unit import CONFIG, NAME, PROGRAM, SOCKET, Unit, fixture, on_node, stubborn
from tests.systemd.units import SERVICE, UNITS

pytestmark = pytest.mark.timeout(300)
QUICK = "[Service]\nRestartSec=100ms\n"
MISSING = {"command": "/does/not/exist"}
NOT_REACHABLE = 69


# --- start and stop --------------------------------------------------------------------------------------------------


def test_it_is_active_before_its_servers_are_ready_and_says_how_they_are(unit: Unit) -> None:
    unit.write({"one": fixture(), "slow": fixture("slow", "--delay", 60, stopTimeout=0.2), "none": MISSING})
    unit.start()
    assert unit.show("ActiveState") == "active"
    unit.await_shown("StatusText", "1/3 ready, 1 connecting, 1 parked, next ")
    unit.write({"one": fixture()})
    unit.await_shown("StatusText", "1/1 ready")
    assert unit.show("ActiveState") == "active"
    unit.machine("kill", "-KILL", str(unit.server("one")["pid"]))
    eventually(lambda: unit.server("one")["restarts"] == 1)
    unit.await_shown("StatusText", "1/1 ready")


def test_a_stop_leaves_nothing(unit: Unit) -> None:
    unit.write({"one": fixture(), "stubborn": stubborn(stopTimeout=0.2)})
    unit.start()
    unit.await_ready("one", "stubborn")
    assert len(unit.processes()) >= 3
    unit.stop()
    assert unit.processes() == []
    assert (unit.show("Result"), unit.show("ExecMainStatus"), unit.show("ActiveState")) == ("success", "0", "inactive")
    assert not (unit.machine / SOCKET).exists()
    assert '"event":"daemon.stopping","why":"SIGTERM"' in unit.journal()


def test_a_stop_may_take_as_long_as_the_config_says(unit: Unit) -> None:
    """Longer than the unit's own timeout, and longer than the watchdog waits."""
    unit.drop_in("short", "[Service]\nTimeoutStopSec=1s\nWatchdogSec=1500ms\n")
    unit.write({"stubborn": stubborn(stopTimeout=2.5)})
    unit.start()
    unit.await_ready("stubborn")
    unit.stop()
    assert (unit.show("Result"), unit.show("ExecMainStatus")) == ("success", "0")
    assert "timed out" not in unit.journal()


def test_a_config_that_cannot_be_used_is_not_tried_again(unit: Unit) -> None:
    unit.drop_in("quick", QUICK)
    unit.write_text("{")
    assert unit.systemctl("start", NAME, check=False).returncode != 0
    assert (unit.show("ActiveState"), unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("failed", "78", "0")
    assert "cannot be used" in unit.journal()


# --- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_waits_for_its_outcome_and_says_it_with_its_exit_code(unit: Unit) -> None:
    unit.write({"one": fixture()})
    unit.start()
    unit.await_ready("one")
    pid = unit.pid
    unit.write({"one": fixture(), "two": fixture("two")})
    assert unit.reload() == 0
    assert [server["name"] for server in unit.status()["servers"]] == ["one", "two"]
    unit.write_text("{")
    assert unit.reload() != 0
    unit.await_shown("StatusText", "2/2 ready; config rejected: ")
    unit.write({"one": fixture(), "two": {"command": 5}})
    assert unit.reload() != 0
    unit.await_shown("StatusText", "2/2 ready; config partial: mcpServers.two.command")
    unit.write({"one": fixture()})
    assert unit.reload() == 0
    unit.await_shown("StatusText", "1/1 ready")
    assert (unit.pid, unit.show("ActiveState"), unit.show("SubState")) == (pid, "active", "running")


def test_an_edit_without_a_command_leaves_it_active(unit: Unit) -> None:
    unit.start()
    unit.write({"one": fixture()})
    unit.await_shown("StatusText", "1/1 ready")
    unit.await_shown("SubState", "running")
    assert '"event":"config.applied"' in unit.journal()


def test_a_reload_may_take_longer_than_a_start(unit: Unit) -> None:
    unit.write({"one": fixture()})
    unit.start()
    unit.await_ready("one")
    unit.drop_in("short", "[Service]\nTimeoutStartSec=3s\n")
    before = unit.server("one")["pid"]
    unit.write({"one": fixture("one", "--delay", 4)})
    assert unit.reload() == 0
    assert unit.server("one")["pid"] != before
    assert "timed out" not in unit.journal()


# --- failures --------------------------------------------------------------------------------------------------------

STUCK = """
import signal, time

def stuck_in_the_test(*_):
    while True:
        time.sleep(1)

signal.signal(signal.SIGUSR1, stuck_in_the_test)
"""


def test_a_loop_that_is_stuck_says_where_and_is_started_again(unit: Unit) -> None:
    """Something that the daemon's main thread never comes back from; Python imports it at its start."""
    place = unit.machine / "/srv/stuck"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(STUCK)
    unit.drop_in("watchdog", f"{QUICK}WatchdogSec=2s\nEnvironment=PYTHONPATH=/srv/stuck\n")
    unit.write({"one": fixture()})
    unit.start()
    unit.await_ready("one")
    pid = unit.pid
    unit.machine("kill", "-USR1", str(pid))
    unit.await_shown("NRestarts", "1")
    unit.await_shown("ActiveState", "active")
    unit.await_ready("one")
    said = unit.journal()
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said
    assert "in stuck_in_the_test" in said
    assert "in select" in said, "where the loop was"
    assert unit.pid != pid


def test_a_killed_daemon_is_started_again_and_its_servers_go_with_it(unit: Unit) -> None:
    unit.drop_in("quick", QUICK)
    unit.write({"one": fixture()})
    unit.start()
    unit.await_ready("one")
    server = unit.server("one")["pid"]
    unit.machine("kill", "-KILL", str(unit.pid))
    unit.await_shown("NRestarts", "1")
    unit.await_shown("ActiveState", "active")
    unit.await_ready("one")
    assert unit.server("one")["pid"] != server
    assert not (unit.machine / f"/proc/{server}").exists()


# --- socket activation -----------------------------------------------------------------------------------------------


class Clients:
    """Clients that connect, ask and go, again and again. `lost`: connections that ended without an answer."""

    def __init__(self, unit: Unit, count: int = 3) -> None:
        self.pids: set[int] = set()
        self.lost = 0
        self.refused: list[BaseException] = []
        self._over = threading.Event()
        self._path = unit.machine / SOCKET
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with Wire(self._path) as wire:
                    self.pids.add(wire.result("daemon/status", {})["pid"])
            except (Closed, BrokenPipeError, ConnectionResetError):
                self.lost += 1
            except BaseException as failure:
                self.refused.append(failure)
                return


def test_the_first_client_starts_it_and_a_restart_refuses_and_cuts_off_nobody(unit: Unit) -> None:
    unit.systemctl("start", f"{NAME}.socket")
    assert unit.show("ActiveState") == "inactive"
    with Clients(unit) as clients:
        eventually(lambda: clients.pids)
        unit.systemctl("restart", NAME)
        eventually(lambda: len(clients.pids) == 2)
    assert (clients.refused, clients.lost) == ([], 0)
    assert unit.show("ActiveState") == "active"


def test_a_killed_daemon_costs_its_clients_their_answer_and_nobody_their_connection(unit: Unit) -> None:
    unit.drop_in("quick", QUICK)
    unit.systemctl("start", f"{NAME}.socket")
    with Clients(unit) as clients:
        eventually(lambda: clients.pids)
        unit.machine("kill", "-KILL", str(unit.pid))
        eventually(lambda: len(clients.pids) == 2)
    assert clients.refused == []


# --- who may use it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activated", [False, True], ids=["its own socket", "systemd's socket"])
def test_members_of_the_group_may_use_it_and_nobody_else(unit: Unit, activated: bool) -> None:
    unit.write({"one": fixture()})
    unit.systemctl("start", f"{NAME}.socket" if activated else NAME)

    def run(user: str, *words: str) -> tuple[int, str]:
        run = unit.machine(PROGRAM, *words, user=user, check=False)
        return run.returncode, run.stdout + run.stderr

    assert run("alice", "status")[0] == 0
    unit.await_ready("one")
    assert run("alice", "call", "echo", "text=hello")[0] == 0
    code, said = run("alice", "reload")
    assert code == 1
    assert "daemon.access.admins" in said
    code, said = run("eve", "status")
    assert code == NOT_REACHABLE
    assert "ermission denied" in said
    unit.write({"one": fixture()}, access={"groups": [NAME], "admins": ["carol"]})
    assert unit.reload() == 0
    assert run("carol", "reload")[0] == 0
    unit.write({"one": fixture()}, access={"users": ["carol"]})
    assert unit.reload() == 0
    assert "daemon.access.users" in run("alice", "status")[1]
    assert run("carol", "status")[0] == 0


# --- what servers see ------------------------------------------------------------------------------------------------


def test_a_credential_reaches_the_server_that_is_given_it_and_nothing_else(unit: Unit) -> None:
    store = unit.machine / f"/etc/credstore/{NAME}.github"
    store.parent.mkdir(exist_ok=True)
    store.write_text("sesame-4711\n")
    store.chmod(0o600)
    unit.drop_in("credentials", (UNITS / "drop-ins" / "credentials.conf").read_text())
    unit.write(
        {
            "one": fixture(env={"TOKEN": "${cred:github}"}, inheritEnv="all"),
            "two": fixture("two", env={"A": "${cred:none}"}),
        }
    )
    unit.start()
    unit.await_ready("one")
    found: Message = unit.call("environment")["structuredContent"]["env"]
    assert found["TOKEN"] == "sesame-4711"
    systemds = re.compile(
        r"NOTIFY|WATCHDOG|LISTEN|CREDENTIALS|INVOCATION|JOURNAL|SYSTEMD|_DIRECTORY|MAINPID|MANAGERPID"
    )
    assert not [name for name in found if systemds.search(name)]
    assert found["HOME"] == f"/var/lib/{NAME}"
    assert unit.server("two")["state"] == "parked"
    assert "credential none" in unit.server("two")["reason"]
    assert "sesame" not in unit.journal() + json.dumps(unit.status()) + unit.show("StatusText")


def test_servers_on_python_and_node_run_inside_the_sandbox(unit: Unit) -> None:
    """Node compiles, counts processors and lists network interfaces; what the unit hides stays hidden."""
    notes = unit.machine / "/home/alice/notes"
    notes.mkdir(exist_ok=True)
    (notes / "hello.txt").write_text("hello from alice")
    for place in (notes.parent, notes):
        place.chmod(0o755)
    unit.drop_in("filesystem", (UNITS / "drop-ins" / "filesystem.conf").read_text())
    time = {"command": f"/opt/{NAME}/bin/mcp-server-time", "args": ["--local-timezone", "UTC"]}
    unit.write({"time": time, "everything": on_node("everything"), "files": on_node("filesystem", "/home/alice/notes")})
    unit.start()
    unit.await_ready("time", "everything", "files")
    assert "Europe/Berlin" in str(unit.call("get_current_time", timezone="Europe/Berlin"))
    assert "hello" in str(unit.call("everything__echo", message="hello"))
    assert "hello from alice" in str(unit.call("read_text_file", path="/home/alice/notes/hello.txt"))
    refused = unit.call("write_file", path="/home/alice/notes/new.txt", content="x")
    assert refused["isError"]
    assert "read-only" in str(refused).lower()
    facts = "console.log(require('os').cpus().length > 0, Object.keys(require('os').networkInterfaces()).length > 0)"
    enter = ("nsenter", "-t", str(unit.pid), "-m", "setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--clear-groups")
    assert unit.machine.says(*enter, "ls", "/home/alice") == "notes"
    assert unit.machine.says(*enter, "/srv/node/bin/node", "-e", facts) == "true true"


# --- the units -------------------------------------------------------------------------------------------------------


def test_systemd_has_nothing_to_say_about_what_was_installed(unit: Unit) -> None:
    for name in ("filesystem", "credentials", "socket-activation"):
        unit.drop_in(name, (UNITS / "drop-ins" / f"{name}.conf").read_text())
    run = unit.machine("systemd-analyze", "verify", "--man=no", SERVICE, f"{NAME}.socket")
    assert (run.stdout, run.stderr) == ("", "")


HALF_A_PYTHON = """#!/bin/sh
[ "$1" != -m ] || { mkdir -p "$3/bin"; echo "no space left" >&2; exit 1; }
"""


def test_an_upgrade_that_fails_changes_nothing(unit: Unit) -> None:
    unit.start()
    python = unit.machine / "/srv/half-a-python"
    python.write_text(HALF_A_PYTHON)
    python.chmod(0o755)
    links = (f"/opt/{NAME}", f"/usr/local/bin/{NAME}")
    before, pid = unit.machine.says("readlink", "-f", *links), unit.pid
    run = unit.machine("env", "PYTHON=/srv/half-a-python", f"{SOURCE}/systemd/install.sh", "system", check=False)
    assert run.returncode != 0
    assert "no space left" in run.stderr
    assert unit.machine.says("readlink", "-f", *links) == before
    assert unit.machine.says("ls", "-d", "--", *unit.machine.says("sh", "-c", f"echo /opt/{NAME}-*").split()) in before
    assert unit.pid == pid
    assert unit.machine.says(NAME, "--version")


def test_an_upgrade_takes_the_place_of_what_runs_and_there_is_a_way_back(unit: Unit) -> None:
    unit.write({"one": fixture()})
    unit.start()
    unit.await_ready("one")
    link = f"/opt/{NAME}"
    config, before, pid = (unit.machine / CONFIG).read_bytes(), unit.machine.says("readlink", "-f", link), unit.pid
    variables = (f"PYTHON={IN_A_HURRY}", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={SOURCE}/tests/wheels")
    unit.machine("env", *variables, f"{SOURCE}/systemd/install.sh", "system")
    after = unit.machine.says("readlink", "-f", link)
    try:
        assert after != before
        assert unit.pid != pid
        assert after in unit.machine.says("ps", "-p", str(unit.pid), "-o", "args=")
        assert (unit.show("ActiveState"), unit.show("NeedDaemonReload")) == ("active", "no")
        assert (unit.machine / CONFIG).read_bytes() == config
        unit.machine("ln", "-sfn", before, link)  # as docs/systemd.md has it
        unit.systemctl("restart", NAME)
        assert before in unit.machine.says("ps", "-p", str(unit.pid), "-o", "args=")
        unit.await_ready("one")
    finally:
        unit.machine("ln", "-sfn", before, link)
        unit.machine("rm", "-r", after)


def test_a_user_runs_one_of_their_own(machine: Machine) -> None:
    def systemctl(*words: str, check: bool = True) -> str:
        return machine("systemctl", "--user", *words, user="bob", check=check).stdout.strip()

    config = machine / "/home/bob/.config/mcp-multi-server/mcp_servers.json"
    program = "/home/bob/.local/share/mcp-multi-server/bin/mcp-multi-server"
    uid = machine.says("id", "-u", "bob")
    eventually(lambda: (machine / f"/run/user/{uid}/systemd/private").exists(), what="bob's own systemd")
    settings = {"metrics": {"listen": "off"}}
    text = json.dumps({"mcpServers": {"one": fixture()}, "daemon": settings})
    config.write_text(text)
    try:
        systemctl("start", NAME)
        assert systemctl("show", "-P", "ActiveState", NAME) == "active"
        eventually(lambda: systemctl("show", "-P", "StatusText", NAME) == "1/1 ready")
        assert "one" in machine(program, "status", user="bob").stdout
        machine(program, "call", "echo", "text=hello", user="bob")
        systemctl("reload", NAME)
        config.write_text("{")
        assert machine("systemctl", "--user", "reload", NAME, user="bob", check=False).returncode != 0
        systemctl("stop", NAME)
        assert systemctl("show", "-P", "Result", NAME) == "success"
        config.write_text(text)
        systemctl("start", f"{NAME}.socket")
        machine(program, "status", user="bob")
        assert systemctl("show", "-P", "ActiveState", NAME) == "active"
    finally:
        systemctl("stop", f"{NAME}.socket", NAME, check=False)
