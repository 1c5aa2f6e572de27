"""Files as other hosts document them, read as the daemon reads its config: what is honoured, ignored or refused.

Each row of the table in docs/configuration.md has its file in tests/fixtures/hosts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcp_multi_server.core.config.config import Config, ServerConfig
from mcp_multi_server.core.errors import ConfigError, Problem
from mcp_multi_server.daemon.config_file import load
from tests.docs.pages import page, rows, section

HOSTS = Path(__file__).parents[1] / "fixtures" / "hosts"
SERVER = "/srv/server.py"
LOCAL: dict[str, Any] = {"command": sys.executable, "args": ["-I", "-S", SERVER]}
URL = "http://127.0.0.1:9/mcp"
ENVIRON = {"TOKEN": "t0ken", "HOME": "/home/me"}
OFF = ServerConfig(disabled=True)
UNKNOWN = "unknown key, ignored"
APPROVAL = "ignored: whether a person is asked before a call is up to the client"
CREDENTIALS = "these credentials are not used: without a token in headers the server will say 401"
BEARER = {"Authorization": "Bearer t0ken"}


@dataclass(frozen=True)
class Expected:
    """What comes of a file: its usable servers, and what is said of which place, or of which entry in other words."""

    servers: Mapping[str, ServerConfig]
    broken: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def milliseconds(seconds: int) -> str:
    return f"is taken for milliseconds, as other hosts count: {seconds} s. Beside a key of our own it is in seconds"


def project(place: str) -> dict[str, str]:
    said = "${workspaceFolder} is the directory of a project, and the daemon serves them all: write the path itself"
    return {place: said}


FROM_INCLUDE = "is taken for include, which leaves out the server's resources and prompts too"
EXPECTED = {
    "claude-desktop.json": Expected(
        {"local": ServerConfig(**LOCAL, env={"API_KEY": "k3y"})}, notes={"globalShortcut": UNKNOWN}
    ),
    "claude-code.json": Expected(
        {
            "local": ServerConfig(**LOCAL, type="stdio", env={"CACHE": "/tmp"}, timeout=600),
            "api": ServerConfig(type="http", url=URL, headers=BEARER),
            "events": ServerConfig(type="sse", url="http://127.0.0.1:9/sse"),
            "signed-in": ServerConfig(type="http", url=URL),
        },
        warnings={"mcpServers.signed-in.headersHelper": CREDENTIALS, "mcpServers.signed-in.oauth": CREDENTIALS},
        notes={"mcpServers.local.timeout": milliseconds(600), "mcpServers.events.alwaysLoad": UNKNOWN},
    ),
    "cursor.json": Expected(
        {
            "local": ServerConfig(
                **LOCAL, type="stdio", env={"SECRET": "from a file", "API_KEY": "t0ken", "DATA": "/home/me/data"}
            ),
            "remote": ServerConfig(url=URL, headers=BEARER),
            "signed-in": ServerConfig(url=URL),
        },
        broken=project("mcpServers.project.args[0]"),
        warnings={"mcpServers.signed-in.auth": CREDENTIALS},
    ),
    "vs-code.json": Expected(
        {
            "local": ServerConfig(
                **LOCAL,
                type="stdio",
                env={
                    "SECRET": "from a file",
                    "API_KEY": "of the file",
                    "REGION": "eu",
                    "PORT": "3000",
                    "DEBUG": "true",
                    "PROXY": None,
                },
            ),
            "remote": ServerConfig(type="http", url=f"{URL}#//not-a-comment", headers={"X-Level": "1"}),
            "old": ServerConfig(type="sse", url="http://127.0.0.1:9/sse"),
        },
        broken={
            "servers.asked.env.API_KEY": "${input:api-key} asks a person, and a daemon has none to ask: "
            'give daemon.inputs.api-key a value, for example "${file:PATH}" or "${env:NAME}"',
            **project("servers.project.cwd"),
        },
        notes={
            "servers.local.dev": UNKNOWN,
            "inputs": 'nobody is asked for "region", its default is taken: daemon.inputs.region gives another',
        },
    ),
    "windsurf.json": Expected(
        {
            "local": ServerConfig(**LOCAL, env={"API_KEY": "t0ken"}, exclude=["delete[[]1]"]),
            "remote": ServerConfig(url=URL, headers={"API_KEY": "Bearer t0ken"}),
            "off": ServerConfig(url=URL, disabled=True),
        },
    ),
    "gemini-cli.json": Expected(
        {
            "local": ServerConfig(
                **LOCAL,
                env={"API_KEY": "t0ken", "OTHER": "t0ken", "PASSWORD": "pa$$w0rd"},
                cwd="/home/me",
                timeout=30,
                include=["echo", "add"],
                exclude=["add"],
            ),
            "http": ServerConfig(type="http", url=URL, headers=BEARER, timeout=5),
            "sse": ServerConfig(url="http://127.0.0.1:9/sse"),
            "google": ServerConfig(type="http", url=URL),
            "experiment": ServerConfig(command="python", args=["experiment.py"], disabled=True),
        },
        warnings={"mcpServers.google.authProviderType": CREDENTIALS, "mcpServers.google.oauth": CREDENTIALS},
        notes={
            "mcpServers.local.timeout": milliseconds(30),
            "mcpServers.local.trust": APPROVAL,
            "mcpServers.local.includeTools": FROM_INCLUDE,
            "mcpServers.local.env.PASSWORD": "looks like a variable that is not set, and is passed on as it is",
            "mcpServers.http.timeout": milliseconds(5),
            "mcpServers.experiment": "is turned off by the lists of servers that this file allows",
        },
    ),
    "zed.json": Expected(
        {
            "local": ServerConfig(**LOCAL),
            "older": ServerConfig(command=sys.executable, args=[SERVER], env={"LEVEL": "debug"}),
            "remote": ServerConfig(url=URL, headers=BEARER),
            "off": ServerConfig(command="python", disabled=True),
        },
        broken={
            "context_servers.by-extension": "is brought by an extension of Zed, which alone knows its command: "
            "write command and args"
        },
        notes={"": "settings of another program, ignored: theme, vim_mode, agent, languages"},
    ),
    "opencode.jsonc": Expected(
        {
            "local": ServerConfig(**LOCAL, type="stdio", env={"API_KEY": "t0ken"}, timeout=15),
            "remote": ServerConfig(url=URL, headers={"Authorization": "Bearer of a file"}),
            "signed-in": ServerConfig(url=URL),
            "off": ServerConfig(type="stdio", command="python", args=["off.py"], disabled=True),
        },
        warnings={"mcp.signed-in.oauth": CREDENTIALS},
        notes={"model": UNKNOWN, "mcp.local.timeout": milliseconds(15), "mcp.remote.oauth": UNKNOWN},
    ),
    "opencode-2.jsonc": Expected(
        {
            "local": ServerConfig(**LOCAL, type="stdio", start_timeout=20, timeout=90),
            "off": ServerConfig(url=URL, disabled=True),
        },
    ),
    "cline.json": Expected(
        {
            "local": ServerConfig(**LOCAL, env={"API_KEY": "k3y"}, timeout=3600),
            "remote": ServerConfig(type="http", url=URL, headers=BEARER, timeout=60),
        },
        notes={"mcpServers.local.alwaysAllow": APPROVAL, "mcpServers.remote.autoApprove": APPROVAL},
    ),
    "roo.json": Expected(
        {
            "local": ServerConfig(**LOCAL, cwd="/", env={"API_KEY": "t0ken"}, exclude=["add"], timeout=1800),
            "remote": ServerConfig(type="http", url=URL, disabled=True),
        },
        notes={"mcpServers.local.alwaysAllow": APPROVAL, "mcpServers.local.watchPaths": UNKNOWN},
    ),
    "cherry-studio.json": Expected(
        {
            "高德地图": ServerConfig(**LOCAL, type="stdio"),
            "天气查询": ServerConfig(type="http", url=URL),
            "关": ServerConfig(type="sse", url="http://127.0.0.1:9/sse", disabled=True),
        },
        notes={
            'mcpServers["高德地图"].name': UNKNOWN,
            'mcpServers["高德地图"].registryUrl': UNKNOWN,
            'mcpServers["天气查询"].description': UNKNOWN,
        },
    ),
    "copilot-cli.json": Expected(
        {
            "local": ServerConfig(**LOCAL, type="stdio", env={"API_KEY": "t0ken"}),
            "some": ServerConfig(**LOCAL, type="stdio", include=["echo"]),
            "remote": ServerConfig(type="http", url=URL, timeout=30),
        },
        warnings={"mcpServers.remote.auth": CREDENTIALS},
        notes={"mcpServers.some.tools": FROM_INCLUDE, "mcpServers.remote.timeout": milliseconds(30)},
    ),
    "lm-studio.json": Expected(
        {"local": ServerConfig(**LOCAL), "remote": ServerConfig(url=URL, headers=BEARER)},
    ),
    "amazon-q.json": Expected(
        {
            "local": ServerConfig(**LOCAL, env={"FASTMCP_LOG_LEVEL": "ERROR"}, timeout=120),
            "remote": ServerConfig(type="http", url=URL),
        },
        notes={"mcpServers.local.autoApprove": APPROVAL, "mcpServers.local.timeout": milliseconds(120)},
    ),
}


def loaded(name: str, directory: Path) -> Config:
    """The config in a copy of a host's file, beside the files that it names."""
    text = (HOSTS / name).read_text().replace("@PYTHON@", sys.executable).replace("@SERVER@", SERVER)
    (directory / name).write_text(text)
    (directory / "secrets.env").write_text("SECRET=from a file\nAPI_KEY=of the file\n")
    (directory / "token").write_text("of a file\n")
    return load(str(directory / name), ENVIRON)


def told(problems: tuple[Problem, ...]) -> dict[str, str]:
    return {problem.field: problem.message for problem in problems}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_of_another_host_means_here_what_it_means_there(name: str, tmp_path: Path) -> None:
    config, expected = loaded(name, tmp_path), EXPECTED[name]
    assert config.servers == expected.servers
    assert told(tuple(each for found in config.broken.values() for each in found)) == expected.broken
    assert told(config.warnings) == expected.warnings
    assert told(config.notes) == expected.notes


def test_a_file_of_codex_is_refused_in_words_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is TOML, not JSON: write the servers as JSON"):
        loaded("codex.toml", tmp_path)


def test_every_host_of_the_table_in_the_documentation_has_its_file() -> None:
    table = rows(section(page("configuration"), "Files of other hosts"))
    named = {host.lower().replace(" ", "-") for host, *_ in table}
    files = {path.stem for path in HOSTS.iterdir()} - {"opencode-2"}
    assert named == files
    assert {path.name for path in HOSTS.iterdir()} == {*EXPECTED, "codex.toml"}
