"""Out of descriptors, for real: who is there is served, who comes is told, and all is well again afterwards."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.polling import eventually

from .entries import fixture
from .harness import Daemon
from .wire import Message

FREE = 16
"""Descriptors that the daemon may open besides those that it has: enough to start a server, not for many clients."""
COMING = 100


@contextmanager
def short_of_descriptors(daemon: Daemon) -> Iterator[None]:
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    limit = len(os.listdir(f"/proc/{daemon.pid}/fd")) + FREE
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))


def said_to(client: socket.socket) -> Message:
    """What a client is answered, or told instead."""
    client.settimeout(20)
    with client.makefile("rb") as lines:
        found: Message = json.loads(lines.readline())
    return found


def come(daemon: Daemon, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(daemon.socket))
    with suppress(BrokenPipeError):  # whoever is turned away may be so before it has said anything
        client.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    return client


def test_out_of_descriptors_clients_are_told_calls_go_on_and_a_lost_server_comes_back() -> None:
    with (
        Daemon({"one": fixture(), "two": fixture("two")}, settings={"hold": 15}) as daemon,
        daemon.await_up().legacy() as wire,
    ):
        pid = daemon.server("one")["pid"]
        with short_of_descriptors(daemon):
            with ExitStack() as clients:
                answers = [said_to(come(daemon, clients)) for _ in range(COMING)]
                served = [answer for answer in answers if "result" in answer]
                told = [answer["error"]["message"] for answer in answers if "error" in answer]
                assert 0 < len(served) < COMING / 2
                assert set(told) == {"the daemon has no file descriptor left for more clients"}
                assert len(served) + len(told) == COMING
                assert wire.call("two__echo")["structuredContent"]["server"] == "two"
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: "Too many open files" in daemon.log, what="an attempt that failed for want of them")
                states = {row["name"]: (row["state"], row["reason"]) for row in wire.result("daemon/status")["servers"]}
                assert states["one"][0] in ("backoff", "connecting"), "transient: it is not parked"
                assert states["two"] == ("ready", None)
            assert wire.call("one__echo")["structuredContent"]["server"] == "fixture"
            assert daemon.server("one")["state"] == "ready"
            assert len([line for line in daemon.log.splitlines() if "client.rejected" in line]) <= 60
