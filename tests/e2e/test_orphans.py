"""Nothing outlives the server that started it, nor the daemon; a killed daemon, only until the next one starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import eventually

from .entries import faulty, fixture
from .harness import Daemon
from .processes import Process, all_processes, descendants, is_alive, process

LEAVING = ["leaves-stubborn", "leaves-nameless"]
"""Modes in which a server starts a process that leaves its group, session and parent, and ignores SIGTERM; the second
throws its environment away as well."""


def orphans(daemon: Daemon, server: str) -> list[Process]:
    """Those of a server's orphans that live, by the pids that they told on stderr."""

    def told() -> list[int]:
        return [int(pid) for pid in re.findall(r"orphan (\d+)", "\n".join(logs["lines"]))]

    logs = {}

    def heard() -> bool:
        logs.update(daemon.control("logs", {"server": server}))
        return bool(told())

    eventually(heard, what=f"the orphan of {server}")
    return [found for pid in told() if (found := process(pid)) is not None and is_alive(found)]


def orphan(daemon: Daemon, server: str) -> Process:
    """Its one orphan, which is ours to look after by now."""
    (found,) = orphans(daemon, server)
    eventually(lambda: (now := process(found.pid)) and now.parent == daemon.pid, what="an adopted orphan")
    daemon.seen[found.pid] = found
    return found


def swept(daemon: Daemon) -> list[int]:
    lines = [json.loads(line) for line in daemon.log.splitlines() if '"processes.ended"' in line]
    return [pid for line in lines for pid in line["pids"]]


@contextmanager
def mortal(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that the test itself brings to its end."""
    try:
        yield daemon
    except BaseException as error:
        error.add_note(f"the daemon's log ends with:\n{daemon.log[-4000:]}")
        raise
    finally:
        daemon.remove()


@pytest.mark.parametrize("mode", LEAVING)
def test_a_removed_server_leaves_nothing_and_what_others_started_stays(mode: str) -> None:
    with Daemon({"other": faulty("leaves-stubborn")}) as daemon:
        others = orphan(daemon.await_up(), "other")
        daemon.rewrite({"other": faulty("leaves-stubborn"), "gone": faulty(mode, stopTimeout=0.5)})
        daemon.reload()
        mine = orphan(daemon.await_up("gone", "other"), "gone")
        daemon.rewrite({"other": faulty("leaves-stubborn")})
        daemon.reload()
        if mode == "leaves-nameless":
            daemon.control("restart", {"server": "other"})  # it was there before: the orphan could have been its own
        else:
            assert is_alive(others)
        eventually(lambda: not is_alive(mine), what="the end of the orphan")
        daemon.assert_no_trouble()


@pytest.mark.parametrize("mode", LEAVING)
def test_a_restarted_server_leaves_nothing_of_its_former_self(mode: str) -> None:
    with Daemon({"one": faulty(mode, stopTimeout=0.5)}) as daemon:
        mine = orphan(daemon.await_up(), "one")
        os.kill(daemon.server("one")["pid"], signal.SIGKILL)
        eventually(lambda: not is_alive(mine), what="the end of the orphan")
        daemon.await_up()


@pytest.mark.parametrize("mode", LEAVING)
def test_a_stopped_daemon_leaves_nothing(mode: str) -> None:
    with Daemon({"one": faulty(mode, stopTimeout=0.5)}) as daemon:
        mine = orphan(daemon.await_up(), "one")
        daemon.stop()  # which looks for all that was ever seen below it
        assert not is_alive(mine)
        daemon.start()


@pytest.mark.parametrize("mode", LEAVING)
def test_a_second_signal_leaves_no_process_either(mode: str) -> None:
    with mortal(Daemon({"one": faulty(mode), "two": fixture("two")}, settings={"drain": 60}).start()) as daemon:
        daemon.await_up()
        orphan(daemon, "one")
        below = descendants(daemon.pid)
        with daemon.legacy() as wire:
            wire.post("tools/call", {"name": "slow", "arguments": {"seconds": 60}})
            eventually(lambda: daemon.server("two")["inFlight"] == 1)
            daemon.signal(signal.SIGTERM)
            eventually(lambda: "daemon.stopping" in daemon.log)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(within=5) == 1
        assert len(below) >= 3
        assert [one for one in below if is_alive(one)] == []


@pytest.mark.parametrize("mode", LEAVING)
def test_what_a_killed_daemon_left_is_ended_by_the_next_one(mode: str) -> None:
    with mortal(Daemon({"one": faulty(mode), "two": fixture("two")}).start()) as daemon:
        daemon.await_up()
        mine = orphan(daemon, "one")
        if mode == "leaves-nameless":  # only the file knows whose it was
            daemon.signal(signal.SIGCHLD)  # as if something had ended: it looks sooner
            eventually(lambda: mine.pid in recorded(daemon), what="a record of the orphan")
        below = descendants(daemon.pid)
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
        leaders = [one for one in below if one.parent == daemon.pid and one != mine]
        eventually(lambda: not any(map(is_alive, leaders)), what="the end of the servers, by the kernel")
        assert is_alive(mine)
        daemon.start()
        assert not any(map(is_alive, below))
        assert mine.pid in swept(daemon)
        daemon.await_up()
        daemon.stop()


def recorded(daemon: Daemon) -> set[int]:
    """The pids in the file of a running daemon."""
    return {pid for pid, _ in json.loads(Path(f"{daemon.socket}.children").read_bytes())["children"]}


def record(daemon: Daemon, *children: list[int], boot: str = "", run: str = "f" * 32) -> Path:
    """A file such as a killed daemon leaves."""
    path = Path(f"{daemon.socket}.children")
    boot = boot or Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path.write_text(json.dumps({"boot": boot, "run": run, "children": children}))
    path.chmod(0o600)
    return path


def test_a_process_that_was_there_before_it_is_none_of_its_business() -> None:
    """A container's entry point may start something beside it and become the daemon."""
    with mortal(Daemon({"one": faulty("leaves-stubborn", stopTimeout=0.5)})) as daemon:
        shell = ["sh", "-c", 'sleep 300 & echo $!; exec "$@" 2>"$LOG"', "sh", *daemon.command]
        environment = daemon.environment | {"LOG": str(daemon.log_file)}
        with subprocess.Popen(shell, env=environment, stdout=subprocess.PIPE) as daemon.process:
            assert daemon.process.stdout is not None
            beside = process(int(daemon.process.stdout.readline()))
            assert beside is not None
            try:
                eventually(daemon.socket.exists)
                daemon.await_up()
                mine = orphan(daemon, "one")
                daemon.signal(signal.SIGTERM)
                assert daemon.wait() == 0
                assert not is_alive(mine)
                assert is_alive(beside)
            finally:
                os.kill(beside.pid, signal.SIGKILL)


@contextmanager
def bystander() -> Iterator[Process]:
    """A process that is none of the daemon's, leader of its group as every child is."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as running:
        try:
            found = process(running.pid)
            assert found is not None
            yield found
        finally:
            running.kill()


def test_a_recorded_child_that_still_runs_is_ended() -> None:
    """What shows that the tests below would notice if theirs were."""
    with bystander() as one, mortal(Daemon()) as daemon:
        record(daemon, [one.pid, int(one.started)])
        daemon.start()
        assert not is_alive(one)
        assert swept(daemon) == [one.pid]
        daemon.stop()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda daemon, one: record(daemon, [one.pid, int(one.started) - 1]),
        lambda daemon, one: record(daemon, [one.pid, int(one.started)], boot="another boot"),
        lambda daemon, one: record(daemon, [one.pid, int(one.started)], run="short"),
        lambda daemon, one: record(daemon, [one.pid, int(one.started)]).chmod(0o666),
        lambda daemon, one: record(daemon, [one.pid, int(one.started)]).write_bytes(b'{"boot":'),
        lambda daemon, one: record(daemon, [one.pid, int(one.started)]).rename(f"{daemon.socket}.children.new"),
    ],
    ids=["number used again", "other boot", "no run", "anyone's file", "damaged", "half replaced"],
)
def test_what_is_not_ours_is_not_touched(spoil: Callable[[Daemon, Process], object]) -> None:
    with bystander() as one:
        daemon = Daemon({"one": fixture()})
        spoil(daemon, one)
        with daemon:
            daemon.await_up()
            assert is_alive(one)
            assert swept(daemon) == []


def test_the_running_children_are_written_down_for_nobody_else_to_read() -> None:
    with Daemon({"one": fixture(), "two": fixture("two")}) as daemon:
        daemon.await_up()
        assert Path(f"{daemon.socket}.children").stat().st_mode & 0o777 == 0o600
        assert recorded(daemon) == {server["pid"] for server in daemon.status()["servers"]}
        daemon.rewrite({"two": fixture("two")})
        daemon.reload()
        eventually(lambda: recorded(daemon) == {daemon.server("two")["pid"]})


def zombies(daemon: Daemon) -> list[Process]:
    return [one for one in all_processes() if one.parent == daemon.pid and one.state == "Z"]


def test_orphans_that_end_by_themselves_do_not_stay_as_zombies() -> None:
    with Daemon({"one": faulty("leaves-zombies")}) as daemon:
        daemon.await_up()
        eventually(lambda: not zombies(daemon), what="no zombie")
        assert daemon.server("one")["restarts"] == 0


def test_twenty_restarts_cost_no_process_no_descriptor_and_no_thread() -> None:
    def usage() -> dict[str, int]:
        of = f"/proc/{daemon.pid}"
        below = descendants(daemon.pid)
        return {"fds": len(os.listdir(f"{of}/fd")), "threads": len(os.listdir(f"{of}/task")), "processes": len(below)}

    def is_no_more() -> bool:
        """What each restart left would be twenty by now; a worker thread that waits for more work may come and go."""
        now.update(usage())
        return all(now[what] <= before[what] + 4 for what in before)

    now: dict[str, int] = {}

    with Daemon({"one": fixture(), "two": fixture("two")}) as daemon:
        daemon.await_up()
        for _ in range(3):
            daemon.control("restart", {"server": "one"})
        before = usage()
        for _ in range(20):
            assert daemon.control("restart", {"server": "one"})["state"] == "ready"
        eventually(is_no_more, within=10, what=f"not many more than {before}")
        eventually(lambda: not zombies(daemon), what="no zombie")
        assert daemon.server("two")["restarts"] == 0
