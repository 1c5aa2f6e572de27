"""The command line: argv in, text or JSON out.

It starts in about the time that Python and click take: what it needs beyond the standard library is imported by the
command that needs it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

import click

from .commands import cli
from .failures import INTERRUPTED, OPERATION_FAILED, CommandFailed


def main() -> NoReturn:
    """Run the command that argv names, and exit with a code that docs/cli.md explains."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Half a surrogate pair is valid in JSON, and no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    code = _run()
    _drop_unwritable()
    sys.exit(code)


def _run() -> int:
    try:
        # Not standalone: click would write errors in its own way, and exit with codes of its own.
        code = cli.main(prog_name="mcp-multi-server", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as refusal:
        with suppress(OSError):
            refusal.show()
        return refusal.exit_code
    except CommandFailed as failure:
        return _explain(failure)
    except BrokenPipeError:
        return OPERATION_FAILED  # the reader of stdout left, as `head` does
    except OSError as failure:
        if failure.filename is not None:
            raise  # not the output, which has no name: a bug, and its stack says where
        return _explain(CommandFailed(f"cannot write the output: {failure.strerror}"))
    return code if isinstance(code, int) else 0


def _explain(failure: CommandFailed) -> int:
    from .explain import explanation
    from .render import complain

    for line in explanation(failure):
        complain(line)
    return failure.exit_code


def _open_closed_streams() -> None:
    """Open /dev/null in place of standard descriptors that are closed: else the next socket would get our output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode))


def _drop_unwritable() -> None:
    """Drop output that could not be written: the interpreter would try it again as it ends, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
