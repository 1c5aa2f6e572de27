"""The log on stderr: one line a record, as JSON for machines or drawn by structlog for people.

Importing structlog costs 0.1 s and 7 MiB: only a log for people does, when it is configured.
"""

from __future__ import annotations

import logging
import os
import select
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Literal, TypeAlias

import msgspec

from ..core.printable import one_line
from .limit import Limit

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["auto", "json", "console"]
Fields: TypeAlias = dict[str, object]
Render: TypeAlias = Callable[[Fields], str]

LOG = logging.getLogger("mcp_multi_server")

LINE_CAP = 8 * 1024
"""Bytes a line; journald cuts longer ones at 48 KiB, in the middle of the JSON."""
TAIL_LINES = 10
"""Lines of a server's stderr that go with its failure, and of a stack that go with an internal error."""
FOREIGN_CAP = 200
"""Characters of another library's message: they sometimes quote what they choked on."""
FOREIGN_RATE = 20.0
STUCK_AFTER_MS = 50
"""How long one line may wait for a stderr that nobody reads, before lines are dropped."""

_QUOTES_PAYLOADS = ("mcp", "client")
"""Loggers (of the MCP SDK) whose messages may hold what a server sent; only their place in the code is told."""
_PRIORITIES = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}
"""syslog's numbers, as sd-daemon(3) wants them before a line."""
_BELOW = ("stderr", "trace")
"""Fields that a console shows as lines of their own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a log line says. `level` is a number of `logging`."""

    level: int
    event: str
    fields: Mapping[str, object]

    def __str__(self) -> str:
        """The line under somebody else's logging config, where this package is used as a library."""
        return " ".join([self.event, *(f"{name}={_clean(field, LINE_CAP)}" for name, field in self.fields.items())])


def configure(level: Level = "info", form: Format = "auto", *, fd: int = 2) -> None:
    """Send this package's log and other libraries' warnings to `fd`; calling it again changes level and form.

    `auto` is a console on a terminal, else JSON lines, with syslog priorities where the journal reads them.
    """
    # Logging's report of a handler that fails quotes the record's arguments, which may be payloads.
    logging.raiseExceptions = False
    root, handler = logging.getLogger(), LineHandler(fd, form)
    # Only our own handler goes: a program may have added others.
    for earlier in installed():
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(WARNING)
    LOG.setLevel(level.upper())


def installed() -> list[LineHandler]:
    """The handler that `configure` made, if it was called."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)]


class LineHandler(logging.Handler):
    """Writes whole lines to a descriptor. A full disk, a closed or a stuck stderr costs lines, never the daemon.

    `configure` makes it and puts it into Python's logging, in the place of the one before.
    """

    def __init__(self, fd: int, form: Format) -> None:
        super().__init__()
        _fill(fd)
        is_console = form == "console" or (form == "auto" and os.isatty(fd))
        self._fd = fd
        self._has_priorities = not is_console and _is_journal(fd)
        self._render = console(colours=_shows_colours(fd)) if is_console else json_line
        self._foreign = Limit(FOREIGN_RATE, time.monotonic())
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lost = 0
        self._is_cut = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one that cannot be written is counted."""
        try:
            if isinstance(record.msg, Entry) or self._admits_foreign():
                self._write(record.levelno, _fields(record))
        except Exception:  # whatever goes wrong with a line, its writer has other work to do
            self._lost += 1

    def _admits_foreign(self) -> bool:
        now = time.monotonic()
        if self._foreign.suppressed and (lines := self._foreign.reopen(now)):
            self._tell("log.suppressed", kind="library", lines=lines)
        return self._foreign.admits(now)

    def _tell(self, event: str, **fields: object) -> None:
        self._write(WARNING, {**_head(WARNING, event, time.time()), **fields})

    def _write(self, level: int, fields: Fields) -> None:
        prefix = f"<{_PRIORITIES.get(level, 3)}>" if self._has_priorities else ""
        line = f"{prefix}{fit(fields, self._render)}\n".encode()
        # What follows half a line begins on a line of its own.
        if not self._put(b"\n" + line if self._is_cut else line):
            self._lost += 1
        elif self._lost:
            lost, self._lost = self._lost, 0
            self._tell("log.lost", lines=lost)

    def _put(self, line: bytes) -> bool:
        """Write in pieces that a writable pipe takes without blocking; False where the line is lost."""
        rest = memoryview(line)
        # A stuck stderr costs the wait once: after a lost line nothing waits until one gets through.
        while rest and self._poll.poll(0 if self._lost else STUCK_AFTER_MS):
            try:
                rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]
            except OSError:
                break
        # A line that was lost whole leaves the half line before it as it was.
        self._is_cut = 0 < len(rest) < len(line) or (self._is_cut and len(rest) == len(line))
        return not rest


def json_line(fields: Fields) -> str:
    """One JSON object on one line."""
    return msgspec.json.encode(fields).decode()


def console(*, colours: bool) -> Render:
    """A renderer for people: event and fields on a line, stderr and stack indented below. Imports structlog."""
    from structlog.dev import ConsoleRenderer

    draw = ConsoleRenderer(colors=colours, sort_keys=False, pad_event_to=22, timestamp_key="time")

    def render(fields: Fields) -> str:
        line = draw(None, "", {name: field for name, field in fields.items() if name not in _BELOW})
        below = (fields.get(name) for name in _BELOW)
        return "\n    ".join([str(line), *(str(item) for items in below if isinstance(items, list) for item in items)])

    return render


def fit(fields: Fields, render: Render) -> str:
    """Render `fields`, made printable, within the cap; where they are too long each is cut, ever shorter."""
    # JSON escapes and non-ASCII letters lengthen a text, so only the rendered line can be measured.
    for length in (LINE_CAP, 1024, 256, 64):
        text = render({name: _clean(field, length) for name, field in fields.items()})
        # Room for the break after a cut line, the priority and the line's own end.
        if len(text.encode()) <= LINE_CAP - len("\n<7>\n"):
            return text
    return render({name: fields[name] for name in ("time", "level", "event")} | {"cut": True})


def _clean(field: object, length: int) -> object:
    match field:
        case str():
            text = one_line(field[:LINE_CAP])  # cut first: a field may be megabytes long
            return text if len(text) <= length else text[: length - 1] + "…"
        case list():
            # The last lines of a stderr or a stack are nearest to the cause.
            return [_clean(item, length) for item in field[-max(length // 16, TAIL_LINES) :]]
        case _:
            return field


def _fields(record: logging.LogRecord) -> Fields:
    """The members of a line in order: ours as described, another library's without what it may quote."""
    if isinstance(record.msg, Entry):
        return {**_head(record.levelno, record.msg.event, record.created), **record.msg.fields}
    fields = _head(record.levelno, "library", record.created)
    fields |= {"logger": record.name, "at": f"{record.module}:{record.lineno}"}
    if record.name.partition(".")[0] not in _QUOTES_PAYLOADS:
        fields["message"] = record.getMessage().partition("\n")[0][:FOREIGN_CAP]
    if record.exc_info and record.exc_info[0]:
        fields["error"] = record.exc_info[0].__name__
        frames = traceback.extract_tb(record.exc_info[2])[-TAIL_LINES:]
        fields["trace"] = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return fields


def _head(level: int, event: str, created: float) -> Fields:
    stamp = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return {"time": stamp.replace("+00:00", "Z"), "level": logging.getLevelName(level).lower(), "event": event}


def _fill(fd: int) -> None:
    """Open a closed descriptor on nothing: else the next socket would get its number, and the log would go there."""
    try:
        os.fstat(fd)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        if nothing != fd:
            os.dup2(nothing, fd)
            os.close(nothing)


def _shows_colours(fd: int) -> bool:
    return os.isatty(fd) and not os.environ.get("NO_COLOR")


def _is_journal(fd: int) -> bool:
    """Whether the journal reads `fd` (systemd.exec(5), JOURNAL_STREAM)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
