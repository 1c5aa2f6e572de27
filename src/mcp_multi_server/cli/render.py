"""Output: lines, JSON, and phrases for times and sizes. Text of servers and clients is made harmless (`clean`)."""

from __future__ import annotations

import json
import re
import select
import sys
from contextlib import suppress
from typing import Any

_CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def clean(text: str) -> str:
    """The text without what a terminal would obey: control sequences are removed, single characters shown as hex."""
    return _CONTROL_SEQUENCE.sub("", text).translate(_CONTROL)


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line.strip() for line in clean(text).splitlines() if line.strip()), "")


def echo(text: str) -> None:
    """Write one line, or several, to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def complain(text: str) -> None:
    """Write one line, or several, to stderr, after all that stdout got. What cannot be written is lost."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.write(text if text.endswith("\n") else text + "\n")


def remark(text: str) -> None:
    """Write a line of our own, between a server's lines on stdout, to stderr."""
    complain(f"-- {text}")


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON value to stdout; with `indent=None` on one line, and at once."""
    # With another encoding a character may have no bytes there; JSON can escape it.
    spells_all = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    echo(json.dumps(value, indent=indent, ensure_ascii=not spells_all))
    if indent is None:
        sys.stdout.flush()


def check_reader() -> None:
    """Raises BrokenPipeError if the reader of stdout has left: a stream that writes nothing would not notice it."""
    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0)):
        raise BrokenPipeError


def echo_styled(text: str, style: str) -> None:
    """Write a line to stdout, in colour on a terminal."""
    if not sys.stdout.isatty():
        return echo(text)
    from rich.console import Console
    from rich.text import Text

    return Console(highlight=False).print(Text(text, style), soft_wrap=True)


def duration(seconds: float) -> str:
    """How long something lasts, in the two largest units."""
    whole = max(0, round(seconds))
    for large, unit, small, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:  # the largest unit first, so that the first that fits counts
            rest = whole % large // small
            return f"{whole // large} {unit} {rest} {lesser}" if rest else f"{whole // large} {unit}"
    return f"{whole} s"


def until(seconds: float) -> str:
    """When something is due."""
    return f"in {duration(seconds)}" if seconds >= 0.5 else "now"


def size(count: int) -> str:
    """A number of bytes for a person."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"
