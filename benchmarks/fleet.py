"""What is measured: echo servers, and a daemon in front of them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import processes
from .wire import Wire, WireError

ECHO_SERVER = Path(__file__).with_name("echo_server.py")
START_TIMEOUT = 60.0
POLL = 0.002
"""Seconds between looks at a daemon that starts: below what any figure shows, above what would slow it down."""
OURS = ("MCP_MULTI_SERVER_", "LISTEN_", "XDG_")
OURS_WHOLE = ("NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY")


def add_daemon_option(parser: ArgumentParser) -> None:
    """`--daemon`: which one to measure."""
    parser.add_argument(
        "--daemon",
        default=shlex.join((sys.executable, "-m", "mcp_multi_server", "serve")),
        metavar="COMMAND",
        help="started with --config FILE --socket PATH; by default this interpreter's",
    )


def echo_server(name: str, *, filler: int = 1, delay: float = 0, mute: bool = False) -> list[str]:
    """The command line of a server."""
    argv = [sys.executable, "-I", "-S", str(ECHO_SERVER), "--name", name, "--filler", str(filler)]
    return [*argv, *(["--delay", str(delay)] if delay else []), *(["--mute"] if mute else [])]


def echo_servers(count: int, *, filler: int = 1, delay: float = 0) -> dict[str, list[str]]:
    """The command lines of `count` servers, by name."""
    return {name: echo_server(name, filler=filler, delay=delay) for name in (f"s{n:02d}" for n in range(count))}


def echo_of(server: str) -> str:
    """The name under which the daemon lists a server's echo."""
    return f"{server}__echo"


class Daemon:
    """A daemon with its fleet, in a directory of its own; ended with everything it started."""

    def __init__(self, command: str, servers: Mapping[str, Sequence[str]], *, metrics: bool = False) -> None:
        self.servers = tuple(servers)
        self._directory = tempfile.TemporaryDirectory(prefix="mcp-bench-")
        self.config = os.path.join(self._directory.name, "mcp_servers.json")
        self._socket = os.path.join(self._directory.name, "mcp.sock")
        self._log = os.path.join(self._directory.name, "log")
        self._child: subprocess.Popen[bytes]
        self._command = [*shlex.split(command), "--config", self.config, "--socket", self._socket]
        listen = "127.0.0.1:0" if metrics else "off"
        self.configure({name: {"command": argv[0], "args": list(argv[1:])} for name, argv in servers.items()}, listen)

    def configure(self, entries: Mapping[str, Mapping[str, object]], metrics: str = "off") -> None:
        """Have these servers from the next start or reload on."""
        self.write(self.config_text(entries, metrics))

    def config_text(self, entries: Mapping[str, Mapping[str, object]], metrics: str = "off") -> str:
        """A config with these servers."""
        settings = {"naming": "qualified", "metrics": {"listen": metrics}}
        return json.dumps({"mcpServers": entries, "daemon": settings})

    def write(self, config: str) -> None:
        """Put another config in the place of the present one, in one step."""
        draft = f"{self.config}.new"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(config)
        os.replace(draft, self.config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self, wrapper: Sequence[str] = ()) -> None:
        """Start the process, as the last arguments of `wrapper`; the log goes on where an earlier one's ended."""
        self.started = time.perf_counter()
        with open(self._log, "ab") as log:
            self._child = processes.spawn([*wrapper, *self._command], errors=log, env=self._environment())

    def kill(self) -> None:
        """End the process as the kernel would, short of memory."""
        self._child.kill()
        self._child.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it started, and what it left on the disk."""
        processes.stop(self._child)
        self._directory.cleanup()

    def stop(self) -> None:
        """Ask the process to end and wait; what it leaves behind is not touched."""
        self._child.terminate()
        self._child.wait(processes.STOP_TIMEOUT)

    def _environment(self) -> dict[str, str]:
        """Ours, without what would lead the daemon to another socket, state or supervisor."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        for name in OURS_WHOLE:
            kept.pop(name, None)
        directory = self._directory.name
        return {**kept, "XDG_RUNTIME_DIR": directory, "XDG_STATE_HOME": os.path.join(directory, "state")}

    @property
    def pid(self) -> int:
        """The daemon itself, none of its servers."""
        return self._child.pid

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self._child.poll() is None

    @property
    def directory(self) -> str:
        """Where all its files are."""
        return self._directory.name

    @property
    def socket(self) -> str:
        """Where it listens."""
        return self._socket

    def accepting(self) -> Wire:
        """The first connection that it accepts; waits for that."""
        deadline = time.perf_counter() + START_TIMEOUT
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return Wire.to_socket(self._socket)
            if self._child.poll() is not None or time.perf_counter() > deadline:
                raise WireError(f"the daemon does not accept: {self.last_words()}")
            time.sleep(POLL)

    def client(self) -> Wire:
        """A connection after its handshake."""
        wire = self.accepting()
        wire.shake_hands()
        return wire

    def ready(self) -> Wire:
        """A client, when every server is listed."""
        client = self.client()
        wanted = {echo_of(server) for server in self.servers}
        deadline = time.perf_counter() + START_TIMEOUT
        while missing := wanted.difference(client.tools()):
            if time.perf_counter() > deadline:
                raise WireError(f"never listed: {', '.join(sorted(missing))}: {self.last_words()}")
            time.sleep(0.02)
        return client

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of its /metrics, which its log tells."""
        with open(self._log, "rb") as log:
            told = [json.loads(line) for line in log if b'"daemon.listening"' in line]
        return str(told[0]["metrics"])

    def last_words(self) -> str:
        """The end of its log."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]
