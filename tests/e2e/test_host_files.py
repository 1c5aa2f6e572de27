"""A person's first minute with the file of another host: `check` it, serve it, call a tool."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .entries import MARK, SERVERS
from .harness import Daemon

HOSTS = SERVERS / "hosts"
OURS = f'{{ "daemon": {{ "metrics": {{ "listen": "off" }}, "inheritEnv": ["{MARK}"] }},'


def command(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against this daemon."""
    every = [sys.executable, "-m", "mcp_multi_server", "--socket", str(daemon.socket), *words]
    return subprocess.run(every, env=daemon.environment, capture_output=True, text=True, timeout=30)


def written(name: str, daemon: Daemon) -> str:
    """The file of a host, with the settings that a test's daemon needs, and what the file names beside it."""
    text = (HOSTS / name).read_text().replace("@PYTHON@", sys.executable)
    (daemon.config.parent / "secrets.env").write_text("SECRET=1\n")
    (daemon.config.parent / "token").write_text("t0ken\n")
    return text.replace("@SERVER@", str(SERVERS / "fixture.py")).replace("{", OURS, 1)


@pytest.mark.parametrize(
    ("name", "problems", "environment"),
    [
        ("claude-desktop.json", 0, {"API_KEY": "k3y"}),
        ("cursor.json", 1, {"API_KEY": "t0ken", "SECRET": "1"}),
        ("vs-code.json", 2, {"SECRET": "1", "REGION": "eu", "PORT": "3000"}),
        ("zed.json", 1, {}),
        ("opencode.jsonc", 0, {"API_KEY": "t0ken"}),
    ],
)
def test_the_file_of_a_host_is_checked_served_and_called(name: str, problems: int, environment: dict[str, str]) -> None:
    daemon = Daemon(environment={"TOKEN": "t0ken"})
    daemon.write(written(name, daemon))
    checked = command(daemon, "check", str(daemon.config))
    assert checked.stdout.count("problem: ") == problems, checked.stdout
    assert checked.returncode == (1 if problems else 0)
    with daemon:
        daemon.await_up("local")
        called = command(daemon, "call", "--json", "local__environment")
        assert called.returncode == 0, called
        assert environment.items() <= json.loads(called.stdout)["structuredContent"]["env"].items()
