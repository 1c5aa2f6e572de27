"""A terminal for the command line to draw on: a pty, and a screen that reads what is drawn as a terminal would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .wire import COMMAND, DEADLINE, environment

_PIECE = re.compile(
    r"\x1b\[(?P<words>[0-9;?]*)(?P<final>[A-Za-z])|(?P<cut>\x1b(?:\[[0-9;?]*)?(?=\x1b))"
    r"|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)"
)
"""`cut`: the beginning of a sequence that another one cuts off, as Ctrl-C in the midst of drawing does (ECMA-48)."""


class Screen:
    """Rows of characters, and whether the alternate screen and the cursor are shown. Knows what we draw with, only."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.is_alternate = False
        self.has_cursor = True
        self._rows = rows
        self._main: list[str] = []
        self._lines = [""] * rows
        self._row = self._column = 0

    def feed(self, drawn: str) -> str:
        """Draw; what is left is the beginning of a sequence."""
        at = 0
        while found := _PIECE.match(drawn, at):
            at = found.end()
            if found["text"]:
                self._write(found["text"])
            elif found["control"]:
                self._column, self._row = 0, self._row + (found["control"] == "\n")
            elif not found["cut"]:
                self._obey(found["final"], found["words"])
        assert len(drawn) - at < 20, f"not understood: {drawn[at:][:40]!r}"
        return drawn[at:]

    @property
    def text(self) -> str:
        """What is seen."""
        return "\n".join(self._lines).rstrip("\n")

    @property
    def printed(self) -> str:
        """What was written to the main screen."""
        return "\n".join(self._main)

    def _write(self, text: str) -> None:
        if not self.is_alternate:
            self._main = [*self._main, text] if self._column == 0 or not self._main else self._glued(text)
            self._column += len(text)
            return
        assert self._row < self._rows, f"drawn below the screen: {text!r}"
        line = self._lines[self._row].ljust(self._column)
        self._lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)
        assert self._column <= self.columns, f"drawn beyond the edge: {text!r}"

    def _glued(self, text: str) -> list[str]:
        return [*self._main[:-1], self._main[-1] + text]

    def _obey(self, final: str, words: str) -> None:
        match final, words:
            case "H", "":
                self._row = self._column = 0
            case "K", "":
                self._lines[self._row] = self._lines[self._row][: self._column]
            case "J", "":
                self._lines[self._row] = self._lines[self._row][: self._column]
                self._lines[self._row + 1 :] = [""] * (self._rows - self._row - 1)
            case (("h" | "l"), "?1049"):
                self.is_alternate = final == "h"
                self._lines, self._row, self._column = [""] * self._rows, 0, 0
            case (("h" | "l"), "?25"):
                self.has_cursor = final == "h"
            case "m", _:
                pass
            case _:
                raise AssertionError(f"an unknown sequence: {final!r} {words!r}")


class Terminal:
    """The command line, running on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int, rows: int) -> None:
        self.process = process
        self.screen = Screen(columns, rows)
        self.drawn = ""
        self._master = master
        self._rest = ""

    def until(self, seen: Callable[[Screen], bool]) -> Screen:
        """Read what is drawn until the screen is as wanted."""
        deadline = time.monotonic() + DEADLINE
        while not seen(self.screen):
            assert self._read(deadline - time.monotonic()), (
                f"never came; drawn:\n{self.screen.text}\n{self.drawn[-500:]!r}"
            )
        return self.screen

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(DEADLINE)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as its user does with a mouse."""
        self.screen = Screen(columns, rows)
        self.screen.is_alternate = True
        set_size(self._master, columns, rows)

    def _read(self, within: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, within))[0]:
            return False
        try:
            data = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # its last user has left the terminal
            return False
        self.drawn += data
        self._rest = self.screen.feed(self._rest + data)
        return bool(data)


def set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def on_terminal(*words: str, columns: int = 200, rows: int = 40, **variables: str) -> Iterator[Terminal]:
    """Run the command line on a terminal; its end is the caller's or, at last, a kill."""
    master, slave = pty.openpty()
    set_size(slave, columns, rows)
    env = environment(**{"TERM": "xterm-256color", **variables})
    process = subprocess.Popen([*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    try:
        yield Terminal(process, master, columns, rows)
    finally:
        process.kill()
        process.wait(DEADLINE)
        os.close(master)
