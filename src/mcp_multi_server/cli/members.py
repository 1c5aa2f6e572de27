"""Reading JSON, and members of its objects, each with the type that is asked for, or as if it were not there.

Only `objects` is strict, for what the daemon itself must send: it raises `Garbled`. What servers put into a message
may be anything, and must not keep the rest from being shown.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeAlias

from .failures import Garbled

JsonObject: TypeAlias = dict[str, Any]


def loads(text: str | bytes, **options: Any) -> Any:
    """As `json.loads`; text that is nested deeper than Python can follow is a ValueError too."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def objects(container: JsonObject, key: str) -> list[JsonObject]:
    """The objects of a list that must be there. Raises Garbled."""
    found = container.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Garbled(f"{key!r} is no list of objects")
    return found


def optional_objects(container: JsonObject, key: str) -> list[JsonObject]:
    """The objects of a list, where there is one."""
    found = container.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def member(container: JsonObject, key: str) -> JsonObject:
    """An object, empty where there is none."""
    found = container.get(key)
    return found if isinstance(found, dict) else {}


def strings(container: JsonObject, key: str) -> list[str]:
    """The strings of a list; what is none is left out."""
    found = container.get(key)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def text(container: JsonObject, key: str) -> str:
    """A string; a number as one; "" where there is neither."""
    found = container.get(key)
    if isinstance(found, str):
        return found
    return str(found) if isinstance(found, int | float) and not isinstance(found, bool) else ""


def number(container: JsonObject, key: str) -> float | None:
    """A number; a boolean, which Python counts among them, is none."""
    found = container.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def moment(container: JsonObject, key: str) -> float | None:
    """A point in time as seconds since 1970; on the wire such a number, or ISO 8601."""
    if (seconds := number(container, key)) is not None:
        return seconds
    try:
        return datetime.fromisoformat(text(container, key)).timestamp()
    except (ValueError, OverflowError):
        return None
