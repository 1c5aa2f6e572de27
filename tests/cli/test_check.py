"""`check` and what `serve` does with an unusable config: with the real reader of configs, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .wire import run

GOOD = {"mcpServers": {"git": {"command": "uvx"}, "web": {"url": "http://127.0.0.1:1/mcp", "disabled": True}}}
BROKEN = {"mcpServers": {"git": {"command": 5}, "ok": {"command": "x", "env": {"TOKEN": "${env:NOT_SET_ANYWHERE}"}}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mcp_servers.json"
    path.write_text(json.dumps(GOOD))
    return path


@pytest.mark.parametrize("words", [("check", "{}"), ("check", "--config", "{}"), ("--config", "{}", "check")])
def test_a_good_config_is_counted(config: Path, words: tuple[str, ...]) -> None:
    done = run(*(word.format(config) for word in words))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ok: 2 servers in {config}\n", "")


def test_the_config_that_a_daemon_would_use_is_found(config: Path) -> None:
    assert run("check", MCP_MULTI_SERVER_CONFIG=str(config)).stdout == f"ok: 2 servers in {config}\n"


def test_every_problem_is_printed_with_its_path(config: Path) -> None:
    config.write_text(json.dumps(BROKEN))
    done = run("check", str(config))
    assert done.returncode == 1
    assert "problem: mcpServers.git.command: " in done.stdout
    assert "problem: mcpServers.ok.env.TOKEN: " in done.stdout
    assert "ok:" not in done.stdout


def test_a_note_is_no_problem(config: Path) -> None:
    config.write_text(json.dumps({"mcpServers": {"git": {"command": "x", "alwaysAllow": []}}}))
    done = run("check", str(config))
    assert done.returncode == 0
    assert "note: mcpServers.git" in done.stdout
    assert f"ok: 1 server in {config}" in done.stdout


def test_a_warning_is_told_apart_and_is_no_problem(config: Path) -> None:
    entry = {"url": "http://127.0.0.1:1/mcp", "oauth": {"clientId": "abc"}, "trust": True}
    config.write_text(json.dumps({"mcpServers": {"hub": entry}}))
    done = run("check", str(config))
    assert done.returncode == 0
    warning, note, ok = done.stdout.splitlines()
    assert warning.startswith("warning: mcpServers.hub.oauth: these credentials are not used")
    assert note.startswith("note: mcpServers.hub.trust: ignored")
    assert ok == f"ok: 1 server in {config}"
    found = json.loads(run("check", "--json", str(config)).stdout)
    assert [each["field"] for each in found["warnings"]] == ["mcpServers.hub.oauth"]


def test_problems_show_the_characters_of_a_name(config: Path) -> None:
    config.write_text('{"mcpServers": {"天气": {"command": 5}}}')
    assert (
        run("check", str(config), PYTHONIOENCODING="utf-8").stdout
        == 'problem: mcpServers["天气"].command: must be a string\n'
    )


def test_a_credential_is_a_note_to_whoever_cannot_see_any(config: Path) -> None:
    """systemd gives credentials to the daemon, not to the operator who checks its config."""
    entry = {"url": "${cred:address}", "headers": {"A": "Bearer ${cred:github}"}, "timeout": -1}
    config.write_text(json.dumps({"mcpServers": {"hub": {**entry, "timeout": 1}}}))
    done = run("check", str(config))
    assert done.returncode == 0, done.stdout
    assert "note: mcpServers.hub.headers.A: a credential" in done.stdout
    assert "note: mcpServers.hub.url: a credential" in done.stdout
    config.write_text(json.dumps({"mcpServers": {"hub": entry}}))
    done = run("check", str(config))
    assert done.returncode == 1
    assert "problem: mcpServers.hub.timeout" in done.stdout
    done = run("check", str(config), CREDENTIALS_DIRECTORY=str(config.parent))
    assert "problem: mcpServers.hub.headers.A: credential github: No such file" in done.stdout


@pytest.mark.parametrize("written", ["{", "[]", '{"mcpServers": {"a": {}, "a": {}}}'])
def test_a_config_that_is_refused_as_a_whole_has_problems(config: Path, written: str) -> None:
    config.write_text(written)
    done = run("check", str(config))
    assert done.returncode == 1
    assert done.stdout.startswith("problem: ")


def test_check_as_json_says_the_same(config: Path) -> None:
    found = json.loads(run("check", "--json", str(config)).stdout)
    assert found == {"ok": True, "path": str(config), "servers": 2, "problems": [], "warnings": [], "notes": []}
    config.write_text(json.dumps(BROKEN))
    done = run("check", "--json", str(config))
    assert done.returncode == 1
    assert [problem["server"] for problem in json.loads(done.stdout)["problems"]] == ["git", "ok"]


def test_a_config_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    done = run("check", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert "none.json" in done.stdout


def test_serve_with_an_unusable_config_exits_78_and_keeps_stdout_clean(tmp_path: Path) -> None:
    done = run("serve", "--config", str(tmp_path / "none.json"), "--socket", str(tmp_path / "mcp.sock"))
    assert (done.returncode, done.stdout) == (78, "")
    assert "none.json" in done.stderr
