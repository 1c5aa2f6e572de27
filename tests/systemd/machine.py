"""A systemd of our own as PID 1, over a copy-on-write view of this machine: booted once, for all tests that need it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.entries import PACKAGES, TESTS, node
from tests.polling import eventually

BOOT = Path(__file__).with_name("boot.sh")
BOOT_WITHIN = 150.0
NEEDED = ("systemd-nspawn", "systemd-analyze", "setpriv", "unshare", "nsenter", "runuser", "ps")
SERVERS, MODULES, NODE, SOURCE = "/srv/servers", "/srv/node_modules", "/srv/node", "/srv/source"
"""Where the machine sees the servers of the tests, and this project."""
IN_A_HURRY = "/srv/python-in-a-hurry"
"""A Python in it whose virtual environments are copies of the installed one, so that an installation takes seconds."""


def missing() -> str:
    """What this machine lacks to boot another one; "" where it lacks nothing."""
    if os.geteuid() != 0:
        return "only root can boot a systemd"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if not Path("/usr/bin/python3").exists():
        absent.append("/usr/bin/python3")
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if (TESTS / "wheels" / ".downloaded").exists() else "`make tests/wheels/.downloaded` has not been run"


class Machine:
    """Called with words, it runs them inside as root; `/` divides paths as inside."""

    def __init__(self) -> None:
        self.name = f"mms-tests-{os.getpid()}"
        self.work = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
        self._said = self.work.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def __call__(
        self, *words: str, check: bool = True, user: str = "root", within: float = 40.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside and wait for it."""
        change = () if user == "root" else ("runuser", "-u", user, "--", *self._session(user))
        enter = ("nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--")
        clean = ("env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        run = subprocess.run(
            [*enter, *change, *clean, *self._session(user)[1:], *words], text=True, capture_output=True, timeout=within
        )
        assert not check or run.returncode == 0, f"{words} ended with {run.returncode}: {run.stdout}{run.stderr}"
        return run

    def __truediv__(self, path: str) -> Path:
        """A path inside, as a path of ours: for files, and for sockets too."""
        return Path(f"/proc/{self._leader}/root") / path.lstrip("/")

    def says(self, *words: str, user: str = "root") -> str:
        """What a program inside prints."""
        return self(*words, user=user).stdout.strip()

    def _session(self, user: str) -> tuple[str, ...]:
        if user == "root":
            return ("env",)
        uid = self("id", "-u", user).stdout.strip()
        return ("env", f"HOME=/home/{user}", f"XDG_RUNTIME_DIR=/run/user/{uid}")

    def _boot(self) -> None:
        shown = {
            TESTS / "fixtures": SERVERS,
            PACKAGES.parent: MODULES,
            node().parent.parent: NODE,
            TESTS.parent: SOURCE,
        }
        binds = [f"--bind-ro={ours}:{theirs}" for ours, theirs in shown.items()]
        alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--mount-proc"]
        alone += ["--kill-child=SIGKILL", "--propagation", "private", "--"]
        boot = ["bash", str(BOOT), str(self.work), self.name, str(TESTS.parent), *binds]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen([*alone, *boot], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        eventually(self._is_up, within=BOOT_WITHIN, what="a booted systemd")

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the machine ended:\n{self._said.read_text(errors='replace')}"
        self._leader = self._leader or _find_systemd(self._process.pid)
        if self._leader is None:
            return False
        state = self("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _end(self) -> None:
        """Halt it in order, then by force; its mounts go with its namespace."""
        if self._process is not None and self._process.poll() is None:
            if self._leader is not None:
                os.kill(self._leader, signal.SIGRTMIN + 3)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _remove_cgroup(self.name)
        shutil.rmtree(self.work)
        self._said.unlink(missing_ok=True)


def _find_systemd(pid: int) -> int | None:
    """The systemd below a process."""
    below = [pid]
    while below:
        for child in _children(below.pop()):
            try:
                if os.readlink(f"/proc/{child}/exe").endswith("/systemd/systemd"):
                    return child
            except OSError:
                continue
            below.append(child)
    return None


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _remove_cgroup(name: str) -> None:
    roots = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    group = next((root / name for root in roots if (root / name).is_dir()), None)
    if group is None:
        return
    (group / "cgroup.kill").write_text("1")

    def is_gone() -> bool:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                return False
        return not group.exists()

    eventually(is_gone, within=5, what="the end of the machine's control group")
