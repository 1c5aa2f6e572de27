"""What clients of every revision take for a list: the protocol's own schemas, and the checks of the public SDKs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import mcp_types
from jsonschema import Draft202012Validator
from mcp_types import _v2025_11_25, _v2026_07_28
from pydantic import ValidationError

from mcp_multi_server.core.catalog.catalog import Kind
from mcp_multi_server.core.protocol import Era

LIST_RESULTS = {
    Kind.TOOL: "ListToolsResult",
    Kind.PROMPT: "ListPromptsResult",
    Kind.RESOURCE: "ListResourcesResult",
    Kind.TEMPLATE: "ListResourceTemplatesResult",
}
REVISIONS = {Era.LEGACY: _v2025_11_25, Era.MODERN: _v2026_07_28}
"""The legacy revisions differ in what they know, not in what they want of it: the last one wants all of it."""


def _without_null(schema: Any) -> Any:
    """The schema with nothing that may be null: the models take null for what is left out, the protocol does not."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_null(each) for key, each in schema.items() if key != "default"}
    return kept | ({"anyOf": kept["anyOf"]} if "anyOf" in kept else {})


def _schemas(revision: ModuleType) -> Mapping[Kind, Draft202012Validator]:
    models = {kind: getattr(revision, name) for kind, name in LIST_RESULTS.items()}
    return {kind: Draft202012Validator(_without_null(model.model_json_schema())) for kind, model in models.items()}


_SCHEMAS = {era: _schemas(revision) for era, revision in REVISIONS.items()}
_MODELS = {kind: getattr(mcp_types, name) for kind, name in LIST_RESULTS.items()}


def schema_complaint(kind: Kind, era: Era, result: Any) -> str | None:
    """What is wrong with a list result by the schema of the era's last revision; None where nothing is."""
    found = next(iter(_SCHEMAS[era][kind].iter_errors(result)), None)
    return None if found is None else f"{found.json_path}: {found.message}"


def model_complaint(kind: Kind, result: bytes) -> str | None:
    """What the Python SDK has to say against it."""
    validate: Callable[[bytes], Any] = _MODELS[kind].model_validate_json
    try:
        validate(result)
    except ValidationError as wrong:
        return str(wrong)
    return None
