"""Programs that these tests run, and a Prometheus of their own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.polling import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
DASHBOARDS = ROOT / "dashboards"
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def program(name: str) -> str:
    """Its path. Where it is missing the test is skipped, and in CI fails."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"CI must have {name} (Debian: prometheus)"
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found


def promtool(*words: str | Path) -> str:
    """What promtool says; it must be content."""
    run = subprocess.run(
        [program("promtool"), *map(str, words)], capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


class Prometheus:
    """A server's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str | float) -> Any:
        """The `data` of an answer; an error of Prometheus's fails the test with its text."""
        try:
            with _OPEN(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{path} {query}: {refused.read().decode(errors='replace')}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def is_ready(self) -> bool:
        try:
            with _OPEN(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def prometheus(directory: Path, target: str, *, interval: str) -> Iterator[Prometheus]:
    """One that reads `target` and our rules, until the block ends."""
    config = directory / "prometheus.yml"
    config.write_text(
        json.dumps(  # JSON is YAML
            {
                "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
                "rule_files": [str(DASHBOARDS / "alerts.yml")],
                "scrape_configs": [{"job_name": "mcp-multi-server", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    port = _free_port()
    words = [f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    words += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            eventually(found.is_ready, what="a Prometheus that is ready")
            yield found
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
