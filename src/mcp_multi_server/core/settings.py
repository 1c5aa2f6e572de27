"""Every key that a person can write into the config, with its default and what it is for.

The descriptions end up in the JSON Schema that editors show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

MAX_SECONDS = 1_000_000.0
MAX_BYTES = 1 << 30
KIB, MIB = 1 << 10, 1 << 20

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_QUALIFIER = re.compile(r"[A-Za-z0-9_-]+")
_SEPARATOR = re.compile(r"[A-Za-z0-9_./-]{1,16}")
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>[0-9]{1,5})")


def _clean(text: str) -> str:
    """What a program can be given. JSON can write half of a surrogate pair, which is no text."""
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half a character (an unpaired surrogate, or bytes that are not UTF-8)")
    return text


def _variable_name(name: str) -> str:
    if not name or "=" in name:
        raise ValueError("is no name for an environment variable")
    return _clean(name)


def _header_name(name: str) -> str:
    """RFC 9110 §5.1: a token."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("is no name for an HTTP header")
    return name


def _header_value(value: str) -> str:
    """RFC 9110 §5.5, without its obsolete octets: clients disagree on their encoding."""
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("holds characters that an HTTP header cannot (line breaks, spaces around it, non-ASCII)")
    return value


def _http_url(url: str) -> str:
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("holds a space or a control character")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with http:// or https://")
    if not usable:
        raise ValueError("names no host, or a port that is none")
    return url


def _qualifier(prefix: str) -> str:
    if not _QUALIFIER.fullmatch(prefix):
        raise ValueError("may hold only letters, digits, _ and -, at least one")
    return prefix


def _separator(text: str) -> str:
    if not _SEPARATOR.fullmatch(text):
        raise ValueError("may hold only letters, digits and _ - . /, 1 to 16 of them")
    return text


def _listen(address: str) -> str:
    found = _LISTEN.fullmatch(address)
    if address != "off" and (found is None or int(found["port"]) > 65535):
        raise ValueError('must be HOST:PORT, [IPV6]:PORT or "off"')
    return address


def _no_bool(value: object) -> object:
    """Python counts true as 1; a person who writes it means something else."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _transport_kind(value: object) -> object:
    """Hosts spell streamable HTTP as http, streamable-http, streamableHttp and streamable_http."""
    if isinstance(value, str) and re.sub("[-_]", "", value).lower() == "streamablehttp":
        return "http"
    return value


def _list_or_word(value: object) -> str:
    return "word" if isinstance(value, str) else "list"


Text: TypeAlias = Annotated[str, AfterValidator(_clean)]
FullText: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
Timeout: TypeAlias = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(_no_bool)]
Patience: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(_no_bool)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_no_bool)]
LineBytes: TypeAlias = Annotated[int, Field(ge=KIB, le=MAX_BYTES), BeforeValidator(_no_bool)]
Account: TypeAlias = FullText | Annotated[StrictInt, Field(ge=0)]
"""A user or group: its name or its number."""
Ability: TypeAlias = Literal["sampling", "elicitation", "roots"]
if TYPE_CHECKING:  # programs give lists, of which pydantic makes tuples: a type checker knows nothing of that
    Texts: TypeAlias = Sequence[Text]
    Abilities: TypeAlias = Sequence[Ability]
else:
    Texts = tuple[Text, ...]
    Abilities = tuple[Ability, ...]
InheritEnv: TypeAlias = Annotated[
    Annotated[Texts, Tag("list")] | Annotated[Literal["all"], Tag("word")], Discriminator(_list_or_word)
]


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
                {"required": ["disabled"], "properties": {"disabled": {"const": True}}},
            ]
        }
    )

    disabled: bool = Field(default=False, description="Leave this server out without deleting its entry.")
    command: FullText | None = Field(
        default=None,
        description="Program that speaks MCP on its standard input and output: a path, or a name to find on PATH.",
        examples=["uvx"],
    )
    args: Texts = Field(
        default=(), description="Arguments of the program, one a string; no shell reads them.", repr=False
    )
    env: Mapping[Annotated[str, AfterValidator(_variable_name)], Text] = Field(
        default_factory=dict,
        description="Environment variables for the program, besides the inherited ones.",
        examples=[{"GITHUB_TOKEN": "${file:~/.secrets/github}"}],
        repr=False,
    )
    cwd: FullText | None = Field(default=None, description="Directory in which the program runs.")
    inherit_env: InheritEnv = Field(
        default=(),
        description="Variables that the program gets from the daemon's environment besides PATH, HOME and the like: "
        'names, * as a wildcard, or "all".',
        examples=[["SSH_AUTH_SOCK", "AWS_*"], "all"],
    )
    url: Annotated[FullText, AfterValidator(_http_url)] | None = Field(
        default=None,
        description="Address of a server that runs elsewhere. Without `type`, streamable HTTP is tried, then SSE.",
        examples=["https://example.com/mcp"],
        validate_default=True,
        repr=False,
    )
    headers: Mapping[Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]] = (
        Field(
            default_factory=dict,
            description="HTTP headers of every request to `url`.",
            examples=[{"Authorization": "Bearer ${env:API_TOKEN}"}],
            repr=False,
        )
    )
    type: Annotated[Literal["stdio", "http", "sse"], BeforeValidator(_transport_kind)] | None = Field(
        default=None,
        description="How to talk to the server. Needed only to choose between http (streamable HTTP) and sse.",
        json_schema_extra={"enum": ["stdio", "http", "sse", "streamable-http"]},
    )
    protocol: Literal["auto", "legacy", "modern"] = Field(
        default="auto",
        description="Era of MCP: legacy (revisions up to 2025-11-25), modern (2026-07-28), or find out.",
    )
    timeout: Timeout = Field(
        default=60.0,
        description="Seconds that a call may take without a sign of life; progress renews them, "
        "up to ten times as many in all.",
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
    prefix: Annotated[str, AfterValidator(_qualifier)] | None = Field(
        default=None,
        description="Stands for the server in qualified names (prefix__tool). Default: its name, with _ for what is "
        "neither letter, digit, _ nor -.",
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
        """Fields are validated in order, and one that is wrong is missing from `data`: it was given all the same."""
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
    """Ours alone: no other host has reason to put a key here, so an editor may call an unknown one a mistake."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


class MetricsConfig(DaemonSettings):
    """Where Prometheus reads."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
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
        """With less, one allowed message would cut its reader off."""
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
    separator: Annotated[str, AfterValidator(_separator)] = Field(
        default="__", description="Between prefix and name in a qualified name."
    )
    collisions: Literal["first", "last"] = Field(
        default="first", description="Which server, in the order of this file, gets a bare name that several claim."
    )
    hold: Patience = Field(default=5.0, description="Seconds that a call waits for a server that is away.")
    grace: Patience = Field(default=60.0, description="Seconds that the names of a server that is away stay listed.")
    drain: Patience = Field(
        default=5.0,
        description="Seconds that running calls get when the daemon stops, or their server is replaced or removed.",
    )
    metrics: MetricsConfig = Field(default=MetricsConfig(), description="Metrics and health for Prometheus, over HTTP.")
    access: AccessConfig = Field(
        default=AccessConfig(), description="Who may connect, besides the daemon's own user and root."
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Caps on what one client or server can take.")
    log: LogConfig = Field(default=LogConfig(), description="What the daemon writes to its standard error.")
