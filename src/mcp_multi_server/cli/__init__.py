"""The command line: argv in, text or JSON out.

It starts in about the time that Python and click take: what it needs beyond the standard library is imported by the
command that needs it.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from .commands import cli
from .failures import INTERRUPTED, OPERATION_FAILED, Failed


def main() -> NoReturn:
    """Run the command that argv names, and exit as sysexits(3) and the README say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Half a surrogate pair is valid in JSON, and no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    try:
        code = cli.main(prog_name="mcp-multi-server", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as refusal:
        refusal.show()
        return refusal.exit_code
    except Failed as failure:
        return _explain(failure)
    except BrokenPipeError:
        # The reader of stdout left, as `head` does; the interpreter must not try to flush into it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OPERATION_FAILED
    return code if isinstance(code, int) else 0


def _explain(failure: Failed) -> int:
    from .explain import explanation
    from .render import complain

    complain(explanation(failure))
    return failure.exit_code
