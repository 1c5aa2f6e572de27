"""Our unit files, where they are and as systemd-analyze can judge them without an installation."""

from __future__ import annotations

import shutil
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "systemd"
SERVICE, SOCKET = "mcp-multi-server.service", "mcp-multi-server.socket"
PROGRAMS = ("/opt/mcp-multi-server/bin/mcp-multi-server", "%h/.local/share/mcp-multi-server/bin/mcp-multi-server")


def judged(source: Path, into: Path) -> Path:
    """A copy of a unit whose program is one that is there: the installed one is not, where nothing is installed."""
    text = source.read_text()
    for program in PROGRAMS:
        text = text.replace(program, shutil.which("true") or "/bin/true")
    copy = into / source.name
    copy.write_text(text)
    return copy
