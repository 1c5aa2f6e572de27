"""The entry of a server as other hosts write it, put into our keys.

Each key has one meaning, so it is taken; what has none here is ignored and told. Variables are still in place: values
are looked at only where a host's own way of writing one has to be undone.
"""

from __future__ import annotations

import re
from math import isfinite

from ..text import TWICE, JsonObject, Place, repeated
from .keys import (
    APPROVALS_UNUSED,
    CREDENTIALS_UNUSED,
    GEMINI,
    IN_SECONDS,
    LONGEST_IN_SECONDS,
    OWN,
    holds_credentials,
    is_approval,
)
from .translation import Translation

_ADDRESSES = ("httpUrl", "serverUrl", "baseUrl")
_EMPTY_IS_ABSENT = frozenset({"type", "cwd", "envFile", "transport", "transportType", *_ADDRESSES})
_SWITCHES = ("enabled", "isActive")
_TOOL_LISTS = (
    ("includeTools", "include"),
    ("enabledTools", "include"),
    ("tools", "include"),
    ("excludeTools", "exclude"),
    ("disabledTools", "exclude"),
)
_BRACES = re.compile(r"\{(env|file):([^{}]+)\}")
_GLOB = re.compile(r"([*?\[])")
_PATHS = ("command", "cwd", "args")
_HOME = re.compile(r"~(?=/|\Z)")


def translate(
    entry: JsonObject, place: Place, *, braces: bool = False, bare: bool = False, off: bool = False
) -> Translation:
    """The entry in our keys. `braces`, `bare` and `off` are what the file's layout says of it."""
    members = entry.holding({key: value for key, value in entry.items() if value is not None})
    bare = bare or not GEMINI.isdisjoint(entry)
    made = Translation(members, place, bare=bare, milliseconds=_counts_milliseconds(entry))
    _drop_empty(made)
    _translate_address(made)
    _translate_type(made)
    _translate_command(made)
    _choose_way(made)
    _translate_environment(made)
    _translate_switch(made, off=off)
    _translate_timeout(made)
    _translate_tools(made)
    _tell_repeated(made, entry)
    _tell_ignored(made)
    if braces:
        made.members = _with_dollars(made.members)
    for key in _PATHS:
        if key in made.members:
            made.members[key] = _from_home(made.members[key])
    return made


def _counts_milliseconds(entry: JsonObject) -> bool:
    if not OWN.isdisjoint(entry):
        return False
    seconds = entry.get("timeout")
    fits_seconds = isinstance(seconds, int | float) and seconds <= LONGEST_IN_SECONDS
    return not (fits_seconds and not IN_SECONDS.isdisjoint(entry))


def _drop_empty(made: Translation) -> None:
    """Forms leave "" where nothing was filled in. A command or url is dropped only beside the other."""
    members = made.members
    for key in [key for key, value in members.items() if value == "" and key in _EMPTY_IS_ABSENT]:
        del members[key]
    ways = [key for key in ("command", "url", *_ADDRESSES) if members.get(key, "") not in ("", [])]
    for key in ("command", "url"):
        if members.get(key) == "" and ways:
            del members[key]


def _translate_address(made: Translation) -> None:
    """Gemini CLI has `httpUrl` for streamable HTTP, which it prefers to `url`; Windsurf `serverUrl`."""
    given = [key for key in _ADDRESSES if key in made.members]
    if not given:
        return
    used, *others = given
    url = made.members.get("url")
    for key in others:
        made.note(key, f"ignored, since there is {used}")
    if url is not None and used != "httpUrl":
        if url != made.members[used]:
            made.note(used, "ignored, since there is url")
        made.members.pop(used, None)
        return
    if url is not None and url != made.members["httpUrl"]:
        made.note("url", "ignored, since there is httpUrl")
    if used == "httpUrl":
        made.members.setdefault("type", "http")
    made.move(used, "url")


def _translate_type(made: Translation) -> None:
    for key in ("transport", "transportType"):
        if isinstance(made.members.get(key), str) and "type" not in made.members:
            made.move(key, "type")
    kind = made.members.get("type")
    # opencode's remote servers: which transport is found out, as where there is no type.
    if isinstance(kind, str) and kind.lower() == "remote":
        del made.members["type"]


def _translate_command(made: Translation) -> None:
    """Take apart what opencode writes as one list of words, and Zed used to write as an object."""
    command = made.members.get("command")
    if isinstance(made.members.get("args"), str):
        said = "must be a list, one argument a string: no shell splits it"
        made.problems.append(made.place.at("args").problem(said))
    if isinstance(command, list):
        _split(made, command)
    elif isinstance(command, JsonObject):
        _unpack(made, command)


def _split(made: Translation, words: list[object]) -> None:
    if not words:
        made.problems.append(made.place.at("command").problem("is an empty list: it names no program"))
        return
    more = made.members.get("args", [])
    if not isinstance(more, list):
        made.members["command"] = words[0]
        return
    made.members["command"], made.members["args"] = words[0], [*words[1:], *more]
    made.renamed[".command"] = ".command[0]"
    made.renamed |= {f".args[{index - 1}]": f".command[{index}]" for index in range(1, len(words))}
    made.renamed |= {f".args[{index + len(words) - 1}]": f".args[{index}]" for index in range(len(more))}


def _unpack(made: Translation, command: JsonObject) -> None:
    known = {"path": "command", "args": "args", "env": "env", "timeout": "timeout"}
    del made.members["command"]
    for theirs, value in command.items():
        ours = known.get(theirs)
        if ours is None:
            made.notes.append(made.place.at("command").at(theirs).problem("unknown key, ignored"))
        elif ours not in made.members and value is not None:
            made.members[ours] = value
            made.renamed[f".{ours}"] = f".command.{theirs}"


def _choose_way(made: Translation) -> None:
    """Drop the command or the url of an entry that has both and says by its `type` which of them it means."""
    members = made.members
    if members.get("command") is None or members.get("url") is None or not isinstance(members.get("type"), str):
        return
    is_local = str(members["type"]).lower() in ("stdio", "local")
    made.note("url" if is_local else "command", "ignored, since the type says otherwise")
    if not is_local:
        members.pop("args", None)


def _translate_environment(made: Translation) -> None:
    if "environment" in made.members:
        if "env" in made.members:
            made.note("environment", "ignored, since there is env")
        else:
            made.move("environment", "env")
    made.env_file = made.members.pop("envFile", None)
    for key in ("env", "headers"):
        values = made.members.get(key)
        if isinstance(values, JsonObject):
            # A variable that is null is one that the program must not have; a header that is null is none.
            kept = {name: value for name, value in values.items() if value is not None or key == "env"}
            made.members[key] = values.holding({name: _as_text(value) for name, value in kept.items()})


def _as_text(value: object) -> object:
    """A number or switch as a shell or a form would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # What Python reads as NaN or Infinity is no JSON, and no text that a person meant.
        return (str(int(value)) if value.is_integer() else str(value)) if isfinite(value) else value
    return str(value) if isinstance(value, int) else value


def _translate_switch(made: Translation, *, off: bool) -> None:
    """`enabled` and `isActive` say the opposite of `disabled`. One that turns the server off is enough."""
    for key in _SWITCHES:
        if key not in made.members:
            continue
        value = made.members.pop(key)
        word = value.strip().lower() if isinstance(value, str) else value
        if word in (False, "false", "no", "off", "0"):
            made.members["disabled"] = True
        elif word not in (True, "true", "yes", "on", "1"):
            made.problems.append(made.place.at(key).problem("must be true or false"))
    if off and made.members.get("disabled") is not True:
        made.members["disabled"] = True
        made.notes.append(made.place.problem("is turned off by the lists of servers that this file allows"))


def _translate_timeout(made: Translation) -> None:
    """Take the two times, in milliseconds, of an entry of opencode's."""
    timeout = made.members.get("timeout")
    if not isinstance(timeout, JsonObject):
        return
    del made.members["timeout"]
    for theirs, ours in (("startup", "startTimeout"), ("request", "timeout")):
        value = timeout.get(theirs)
        if value is not None and ours not in made.members:
            made.members[ours] = value / 1000 if isinstance(value, float) or type(value) is int else value
            made.renamed[f".{ours}"] = f".timeout.{theirs}"
    made.milliseconds = False


def _translate_tools(made: Translation) -> None:
    """Lists of a server's tools that a host shows or hides."""
    for key, ours in _TOOL_LISTS:
        names = made.members.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            continue
        if ours in made.members:
            made.note(key, f"ignored, since there is {ours}")
        elif ours == "include" and "*" in names:
            del made.members[key]
        else:
            made.move(key, ours)
            made.members[ours] = [_GLOB.sub(r"[\1]", str(name)) for name in names]
            if ours == "include":
                said = "is taken for include, which leaves out the server's resources and prompts too"
                made.notes.append(made.place.at(key).problem(said))


def _tell_repeated(made: Translation, entry: JsonObject) -> None:
    """Say which keys were given twice of those that are in another place now, or in none."""
    moved = [key for key in entry.twice if key not in made.members and entry[key] is not None]
    made.problems += (made.place.at(key).problem(TWICE) for key in moved)
    for key in ("command", "timeout"):
        inner = entry.get(key)
        if isinstance(inner, JsonObject):
            made.problems += repeated(inner, made.place.at(key))


def _tell_ignored(made: Translation) -> None:
    members = made.members
    if members.get("source") == "custom":
        del members["source"]  # Zed says so of every server that no extension brings
    by_extension = members.get("source") == "extension" or "settings" in members
    if by_extension and members.get("disabled") is not True and members.keys().isdisjoint(("command", "url")):
        said = "is brought by an extension of Zed, which alone knows its command: write command and args"
        made.problems.append(made.place.problem(said))
        members.pop("source", None)
        members.pop("settings", None)
    for key, value in list(members.items()):
        if key in OWN:
            continue
        if holds_credentials(key, value):
            made.warnings.append(made.place.at(key).problem(CREDENTIALS_UNUSED))
            del members[key]
        elif is_approval(key):
            made.note(key, APPROVALS_UNUSED)


def _with_dollars(found: JsonObject) -> JsonObject:
    """`found` with opencode's `{env:NAME}` and `{file:PATH}` written as ours."""
    return found.holding({key: _dollar(value) for key, value in found.items()})


def _dollar(value: object) -> object:
    if isinstance(value, str):
        return _BRACES.sub(r"${\1:\2}", value)
    if isinstance(value, JsonObject):
        return _with_dollars(value)
    return [_dollar(item) for item in value] if isinstance(value, list) else value


def _from_home(value: object) -> object:
    """`value` with a variable in place of the `~` in front of a path: no shell is there to replace it."""
    if isinstance(value, str):
        return f"${{userHome}}{value[1:]}" if _HOME.match(value) else value
    return [_from_home(item) for item in value] if isinstance(value, list) else value
