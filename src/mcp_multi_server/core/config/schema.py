"""The JSON Schema of the config, for editors.

`python -m mcp_multi_server.core.config.schema > config/mcp_servers.schema.json` writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .hosts.layout import CONTAINERS
from .settings import DaemonConfig, ServerConfig, Settings

DIALECT = GenerateJsonSchema.schema_dialect
SERVERS = "MCP servers by name. The order matters: the first one to claim a name gets it."


class _File(Settings):
    """MCP servers and the daemon that runs them."""

    model_config = ConfigDict(
        title="mcp-multi-server", json_schema_extra={"anyOf": [{"required": [container]} for container in CONTAINERS]}
    )

    schema_: str | None = Field(None, alias="$schema", description="Where editors find this schema.")
    mcp_servers: Mapping[str, ServerConfig] | None = Field(None, description=SERVERS)
    servers: Mapping[str, ServerConfig] | None = Field(
        None, description="The same as VS Code calls it; used where there is no mcpServers."
    )
    context_servers: Mapping[str, Any] | None = Field(
        None, alias="context_servers", description="The same as Zed calls it, with entries as Zed has them."
    )
    mcp: Mapping[str, Any] | None = Field(
        None, description="The same as opencode calls it, with entries as opencode has them."
    )
    daemon: DaemonConfig | None = Field(None, description="Settings of the daemon itself.")


class _ForEditors(GenerateJsonSchema):
    """Makes the schema without what editors have no use for: null for absent keys, titles that repeat the key."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """The schema, in the order of the models."""
    made = _File.model_json_schema(schema_generator=_ForEditors)
    return {"$schema": DIALECT, **made}


def text() -> str:
    """The schema as the file that editors read."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def key_table(model: type[Settings], path: str = "") -> str:
    """The keys of a model as a Markdown table, those of objects inside it by their path."""
    head = "| key | default | what it is |\n|---|---|---|\n" if not path else ""
    return head + "".join(_rows(model, path))


def _rows(model: type[Settings], path: str) -> Iterator[str]:
    for field in model.model_fields.values():
        key = f"{path}{field.alias}"
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Settings):
            yield from _rows(type(default), f"{key}.")
        else:
            shown = "" if default in (None, (), {}) else f"`{json.dumps(default)}`"
            yield f"| `{key}` | {shown} | {(field.description or '').replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    sys.stdout.write(text())
