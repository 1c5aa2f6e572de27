"""Draws docs/terminal.svg, the picture in the README: `python -m docs.tools.draw_terminal`, after `make dev`.

It starts a daemon with four servers that work, one that keeps ending and one that does not exist, runs the commands on
a terminal, and draws what they print. Only the directory of the config is replaced by the usual one.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS, ROWS = 112, 40
USUAL_DIRECTORY = "/etc/mcp-multi-server"
READY_WITHIN = 60.0

SHOP = {"command": sys.executable, "cwd": str(ROOT)}
CONFIG = {
    "mcpServers": {
        "time": {"command": "mcp-server-time"},
        "git": {"command": "mcp-server-git"},
        "stock": SHOP | {"args": ["-m", "examples.inventory.stock"]},
        "suppliers": SHOP | {"args": ["-m", "examples.inventory.suppliers"]},
        "tickets": {"command": "sh", "args": ["-c", "sleep 0.3; echo 'database is locked' >&2; exit 3"]},
        "browser": {"command": "browser-mcp"},
    },
    "daemon": {"metrics": {"listen": "off"}},
}
COMMANDS = (
    ("status",),
    ("call", "get_current_time", "timezone=Europe/Berlin"),
    ("call", "suppliers__find", "text=o"),
    ("logs", "tickets", "--lines", "2"),
)
SVG = """\
<!-- Drawn from real output by: python -m docs.tools.draw_terminal -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-label="A terminal: four servers are ready, one is in backoff and one is parked; two tools are called">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""rich's own template loads a font from elsewhere."""


@contextmanager
def running(directory: Path) -> Iterator[dict[str, str]]:
    """A daemon on `directory`; the environment in which its commands are run."""
    config = directory / "mcp_servers.json"
    config.write_text(json.dumps(CONFIG))
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {
        "PATH": path,
        "TERM": "xterm-256color",
        "XDG_STATE_HOME": str(directory / "state"),
        "MCP_MULTI_SERVER_SOCKET": str(directory / "mcp.sock"),
    }
    environment.pop("NO_COLOR", None)
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(["mcp-multi-server", "serve", "--config", config], env=environment, stderr=log) as daemon,
    ):
        try:
            yield environment
        finally:
            daemon.terminate()


def seconds_until_attempt(server: dict[str, Any]) -> float:
    """How long a server in backoff still waits."""
    return (datetime.fromisoformat(server["nextAttemptAt"]) - datetime.now(UTC)).total_seconds()


def await_states(environment: dict[str, str]) -> None:
    """Until every server has been tried, and the one that keeps ending waits for some seconds."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        asked = subprocess.run(
            ["mcp-multi-server", "status", "--json"], env=environment, capture_output=True, check=False
        )
        servers = {row["name"]: row for row in json.loads(asked.stdout)["servers"]} if asked.returncode == 0 else {}
        states = Counter(server["state"] for server in servers.values())
        if states == {"ready": 4, "backoff": 1, "parked": 1} and seconds_until_attempt(servers["tickets"]) > 2:
            return
        time.sleep(0.2)
    raise TimeoutError("the servers did not get into the states that the picture shows")


def on_terminal(command: tuple[str, ...], environment: dict[str, str]) -> str:
    """What a command prints on a terminal, colours included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    printed = bytearray()
    with subprocess.Popen(["mcp-multi-server", *command], env=environment, stdout=theirs, stderr=theirs):
        os.close(theirs)
        try:
            while part := os.read(ours, 65536):
                printed += part
        except OSError:  # Linux says EIO where the other end of a terminal is closed
            pass
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def main() -> None:
    """Run the commands, draw the picture."""
    screen = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as environment:
        await_states(environment)
        for command in COMMANDS:
            screen.print(Text.assemble(("$ ", "green"), (f"mcp-multi-server {' '.join(command)}", "bold")))
            printed = on_terminal(command, environment).replace(name, USUAL_DIRECTORY).rstrip("\n")
            screen.print(Text.from_ansi(printed), end="\n\n")
    drawn = screen.export_svg(title="", theme=MONOKAI, code_format=SVG, unique_id="t")
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in drawn.splitlines()), encoding="utf-8")


if __name__ == "__main__":
    main()
