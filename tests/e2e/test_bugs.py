"""A bug of ours, put in on purpose: in one server's task it costs that server, in the core it ends the process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fixtures.buggy_daemon import MESSAGE
from tests.polling import eventually

from .entries import SERVERS, Entry, faulty, fixture
from .harness import Daemon
from .processes import descendants, is_alive
from .wire import Message


class Buggy(Daemon):
    """A daemon with a bug of a name in it."""

    bug = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(SERVERS / "buggy_daemon.py"), self.bug, *super().command[3:]]

    def lines(self) -> list[Message]:
        """All that it logged; every line is one object."""
        return [json.loads(line) for line in self.log.splitlines()]


@contextmanager
def buggy(bug: str, servers: dict[str, Entry]) -> Iterator[Buggy]:
    daemon = Buggy(servers)
    daemon.bug = bug
    daemon.environment["PYTHONPATH"] = str(SERVERS.parent.parent)
    try:
        yield daemon.start()
    except BaseException as error:
        error.add_note(f"the daemon's log ends with:\n{daemon.log[-4000:]}")
        raise
    finally:
        daemon.remove()


def test_a_bug_in_the_core_ends_the_process_with_one_line_and_leaves_nothing() -> None:
    with buggy("core", {"one": fixture(), "two": faulty("leaves-stubborn", stopTimeout=0.5)}) as daemon:
        daemon.await_up()
        below = descendants(daemon.pid)
        daemon.rewrite({"one": fixture()})
        assert daemon.wait() == 1
        last = daemon.lines()[-1]
        assert (last["event"], last["level"]) == ("daemon.failed", "error")
        assert last["error"] == "ZeroDivisionError"
        assert MESSAGE not in daemon.log, "an exception's text may quote what somebody sent"
        assert any("raise_at_an_edit" in frame for frame in last["trace"])
        daemon.assert_nothing_left()
        assert [one for one in below if is_alive(one)] == []
        assert [path.name for path in daemon.socket.parent.iterdir() if path.is_file()] == ["mcp.sock.lock"]


def test_a_bug_in_one_server_s_task_is_contained_and_told() -> None:
    with buggy("server", {"one": fixture(), "buggy": fixture("buggy")}) as daemon:
        daemon.await_up("one")
        eventually(lambda: len(daemon.logged("internal.error")) > 1, what="a second attempt")
        told = daemon.logged("internal.error")[0]
        assert told["where"] == "server buggy"
        assert told["error"] == "ZeroDivisionError"
        assert MESSAGE not in daemon.log
        row = daemon.server("buggy")
        assert row["reason"].startswith("internal")
        with daemon.legacy() as wire:
            assert wire.call("echo")["structuredContent"]["server"] == "fixture"
        assert daemon.server("one")["restarts"] == 0
        daemon.signal(15)
        assert daemon.wait() == 0
        daemon.assert_nothing_left()


def test_a_bug_in_a_callback_of_the_loop_is_told_and_survived() -> None:
    with buggy("callback", {"one": fixture()}) as daemon:
        daemon.await_up()
        daemon.rewrite({"one": fixture()}, settings={"hold": 1})
        (told,) = eventually(lambda: daemon.logged("internal.error"))
        assert told["where"] == "event loop"
        assert told["error"] == "ZeroDivisionError"
        assert daemon.server("one")["state"] == "ready"
        daemon.signal(15)
        assert daemon.wait() == 0
