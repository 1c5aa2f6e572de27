"""The service in the booted machine: its config, its drop-ins, what systemd says of it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from tests.e2e.wire import Message, Wire
from tests.polling import eventually
from tests.systemd.machine import MODULES, NODE, SERVERS, Machine

NAME = "mcp-multi-server"
PROGRAM = f"/opt/{NAME}/bin/{NAME}"
PYTHON = f"/opt/{NAME}/bin/python"
SOCKET = f"/run/{NAME}/mcp.sock"
CONFIG = f"/etc/{NAME}/mcp_servers.json"
DROP_INS = f"/run/systemd/system/{NAME}.service.d"
Entry = dict[str, Any]


def fixture(name: str = "fixture", *words: object, **settings: Any) -> Entry:
    """The well-behaved server, run by the service's own Python."""
    script = f"{SERVERS}/fixture.py"
    return {"command": PYTHON, "args": ["-I", "-S", script, "--name", name, *map(str, words)], **settings}


def stubborn(**settings: Any) -> Entry:
    """A server that neither the end of its input nor SIGTERM brings to its own."""
    words = f"trap '' TERM; {PYTHON} -I -S {SERVERS}/fixture.py --name stubborn; sleep 600"
    return {"command": "/bin/sh", "args": ["-c", words], **settings}


def on_node(package: str, *words: str, **settings: Any) -> Entry:
    """A reference server on Node.js."""
    script = f"{MODULES}/@modelcontextprotocol/server-{package}/dist/index.js"
    return {"command": f"{NODE}/bin/node", "args": [script, *words], **settings}


class Unit:
    """One per test; `reset` before and after."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._since = ""

    def reset(self) -> None:
        """Stop it and forget what tests did to it."""
        self.systemctl("stop", f"{NAME}.socket", f"{NAME}.service")
        self.machine("rm", "-rf", DROP_INS, f"/run/systemd/system/{NAME}.socket.d")
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", check=False)
        self.write({})
        cursor = self.machine.says("journalctl", "-n0", "--show-cursor", "-q")
        self._since = cursor.removeprefix("-- cursor: ")

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.machine("systemctl", *words, check=check)

    def start(self) -> None:
        self.systemctl("start", NAME)

    def stop(self) -> None:
        self.systemctl("stop", NAME)

    def reload(self) -> int:
        """The exit code of `systemctl reload`."""
        return self.systemctl("reload", NAME, check=False).returncode

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.says("systemctl", "show", "-P", name, NAME)

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def await_shown(self, name: str, wanted: str, *, within: float = 20.0) -> None:
        """Wait until a property begins so."""
        shown: list[str] = []

        def reached() -> bool:
            shown.append(self.show(name))
            return shown[-1].startswith(wanted)

        try:
            eventually(reached, within=within, what=f"{name}={wanted}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; {name} was {shown[-1]!r}") from None

    def journal(self) -> str:
        """What the unit said, and systemd of it, in this test."""
        words = ("journalctl", "-u", NAME, "-o", "cat", "--no-pager", "-q", "--after-cursor", self._since)
        return self.machine.says(*words)

    def drop_in(self, name: str, text: str) -> None:
        """Add a drop-in, as `systemctl edit --runtime` does."""
        path = self.machine / DROP_INS / f"{name}.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.systemctl("daemon-reload")

    def write(self, servers: dict[str, Entry], **settings: Any) -> None:
        """Replace the config."""
        access = {"groups": [NAME]}
        daemon = {"metrics": {"listen": "off"}, "log": {"level": "debug"}, "access": access, **settings}
        self.write_text(json.dumps({"mcpServers": servers, "daemon": daemon}))

    def write_text(self, text: str) -> None:
        path = self.machine / CONFIG
        group = path.parent.stat().st_gid
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o640)
        os.chown(fresh, 0, group)
        fresh.replace(path)

    def wire(self) -> Wire:
        """A connection from outside, as root."""
        return Wire(self.machine / SOCKET)

    def status(self) -> Message:
        with self.wire() as wire:
            return wire.result("daemon/status", {})

    def server(self, name: str) -> Message:
        found: Message = next(one for one in self.status()["servers"] if one["name"] == name)
        return found

    def await_ready(self, *names: str, within: float = 30.0) -> None:
        """Wait until these servers are ready."""
        eventually(lambda: all(self.server(name)["state"] == "ready" for name in names), within=within, what=f"{names}")

    def call(self, name: str, **arguments: Any) -> Message:
        """The result of a tool."""
        with self.wire() as wire:
            wire.initialize()
            return wire.call(name, arguments)

    def processes(self) -> list[str]:
        """The command lines of everything that runs as the service's user."""
        run = self.machine("ps", "-u", NAME, "-o", "args=", check=False)
        return run.stdout.splitlines()
