"""`check`: what a daemon would find wrong with a config, found without a daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..core.errors import ConfigError, Problem
from ..daemon import config_file
from .failures import OPERATION_FAILED
from .render import echo, echo_json, echo_styled

_KINDS = {"problems": "red", "warnings": "yellow", "notes": "dim"}
"""What can be found, with its colour: an entry that is not used; a server that will probably not work; a remark."""
_NOT_HERE = "a credential, which systemd gives to the daemon alone: `plan` asks the daemon"


def check(file: str | None, *, as_json: bool) -> int:
    """Check `file`, or the config that a daemon would find; returns the exit code, which says whether all is well."""
    try:
        path = config_file.find(file)
        config = config_file.load(path)
    except ConfigError as refusal:
        return _report(None, {"problems": refusal.problems}, servers=0, as_json=as_json)
    found = [problem for entry in config.broken.values() for problem in entry]
    problems = [problem for problem in found if not _is_only_missing_here(problem)]
    notes = [replace(problem, message=_NOT_HERE) for problem in found if _is_only_missing_here(problem)]
    remarks = {"problems": problems, "warnings": config.warnings, "notes": (*config.notes, *notes)}
    return _report(path, remarks, servers=len(config.order), as_json=as_json)


def _is_only_missing_here(problem: Problem) -> bool:
    """Whether it is a credential, which systemd gives to the service and not to a shell: no fault of the config."""
    return problem.message.endswith(config_file.NO_CREDENTIALS)


def _report(path: str | None, found: Mapping[str, Sequence[Problem]], *, servers: int, as_json: bool) -> int:
    """Print what was found, the worst first. Only problems make a config wrong."""
    is_good = not found["problems"]
    if as_json:
        remarks = {kind: [*map(_record, found.get(kind, ()))] for kind in _KINDS}
        echo_json({"ok": is_good, "path": path, "servers": servers, **remarks})
        return 0 if is_good else OPERATION_FAILED
    for kind, style in _KINDS.items():
        for each in found.get(kind, ()):
            echo_styled(f"{kind.removesuffix('s')}: {each}", style)
    if is_good:
        echo(f"ok: {servers} server{'' if servers == 1 else 's'} in {path}")
    return 0 if is_good else OPERATION_FAILED


def _record(problem: Problem) -> dict[str, str | None]:
    return {"server": problem.server, "field": problem.field, "message": problem.message}
