"""What a single value in the config may be: text, names, addresses, numbers; each with what is said if it is not.

The messages hold no values: values can be secrets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StrictInt, Tag

MAX_SECONDS = 1_000_000.0
MAX_BYTES = 1 << 30
KIB, MIB = 1 << 10, 1 << 20
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+")
_SEPARATOR = re.compile(r"[A-Za-z0-9_./-]{1,16}")
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(?P<port>[0-9]{1,5})")


def _clean(text: str) -> str:
    """Refuse what no program can be given. JSON can hold half of a surrogate pair, which is no character."""
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
    """RFC 9110 §5.5, without the obsolete octets above ASCII: programs disagree on their encoding.

    Space around it is no part of a value; other hosts strip it too, with the line break that a pasted token ends with.
    """
    stripped = value.strip(" \t\r\n")
    if not _HEADER_VALUE.fullmatch(stripped):
        raise ValueError("holds characters that an HTTP header cannot (line breaks, control characters, non-ASCII)")
    return stripped


def _http_url(url: str) -> str:
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("holds a space or a control character")
    try:
        parts = urlsplit(url)
        # `port` raises ValueError if it is no number or too large.
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with http:// or https://")
    if not usable:
        raise ValueError("names no host, or a port that is none")
    return url


def _prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("may hold only letters, digits, _ and -, at least one")
    return prefix


def _separator(text: str) -> str:
    if not _SEPARATOR.fullmatch(text):
        raise ValueError("may hold only letters, digits and _ - . /, 1 to 16 of them")
    return text


def _listen_address(address: str) -> str:
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
    """Hosts write these words in any case, streamable HTTP in several ways, and some say local for stdio."""
    if not isinstance(value, str):
        return value
    word = re.sub("[-_ ]", "", value).lower()
    return {"streamablehttp": "http", "local": "stdio"}.get(word, word if word in ("stdio", "http", "sse") else value)


def _list_or_word(value: object) -> str:
    return "word" if isinstance(value, str) else "list"


Text: TypeAlias = Annotated[str, AfterValidator(_clean)]
FullText: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
VariableName: TypeAlias = Annotated[str, AfterValidator(_variable_name)]
HeaderName: TypeAlias = Annotated[str, AfterValidator(_header_name)]
HeaderValue: TypeAlias = Annotated[str, AfterValidator(_header_value)]
HttpUrl: TypeAlias = Annotated[FullText, AfterValidator(_http_url)]
Prefix: TypeAlias = Annotated[str, AfterValidator(_prefix)]
Separator: TypeAlias = Annotated[str, AfterValidator(_separator)]
ListenAddress: TypeAlias = Annotated[str, AfterValidator(_listen_address)]
TransportKind: TypeAlias = Annotated[Literal["stdio", "http", "sse"], BeforeValidator(_transport_kind)]
Timeout: TypeAlias = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(_no_bool)]
Hang: TypeAlias = Annotated[Timeout | Literal["off"], Field(union_mode="left_to_right")]
"""Seconds of silence, or never."""
Patience: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(_no_bool)]
FirstList: TypeAlias = Annotated[float, Field(ge=0, le=25, allow_inf_nan=False), BeforeValidator(_no_bool)]
"""Seconds; at most 25, as this library's clients give up a list after 30 and some hosts soon after that."""
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_no_bool)]
LineBytes: TypeAlias = Annotated[int, Field(ge=KIB, le=MAX_BYTES), BeforeValidator(_no_bool)]
Account: TypeAlias = FullText | Annotated[StrictInt, Field(ge=0)]
"""A user or group: its name or its number."""
Ability: TypeAlias = Literal["sampling", "elicitation", "roots"]
if TYPE_CHECKING:  # programs may give either, and pydantic makes the one of the other; no type checker knows that
    Texts: TypeAlias = Sequence[Text]
    TextList: TypeAlias = Sequence[Text]
    Abilities: TypeAlias = Sequence[Ability]
else:
    Texts = tuple[Text, ...]
    TextList = list[Text]
    Abilities = tuple[Ability, ...]
InheritEnv: TypeAlias = Annotated[
    Annotated[Texts, Tag("list")] | Annotated[Literal["all"], Tag("word")], Discriminator(_list_or_word)
]
