"""The text of a config as JSON objects, with the place of each value in it for what is to be said of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigError, Problem
from ..printable import json_text
from .jsonc import plain

TWICE = "given twice"

_BOM = b"\xef\xbb\xbf"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$-]+")
_COMMENT_KEY = re.compile(r"(?:_|//|#).*|comment", re.DOTALL | re.IGNORECASE)
_TOML = re.compile(r"(?:\s|#.*\n)*(?:\[{1,2}[\w.\-\"' ]+\]{1,2}[ \t]*(?:#.*)?$|[\w.-]+[ \t]*=)", re.MULTILINE)
_YAML = re.compile(r"(?:\s|#.*\n)*(?:---|[\w.-]+:(?:\s|$))")


class JsonObject(dict[str, object]):
    """A JSON object that knows which of its keys were given more than once."""

    twice: tuple[str, ...] = ()

    def holding(self, members: Mapping[str, object]) -> JsonObject:
        """An object with these members in place of its own; of the keys it still knows which were given twice."""
        made = JsonObject(members)
        made.twice = self.twice
        return made


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the config file, as a JSON path; `server` names the entry that the place is in."""

    path: str
    server: str | None = None

    def at(self, key: str | int) -> Place:
        """The place of a member or item: `.name`, `["na me"]` or `[1]`."""
        if isinstance(key, int):
            return Place(f"{self.path}[{key}]", self.server)
        if _PLAIN_KEY.fullmatch(key):
            return Place(f"{self.path}.{key}" if self.path else key, self.server)
        return Place(f"{self.path}[{quoted(key)}]", self.server)

    def problem(self, message: str) -> Problem:
        """A problem at this place."""
        return Problem(self.path, message, self.server)


def quoted(text: str) -> str:
    """`text` as JSON, any script as it is: only what a terminal would obey, or would not show, is escaped."""
    return json_text(json.dumps(text, ensure_ascii=False))


def is_comment(key: str, value: object) -> bool:
    """Whether a member is a remark of a person's: JSON has no comments, so some write `"_comment": "…"`."""
    return bool(_COMMENT_KEY.fullmatch(key)) and not isinstance(value, JsonObject)


def decode(data: bytes) -> JsonObject:
    """The JSON object in a config file, which may have comments and trailing commas.

    Raises ConfigError with the line and column of what is wrong.
    """
    try:
        # Some editors put a byte order mark in front.
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as failure:
        line = data.removeprefix(_BOM).count(b"\n", 0, failure.start) + 1
        raise _refused(f"line {line}: not UTF-8 text") from None
    written = plain(text)
    if not written.strip():
        raise _refused("the file is empty")
    try:
        # Not msgspec: the hook sees keys that are given twice, and errors have a position.
        found = json.loads(written, object_pairs_hook=_object)
    except json.JSONDecodeError as failure:
        raise _refused(_why_no_json(written, failure)) from None
    except ValueError:  # Python refuses whole numbers of more than 4,300 digits
        raise _refused("holds a number of too many digits") from None
    if not isinstance(found, JsonObject):
        raise _refused("must be a JSON object")
    return found


def repeated(found: JsonObject, place: Place) -> Iterator[Problem]:
    """A problem for each key that an object has more than once: by itself, JSON would silently take the last one."""
    for key in found.twice:
        yield place.at(key).problem(TWICE)


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    made = JsonObject(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        # A remark may be there as often as its author likes.
        made.twice = tuple(key for key, count in counts.items() if count > 1 and not is_comment(key, made[key]))
    return made


def _why_no_json(text: str, failure: json.JSONDecodeError) -> str:
    for pattern, language in ((_TOML, "TOML"), (_YAML, "YAML")):
        if pattern.match(text):
            return f"this is {language}, not JSON: write the servers as JSON, in an object mcpServers"
    position = failure.pos
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    if text.startswith("/*", position):
        return f"line {line}, column {column}: a comment without its end"
    # Python 3.13 points at a comma that no value follows, 3.11 behind it.
    return f"line {line}, column {column}: not JSON: {failure.msg[:1].lower()}{failure.msg[1:].removesuffix(' at')}"


def _refused(message: str) -> ConfigError:
    return ConfigError((Problem("", message),))
