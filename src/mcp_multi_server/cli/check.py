"""`check`: what a daemon would find wrong with a config, found without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.errors import ConfigError, Problem
from ..daemon import config_file
from .failures import OPERATION_FAILED
from .render import echo, echo_json, echo_styled

_NOT_HERE = "a credential, which systemd gives to the daemon alone: `plan` asks the daemon"


def check(file: str | None, *, as_json: bool) -> int:
    """Check `file`, or the config that a daemon would find; returns the exit code, which says whether all is well."""
    try:
        path = config_file.find(file)
        config = config_file.load(path)
    except ConfigError as refusal:
        return _report(None, refusal.problems, (), servers=0, as_json=as_json)
    found = [problem for entry in config.broken.values() for problem in entry]
    problems = [problem for problem in found if not _is_only_missing_here(problem)]
    notes = [replace(problem, message=_NOT_HERE) for problem in found if _is_only_missing_here(problem)]
    return _report(path, problems, (*config.notes, *notes), servers=len(config.order), as_json=as_json)


def _is_only_missing_here(problem: Problem) -> bool:
    """Whether it is a credential, which systemd gives to the service and not to a shell: no fault of the config."""
    return problem.message.endswith(config_file.NO_CREDENTIALS)


def _report(
    path: str | None, problems: Sequence[Problem], notes: Sequence[Problem], *, servers: int, as_json: bool
) -> int:
    if as_json:
        found = {"problems": [*map(_record, problems)], "notes": [*map(_record, notes)]}
        echo_json({"ok": not problems, "path": path, "servers": servers, **found})
    else:
        for problem in problems:
            echo_styled(f"problem: {problem}", "red")
        for note in notes:
            echo_styled(f"note: {note}", "yellow")
        if not problems:
            echo(f"ok: {servers} server{'' if servers == 1 else 's'} in {path}")
    return OPERATION_FAILED if problems else 0


def _record(problem: Problem) -> dict[str, str | None]:
    return {"server": problem.server, "field": problem.field, "message": problem.message}
