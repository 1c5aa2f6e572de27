"""The daemon as a real process: started from a config in a directory of its own, watched, stopped, looked after."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.polling import eventually

from .entries import MARK, RUN, Entry
from .processes import Process, descendants, is_alive, living_group
from .wire import Closed, Message, Wire

UP = ("ready", "degraded")
ROOT = tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp"
"""Where the daemons of the tests live: short, because a socket's path may have 107 bytes."""
STOP_WITHIN = 20.0
KEPT = ("PATH", "LANG", "TMPDIR", "COVERAGE_PROCESS_CONFIG")
"""What a daemon of the tests has from their own environment; the last one says that it is to be measured, and how."""
TROUBLE = ("internal.error", "Traceback (most recent call last)", "InternalError")


class Daemon:
    """One daemon; a context manager that shows at its end that nothing is left behind.

    `servers` are the entries of `mcpServers`, `settings` those of `daemon`. `expected_trouble`: words that its log may
    hold although they say that something went wrong inside.
    """

    def __init__(
        self,
        servers: dict[str, Entry] | None = None,
        *,
        settings: Message | None = None,
        environment: dict[str, str] | None = None,
        expected_trouble: tuple[str, ...] = (),
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"mms-{RUN}-", dir=ROOT))
        self.socket = self.directory / "run" / "mcp.sock"
        self.config = self.directory / "config" / "mcp_servers.json"
        self.log_file = self.directory / "log"
        self.settings = settings or {}
        self.expected_trouble = expected_trouble
        self.environment = self._environment() | (environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: dict[int, Process] = {}
        """Every process that was found below the daemon, by pid."""
        for name in ("run", "config", "state", "home"):
            (self.directory / name).mkdir(mode=0o700)
        self.rewrite(servers or {})

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        own = {"HOME": "home", "XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config"}
        return kept | {MARK: RUN} | {name: str(self.directory / where) for name, where in own.items()}

    # config

    def rewrite(self, servers: dict[str, Entry], settings: Message | None = None) -> None:
        """Replace the config in one step, as editors do."""
        if settings is not None:
            self.settings = settings
        base: Message = {"metrics": {"listen": "off"}, "log": {"format": "json", "level": "debug"}}
        self.write(json.dumps({"mcpServers": servers, "daemon": base | self.settings}, indent=2))

    def write(self, text: str | bytes) -> None:
        """Replace the config by any text, good or bad."""
        fresh = self.config.with_suffix(".new")
        fresh.write_bytes(text.encode() if isinstance(text, str) else text)
        fresh.replace(self.config)

    # the process

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self.stop()
            else:
                error.add_note(f"the daemon's log ends with:\n{self.log[-4000:]}")
        finally:
            self.remove()

    @property
    def command(self) -> list[str]:
        words = ["-m", "mcp_multi_server", "serve", "--config", str(self.config), "--socket", str(self.socket)]
        return [sys.executable, *words]

    def start(self) -> Self:
        """Start it and wait until its socket answers."""
        self.launch()
        eventually(self.answers, what="a daemon that answers")
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.directory,
                start_new_session=True,
            )
        return self.process

    def answers(self) -> bool:
        """Whether a client is accepted; AssertionError where the daemon has ended."""
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the daemon ended with {code}:\n{self.log[-4000:]}"
        try:
            return bool(self.status(within=5))
        except (FileNotFoundError, ConnectionRefusedError, Closed):
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[Process]:
        """The living processes that the daemon started itself."""
        self._remember()
        return [one for one in descendants(self.pid) if one.parent == self.pid and one.state not in "ZX"]

    def stop(self) -> None:
        """SIGTERM, then everything that a stopped daemon promises."""
        self._remember()
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"the daemon ended with {code}:\n{self.log[-4000:]}"
        self.assert_nothing_left()
        self.assert_no_trouble()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, *, within: float = STOP_WITHIN) -> int:
        """The exit code."""
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {within} s:\n{self.log[-4000:]}") from None

    def assert_nothing_left(self) -> None:
        left = [one for one in self.seen.values() if is_alive(one)]
        left += [one for group in {one.group for one in self.seen.values()} for one in living_group(group)]
        assert not left, f"left running: {left}"
        assert not self.socket.exists(), "the socket file was left"
        for path in self.socket.parent.rglob("*"):
            if path.is_file():
                _assert_unlocked(path)

    def assert_no_trouble(self) -> None:
        for word in TROUBLE:
            if word not in self.expected_trouble:
                lines = [line for line in self.log.splitlines() if word in line]
                assert not lines, f"the log says {word}:\n" + "\n".join(lines[:5]) + self._traceback()

    def _traceback(self) -> str:
        at = self.log.find("Traceback")
        return "\n" + self.log[at : at + 4000] if at >= 0 else ""

    def remove(self) -> None:
        """Kill what still runs and delete the directory."""
        self._remember()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for one in self.seen.values():
            if is_alive(one):
                os.kill(one.pid, signal.SIGKILL)
        shutil.rmtree(self.directory)

    def _remember(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.seen |= {one.pid: one for one in descendants(self.process.pid)}

    # what it says

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def logged(self, event: str) -> list[Message]:
        """The lines of its log about one kind of event, so far."""
        return lines_about(event, self.log)

    def await_logged(self, event: str, *, times: int = 1) -> list[Message]:
        """Wait until that many such lines were written."""
        eventually(lambda: len(self.logged(event)) >= times, what=f"{times} lines {event} in the log")
        return self.logged(event)

    def wire(self, *, modern: bool = False, capabilities: Message | None = None) -> Wire:
        """A connection on which nothing was said yet."""
        return Wire(self.socket, modern=modern, capabilities=capabilities)

    def legacy(self, capabilities: Message | None = None) -> Wire:
        """A legacy client that has shaken hands."""
        wire = self.wire(capabilities=capabilities)
        wire.initialize()
        return wire

    def modern(self, capabilities: Message | None = None) -> Wire:
        """A modern client."""
        return self.wire(modern=True, capabilities=capabilities)

    def control(self, method: str, params: Message | None = None, *, within: float = 40.0) -> Message:
        """The result of a `daemon/…` method."""
        with self.wire() as wire:
            return wire.result(f"daemon/{method}", params or {}, within=within)

    def status(self, *, within: float = 15.0) -> Message:
        return self.control("status", within=within)

    def server(self, name: str) -> Message:
        """One server's row in the status."""
        found: list[Message] = [one for one in self.status()["servers"] if one["name"] == name]
        assert len(found) == 1, f"{len(found)} servers named {name} in the status"
        return found[0]

    def last_reload(self) -> Message:
        """What came of the last reading of the config that changed something or was refused."""
        found: Message = self.status()["config"]["lastReload"]
        return found

    def await_states(self, *, within: float = 20.0, **wanted: str) -> None:
        """Wait until each named server is in its wanted state; `up` means ready or degraded."""

        def reached() -> bool:
            found.update({one["name"]: one["state"] for one in self.status()["servers"]})
            return all(found.get(n) in (UP if state == "up" else (state,)) for n, state in wanted.items())

        found: dict[str, str] = {}
        try:
            eventually(reached, within=within, what=f"the states {wanted}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; found {found}\n{self.log[-3000:]}") from None
        self._remember()

    def await_up(self, *names: str, within: float = 20.0) -> Self:
        """Wait until these servers are up; all that are configured, where none is named."""
        every = names or tuple(json.loads(self.config.read_bytes())["mcpServers"])
        self.await_states(within=within, **dict.fromkeys(every, "up"))
        return self

    def reload(self) -> Message:
        return self.control("reload")


def lines_about(event: str, log: str) -> list[Message]:
    """The lines of a daemon's log, written as JSON, about one kind of event."""
    lines = [json.loads(line[line.index("{") :]) for line in log.splitlines() if "{" in line]
    return [line for line in lines if line.get("event") == event]


def _assert_unlocked(path: Path) -> None:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"{path.name} is still locked") from None


def run_serve(daemon: Daemon, *, within: float = 20.0) -> tuple[int, str]:
    """Start a daemon that is expected to end by itself: its exit code and what it said."""
    daemon.launch()
    try:
        return daemon.wait(within=within), daemon.log
    finally:
        daemon.remove()
