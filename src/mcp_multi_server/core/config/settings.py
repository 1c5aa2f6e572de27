"""Every key that a person can write into the config, with its default and what it is for.

The descriptions end up in the JSON Schema that editors show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from .values import (
    MIB,
    Abilities,
    Account,
    Count,
    FirstList,
    FullText,
    Hang,
    HeaderName,
    HeaderValue,
    HttpUrl,
    InheritEnv,
    LineBytes,
    ListenAddress,
    Patience,
    Prefix,
    Separator,
    Text,
    TextList,
    Texts,
    Timeout,
    TransportKind,
    VariableName,
)


class Settings(BaseModel):
    """One object of the config: camelCase in the file, snake_case here."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )


class ServerConfig(Settings):
    """One MCP server: a program to run (`command`) or an address to connect to (`url`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["command"]},
                {"required": ["url"]},
                {"required": ["httpUrl"]},
                {"required": ["serverUrl"]},
                {"required": ["disabled"], "properties": {"disabled": {"const": True}}},
                {"required": ["enabled"], "properties": {"enabled": {"const": False}}},
                {"required": ["isActive"], "properties": {"isActive": {"const": False}}},
            ]
        }
    )

    disabled: bool = Field(default=False, description="Leave this server out without deleting its entry.")
    command: FullText | None = Field(
        default=None,
        description="Program that speaks MCP on its standard input and output: a path, or a name to find on PATH.",
        examples=["uvx"],
    )
    args: TextList = Field(  # a list, since programs of version 1 compare it with one
        default=[], description="Arguments of the program, one a string; no shell reads them.", repr=False
    )
    env: Mapping[VariableName, Text | None] = Field(
        default_factory=dict,
        description="Environment variables for the program, besides the inherited ones. Numbers, true and false are "
        "taken as text; null: the program does not get this variable.",
        examples=[{"GITHUB_TOKEN": "${file:~/.secrets/github}"}],
        repr=False,
        json_schema_extra={"additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    )
    cwd: FullText | None = Field(default=None, description="Directory in which the program runs.")
    inherit_env: InheritEnv = Field(
        default=(),
        description="Variables that the program gets from the daemon's environment besides PATH, HOME and the like: "
        'names, * as a wildcard, or "all". Default: `daemon.inheritEnv`.',
        examples=[["SSH_AUTH_SOCK", "AWS_*"], "all"],
    )
    url: HttpUrl | None = Field(
        default=None,
        description="Address of a server that runs elsewhere. Without `type`, streamable HTTP is tried, then SSE.",
        examples=["https://example.com/mcp"],
        # So that `_exactly_one_way` is also called if no url is given.
        validate_default=True,
        repr=False,
    )
    headers: Mapping[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="HTTP headers of every request to `url`.",
        examples=[{"Authorization": "Bearer ${env:API_TOKEN}"}],
        repr=False,
        json_schema_extra={"additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    )
    type: TransportKind | None = Field(
        default=None,
        description="How to talk to the server. Needed only to choose between http (streamable HTTP) and sse.",
        json_schema_extra={"enum": ["stdio", "http", "sse", "streamable-http", "streamableHttp", "local", "remote"]},
    )
    protocol: Literal["auto", "legacy", "modern"] = Field(
        default="auto",
        description="Era of MCP: legacy (revisions up to 2025-11-25), modern (2026-07-28), or find out.",
    )
    timeout: Timeout = Field(
        default=60.0,
        description="Seconds that a call may take without a sign of life; progress renews them, "
        "up to ten times as many in all. Default: `daemon.timeout`.",
    )
    hang: Hang = Field(
        default=120.0,
        description="Seconds that the server may be silent after the time of a call is up, before it is replaced; "
        '"off": it is never replaced for that. Default: `daemon.hang`.',
        examples=[600, "off"],
    )
    start_timeout: Timeout = Field(
        default=30.0, description="Seconds from starting or connecting until the server is ready."
    )
    stop_timeout: Timeout = Field(default=5.0, description="Seconds between asking the program to end and forcing it.")
    refresh_interval: Timeout = Field(
        default=300.0, description="Seconds after which the server's lists are read again, where it does not say."
    )
    include: Texts | None = Field(
        default=None,
        description="Glob patterns: of the names that the server offers, only matching ones are passed on.",
        examples=[["git_*"]],
    )
    exclude: Texts = Field(
        default=(),
        description="Glob patterns of names that are not passed on; stronger than `include`.",
        examples=[["*_delete"]],
    )
    prefix: Prefix | None = Field(
        default=None,
        description="Stands for the server in qualified names (prefix__tool). Default: its name, made of letters, "
        "digits, _ and -.",
    )
    may_ask: Abilities | None = Field(
        default=None,
        description="What a server of the legacy era may ask of the clients whose calls it serves, if they can: "
        "sampling, elicitation, roots. Default: the first two; roots make some servers forget the directories in "
        "their args.",
        examples=[["sampling", "elicitation", "roots"], []],
    )
    replace: Literal["overlap", "stop-first"] = Field(
        default="overlap",
        description="When the entry changes: start the new one before stopping the old one, or stop the old one first "
        "(for a server that holds a lock or a port).",
    )
    hold: Patience | None = Field(
        default=None, description="Seconds that a call waits for this server while it is away. Default: `daemon.hold`."
    )
    grace: Patience | None = Field(
        default=None,
        description="Seconds that the names of this server stay listed while it is away. Default: `daemon.grace`.",
    )

    @field_validator("url")
    @classmethod
    def _exactly_one_way(cls, url: str | None, info: ValidationInfo) -> str | None:
        """A server has either a command or a url.

        Fields are validated in order. One that is wrong is not in `data`, but it was given, so it counts.
        """
        command = info.data.get("command", "")
        if command is None and url is None and not info.data.get("disabled"):
            raise ValueError("needs a command or a url")
        if command is not None and url is not None:
            raise ValueError("is given besides command: a server has one of them")
        return url

    @field_validator("type")
    @classmethod
    def _fits_the_way(cls, kind: str | None, info: ValidationInfo) -> str | None:
        if kind == "stdio" and info.data.get("url") is not None:
            raise ValueError("is stdio, which needs a command, not a url")
        if kind in ("http", "sse") and info.data.get("command") is not None:
            raise ValueError(f"is {kind}, which needs a url, not a command")
        return kind


class DaemonSettings(Settings):
    """An object that is ours alone. No other host has keys in it, so the schema calls an unknown one a mistake."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


class MetricsConfig(DaemonSettings):
    """Where Prometheus reads."""

    listen: ListenAddress = Field(
        default="127.0.0.1:9464",
        description='HOST:PORT of /metrics, /healthz and /readyz, or "off".',
        examples=["127.0.0.1:9464", "[::1]:9464", "off"],
    )
    allowed_hosts: tuple[FullText, ...] = Field(
        default=(),
        description="Further values of the Host header that are answered, besides the address and localhost.",
    )


class AccessConfig(DaemonSettings):
    """Who may connect, besides the daemon's own user and root."""

    users: tuple[Account, ...] = Field(
        default=(), description="Users who may call: names or uids.", examples=[["alice", 1001]]
    )
    groups: tuple[Account, ...] = Field(default=(), description="Groups whose members may call: names or gids.")
    admins: tuple[Account, ...] = Field(
        default=(), description="Users who may also reload, restart and read logs: names or uids."
    )
    allow_descendants: bool = Field(
        default=False,
        description="Let the servers that the daemon runs connect to it, as its own user they could call all others.",
    )


CLIENT_LINE = "daemon.limits.clientLine"
SERVER_LINE = "daemon.limits.serverLine"
"""The keys of the two limits that a single message can exceed, for the errors that name them."""


class LimitsConfig(DaemonSettings):
    """Caps that keep one client or server from hurting the others."""

    clients: Count = Field(default=512, description="Clients connected at a time.")
    in_flight: Count = Field(default=256, description="Unanswered requests of one client.")
    client_line: LineBytes = Field(default=4 * MIB, description="Bytes of one message from a client.")
    server_line: LineBytes = Field(default=16 * MIB, description="Bytes of one message from a server.")
    outgoing: LineBytes = Field(
        default=64 * MIB,
        description="Bytes that wait for one client or server that does not read, before it is cut off; at least as "
        "many as clientLine and serverLine.",
    )
    partial_line: Timeout = Field(
        default=10.0, description="Seconds that a client may take to finish a message it began."
    )

    @field_validator("outgoing")
    @classmethod
    def _holds_a_line(cls, outgoing: int, info: ValidationInfo) -> int:
        """One message of the allowed length must not be enough to cut its reader off."""
        if outgoing < max(info.data.get("client_line", 0), info.data.get("server_line", 0)):
            raise ValueError("must be at least clientLine and serverLine")
        return outgoing


class LogConfig(DaemonSettings):
    """What the daemon writes to its standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important kind shown."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="json for machines, console for people; auto: console on a terminal."
    )


class DaemonConfig(DaemonSettings):
    """Settings of the daemon itself."""

    naming: Literal["bare", "qualified"] = Field(
        default="bare",
        description="bare: names are listed as the servers give them, later claimants of one as prefix__name. "
        "qualified: all as prefix__name.",
    )
    separator: Separator = Field(default="__", description="Between prefix and name in a qualified name.")
    collisions: Literal["first", "last"] = Field(
        default="first", description="Which server, in the order of this file, gets a bare name that several claim."
    )
    timeout: Timeout = Field(default=60.0, description="`timeout` of the servers whose entries have none.")
    hang: Hang = Field(
        default=120.0, description="`hang` of the servers whose entries have none.", examples=[600, "off"]
    )
    first_list: FirstList = Field(
        default=5.0,
        description="Seconds that a list, and a call of a name that nobody offers, waits for servers that are started "
        "for the first time, counted from their start; at most 25. 0: they do not wait.",
    )
    hold: Patience = Field(default=5.0, description="Seconds that a call waits for a server that is away.")
    grace: Patience = Field(default=60.0, description="Seconds that the names of a server that is away stay listed.")
    drain: Patience = Field(
        default=5.0,
        description="Seconds that running calls get when the daemon stops, or their server is replaced or removed.",
    )
    inherit_env: InheritEnv = Field(
        default=(),
        description="`inheritEnv` of the entries that have none.",
        examples=[["SSH_AUTH_SOCK", "AWS_*"], "all"],
    )
    inputs: Mapping[str, Text] = Field(
        default_factory=dict,
        description="Values of the variables ${input:ID} by their ID, for files that VS Code asks a person about.",
        examples=[{"github-token": "${file:~/.secrets/github}"}],
        repr=False,
    )
    metrics: MetricsConfig = Field(default=MetricsConfig(), description="Metrics and health for Prometheus, over HTTP.")
    access: AccessConfig = Field(
        default=AccessConfig(), description="Who may connect, besides the daemon's own user and root."
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Caps on what one client or server can take.")
    log: LogConfig = Field(default=LogConfig(), description="What the daemon writes to its standard error.")
