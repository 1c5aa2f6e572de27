"""Writes the dashboards' JSON: `python -m dashboards.generate`. A test holds that it agrees with what makes it."""

from __future__ import annotations

import json
from pathlib import Path

from . import overview, server

HERE = Path(__file__).parent


def texts() -> dict[str, str]:
    """What the files hold, by name."""
    made = {"overview.json": overview.overview(), "server.json": server.server()}
    return {name: json.dumps(whole, indent=2) + "\n" for name, whole in made.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (HERE / name).write_text(text)
