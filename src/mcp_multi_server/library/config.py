"""The config of a client that runs its own servers: a file's, or one that the program made; with version 1's errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, PydanticSerializationError, to_json

from ..core.config.config import Config, parse
from ..core.config.jsonc import plain
from ..core.config.settings import ServerConfig
from ..core.errors import ConfigError, Problem
from ..daemon import config_file

STRICT_VARIABLE = "MCP_MULTI_SERVER_STRICT_CONNECT"


class MCPServersConfig(BaseModel):
    """A config as an object. `from_dict` accepts its `model_dump()`.

    Attributes:
        mcpServers: the servers by their names.

    Raises:
        pydantic.ValidationError: on making one that is no config.

    """

    model_config = ConfigDict(hide_input_in_errors=True, extra="allow", serialize_by_alias=True)

    mcpServers: dict[str, ServerConfig]  # noqa: N815  # the key in the file, and in the original library


def is_strict(given: bool | None) -> bool:
    """Whether connecting fails if one server cannot be reached: as the program says, else as the environment does."""
    if given is not None:
        return given
    return os.environ.get(STRICT_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def load(path: str, given: bytes | None, *, is_strict: bool) -> Config:
    """The config that the program gave, else the file's.

    A broken entry parks its own server, as it does for a daemon, unless the client must not do without one
    (`is_strict`) or no entry is left that could serve.

    Raises FileNotFoundError, json.JSONDecodeError, pydantic.ValidationError: as version 1 does.
    """
    if given is not None:
        text, directory = given, os.getcwd()
    else:
        with open(path, "rb") as file:
            text, directory = file.read(), os.path.dirname(path)
    # Read twice, since `parse` would not raise JSONDecodeError.
    data = json.loads(plain(text.decode("utf-8-sig", "replace")))
    try:
        config = parse(text, config_file.lookup_in(directory))
    except ConfigError as unusable:
        raise _refused(data, unusable.problems) from None
    if config.broken and (is_strict or not config.servers):
        raise _refused(data, [problem for problems in config.broken.values() for problem in problems])
    return config


def as_json(config: Mapping[str, Any], *, is_strict: bool) -> bytes:
    """A config that a program made, as the text of a file. Raises pydantic.ValidationError as `load` does."""
    try:
        text: bytes = to_json(config, by_alias=True)
    except PydanticSerializationError:
        # Mostly something that the model refuses too, with a better message.
        MCPServersConfig.model_validate(config)
        raise
    load("", text, is_strict=is_strict)
    return text


def _refused(data: Any, problems: Sequence[Problem]) -> ValidationError:
    """What version 1 raises for such a config; if it would raise nothing, an error of the same class."""
    try:
        # Where hosts have other keys that hold the servers, version 1 had nothing to say.
        if isinstance(data, dict) and data.keys().isdisjoint(("context_servers", "mcp")):
            MCPServersConfig.model_validate(_with_servers(data))
    except ValidationError as wrong:
        return wrong
    return ValidationError.from_exception_data(
        MCPServersConfig.__name__,
        [
            {
                "type": PydanticCustomError("config", "{problem}", {"problem": problem.message}),
                "loc": tuple(problem.field.split(".")) if problem.field else (),
                "input": None,
            }
            for problem in problems
        ],
        hide_input=True,  # it may hold secrets
    )


def _with_servers(data: Any) -> Any:
    """The content of a config, with its servers where the model looks for them: some hosts call them `servers`."""
    if isinstance(data, dict) and "mcpServers" not in data and "servers" in data:
        return data | {"mcpServers": data["servers"]}
    return data
