"""Output: lines, JSON, and phrases for times and sizes.

Whatever is shown may hold text of servers, clients and files, so what writes makes it harmless, not who calls it.
"""

from __future__ import annotations

import json
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from ..core.printable import json_text, lines, one_line

if TYPE_CHECKING:
    from rich.text import Text


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def echo(line: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(one_line(line) + "\n")


def complain(line: str) -> None:
    """Write one line to stderr, after all that stdout got. What cannot be written is lost."""
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.write(one_line(line) + "\n")


def remark(text: str) -> None:
    """Write a line of our own, between a server's lines on stdout, to stderr."""
    complain(f"-- {text}")


def echo_said(said: str, stream: TextIO | None = None) -> None:
    """Write what a server said, to stdout or `stream`: into a pipe or file exactly, to a terminal harmlessly."""
    stream = stream or sys.stdout
    if not stream.isatty():
        stream.write(said)
        return
    shown = lines(said)
    stream.write(shown if not shown or shown.endswith("\n") else shown + "\n")


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON value to stdout; with `indent=None` on one line, and at once."""
    # With another encoding a character may have no bytes there; JSON can escape it.
    spells_all = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    written = json.dumps(value, indent=indent, ensure_ascii=not spells_all)
    sys.stdout.write((json_text(written) if sys.stdout.isatty() else written) + "\n")
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

    return Console(highlight=False).print(styled(text, style), soft_wrap=True)


def styled(text: str, style: str) -> Text:
    """A line for rich to draw."""
    from rich.text import Text

    return Text(one_line(text), style)


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
