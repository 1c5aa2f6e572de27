"""The JSON Schema of the config: it is the one in the repository, and accepts what loads."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mcp_multi_server.core.config.config import Source, parse
from mcp_multi_server.core.config.schema import schema, text
from mcp_multi_server.core.config.settings import DaemonConfig, ServerConfig

CONFIG = Path(__file__).parents[2] / "config"
SCHEMA = schema()


def undefined(source: Source, name: str) -> str:
    raise LookupError(f"no {source} {name}")


def described(node: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Every key that the schema knows, and whether it says what the key is for."""
    target = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if path:
        yield path, bool(node.get("description") or target.get("description"))
    for key, member in target.get("properties", {}).items():
        yield from described(member, f"{path}.{key}")
    if isinstance(target.get("additionalProperties"), dict) and "$ref" in target["additionalProperties"]:
        yield from described(target["additionalProperties"], f"{path}.*")


def test_the_schema_in_config_is_what_the_models_say() -> None:
    assert (CONFIG / "mcp_servers.schema.json").read_text(encoding="utf-8") == text()


def test_the_module_prints_it_when_it_is_run() -> None:
    words = [sys.executable, "-m", "mcp_multi_server.core.config.schema"]
    assert subprocess.run(words, capture_output=True, check=True, timeout=30).stdout.decode() == text()


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_of_the_config_is_in_the_schema_and_says_what_it_is_for() -> None:
    keys = dict(described(SCHEMA))
    wanted = {f".mcpServers.*.{field.alias}" for field in ServerConfig.model_fields.values()}
    wanted |= {f".servers.*.{field.alias}" for field in ServerConfig.model_fields.values()}
    wanted |= {f".daemon.{field.alias}" for field in DaemonConfig.model_fields.values()}
    assert wanted | {".$schema", ".daemon.limits.partialLine", ".daemon.metrics.allowedHosts"} <= keys.keys()
    assert [key for key, known in keys.items() if not known] == []


def test_the_config_that_comes_along_is_valid_and_has_no_problems() -> None:
    data = (CONFIG / "mcp_servers.json").read_bytes()
    jsonschema.validate(json.loads(data), SCHEMA)
    config = parse(data, undefined)
    assert config.order == ("time", "git")
    assert not config.broken
    assert not config.notes


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"mcpServers": {"a": {"command": 1}}},
        {"mcpServers": {"a": {}}},
        {"mcpServers": {"a": {"command": "x", "type": "ws"}}},
        {"mcpServers": {"a": {"command": "x", "timeout": 0}}},
        {"servers": {"a": {"command": "x", "inheritEnv": "some"}}},
        {"mcpServers": {}, "daemon": {"naming": "short"}},
        {"mcpServers": {}, "daemon": {"limits": {"clients": 0}}},
        {"mcpServers": {}, "daemon": {"colour": 1}},
        {"mcpServers": {}, "daemon": {"log": {"lvl": "info"}}},
    ],
)
def test_an_editor_sees_what_is_wrong(file: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file, SCHEMA)


@pytest.mark.parametrize(
    "file",
    [
        {"servers": {"a": {"command": "x", "type": "stdio", "dev": {}}}, "inputs": []},
        {"servers": {"a": {"command": "x", "env": {"PORT": 3000, "DEBUG": True, "UNSET": None}}}},
        {"context_servers": {"a": {"command": {"path": "x", "args": []}}}, "theme": "One Dark"},
        {"mcp": {"a": {"type": "local", "command": ["x"], "enabled": True}}},
        {"mcpServers": {"a": {"httpUrl": "http://x"}, "b": {"serverUrl": "http://x"}, "c": {"enabled": False}}},
        {"mcpServers": {"a": {"url": "http://x", "type": "streamable-http", "autoApprove": []}}},
        {"mcpServers": {"a": {"disabled": True}}},
        {"$schema": "x", "mcpServers": {"a": {"command": "x", "inheritEnv": "all"}}, "daemon": {"metrics": {}}},
    ],
)
def test_an_editor_lets_pass_what_loads(file: dict[str, Any]) -> None:
    jsonschema.validate(file, SCHEMA)
    assert not parse(json.dumps(file).encode(), undefined).broken
