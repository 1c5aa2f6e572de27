"""What the library logs, and under which names."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from mcp_multi_server import MultiServerClient

from ..polling import until

pytestmark = pytest.mark.anyio

PUZZLED = """
import json, sys

def note(text):
    print(text, file=sys.stderr, flush=True)

for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"result": {}}
    if asked["method"] == "server/discover":
        for _ in range(100):
            note("what is server/discover?")
        answer = {"error": {"code": -32602, "message": "what?"}}
    elif asked["method"] == "initialize":
        info = {"name": "puzzled", "version": "1"}
        answer = {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}}
    elif asked["method"] == "tools/list":
        note("at work")
        answer = {"result": {"tools": []}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""
"""A server that says a lot about the question which era it speaks, as those on SDK 1.x do."""


async def records(caplog: pytest.LogCaptureFixture, level: int, tmp_path: Path) -> list[tuple[str, str]]:
    """Logger and message of each record of a client with a puzzled server and one that cannot be started."""
    script = tmp_path / "puzzled.py"
    script.write_text(PUZZLED)
    puzzled = {"command": sys.executable, "args": ["-I", "-S", str(script)]}
    with caplog.at_level(level, logger="mcp_multi_server"):
        async with MultiServerClient.from_dict({"mcpServers": {"puzzled": puzzled, "gone": {"command": "/nix"}}}):
            await until(lambda: "at work" in caplog.text)
    return [(record.name, record.message) for record in caplog.records]


async def test_records_have_the_names_of_version_1_and_stderr_has_one_of_its_own(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    found = await records(caplog, logging.INFO, tmp_path)
    assert {name for name, _ in found} == {"mcp_multi_server.client", "mcp_multi_server.stderr"}
    assert [message.partition("line=")[2] for name, message in found if name == "mcp_multi_server.stderr"] == [
        "at work"
    ]


async def test_what_a_server_says_about_the_question_for_its_era_is_there_at_debug(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    found = await records(caplog, logging.DEBUG, tmp_path)
    assert sum("what is server/discover?" in message for _, message in found) == 100
