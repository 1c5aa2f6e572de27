"""Errors as others see them: JSON-RPC errors, which go to clients, and what can be wrong with a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_PROTOCOL_VERSION = -32022
RESOURCE_NOT_FOUND_LEGACY = -32002
"""Revisions up to 2025-11-25 only; 2026-07-28 says -32602 instead."""


class RpcError(Exception):
    """A JSON-RPC error object, to be sent to a client or as received from a server.

    `message` is written for the person who reads it at the client and never holds an exception's text.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config.

    `field` is a JSON path such as `mcpServers.git.env.TOKEN`; `server` names the entry, or is None for the file as a
    whole. `message` never holds the value it complains about: values can be secrets.
    """

    field: str
    message: str
    server: str | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class ConfigError(Exception):
    """Raised if a config is refused as a whole. What ran before goes on running."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
