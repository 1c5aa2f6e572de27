"""`status`, `restart`, `reload` and `plan`: one request to the daemon itself each, and its result shown."""

from __future__ import annotations

import json
import time

from ..core.config.jsonc import plain
from .failures import OPERATION_FAILED, CommandFailed
from .members import JsonObject, loads, member, optional_objects, strings, text
from .render import echo, echo_json, echo_styled
from .session import DaemonSession, Late, session

CHANGES = {"start": "green", "stop": "red", "replace": "yellow", "update": "cyan", "keep": "dim"}
OUTCOME_STYLES = {"applied": "green", "unchanged": "dim", "partial": "yellow", "rejected": "red"}


def status(socket: str | None, *, as_json: bool) -> None:
    """Print what the daemon knows of its servers and itself."""
    with session(socket) as opened:
        result = opened.control("daemon/status")
    if as_json:
        echo_json(result)
    else:
        from .screen import show_status

        show_status(result, time.time())


def restart(socket: str | None, server: str, *, timeout: float, as_json: bool) -> int:
    """Replace one server's session by a new one; returns the exit code, which says whether that one serves."""
    with session(socket) as opened:
        result = _outcome(opened, "daemon/restart", {"server": server}, timeout)
    if as_json:
        echo_json(result)
    else:
        from .status import STATE_STYLES, describe_server

        style = STATE_STYLES.get(text(result, "state"), "")
        echo_styled(describe_server({"name": server, **result}, time.time()), style)
    # Ready with a reason: the replacement failed, and the old session goes on.
    is_new = text(result, "state") in ("ready", "degraded") and not text(result, "reason")
    return 0 if is_new else OPERATION_FAILED


def reload(socket: str | None, *, timeout: float, as_json: bool) -> int:
    """Have the config read again; returns the exit code, which says whether all of it is in force."""
    with session(socket) as opened:
        result = _outcome(opened, "daemon/reload", {}, timeout)
    outcome = text(result, "outcome")
    if as_json:
        echo_json(result)
    else:
        generation = text(result, "generation")
        echo_styled(outcome + (f" (generation {generation})" if generation else ""), OUTCOME_STYLES.get(outcome, ""))
        _show_changes(member(result, "plan"))
        _show_problems(result)
    # "unchanged" with problems: the watcher had read the file a moment before, and could apply only part of it.
    in_force = outcome in ("applied", "unchanged") and not optional_objects(result, "problems")
    return 0 if in_force else OPERATION_FAILED


def plan(socket: str | None, file: str | None, *, as_json: bool) -> None:
    """Print what a config would change: the daemon's own as it is written, or that of `file`."""
    params = {"config": _read_config(file)} if file else {}
    with session(socket) as opened:
        result = opened.control("daemon/plan", params)
    if as_json:
        echo_json(result)
        return
    if not any(strings(result, change) for change in CHANGES if change != "keep"):
        echo("nothing would change")
    _show_changes(result)
    _show_problems(result)


def _outcome(opened: DaemonSession, method: str, params: JsonObject, timeout: float) -> JsonObject:
    """The result of a request that takes long. Raises CommandFailed after `timeout` seconds."""
    try:
        return opened.control(method, params, timeout=timeout)
    except Late:
        raise CommandFailed(
            f"no outcome within {timeout:g} s; the daemon goes on with it, `status` will show it"
        ) from None


def _show_changes(changes: JsonObject) -> None:
    for change, style in CHANGES.items():
        if names := strings(changes, change):
            echo_styled(f"{change:<8}{', '.join(names)}", style)


def _show_problems(result: JsonObject) -> None:
    from .status import describe_problem

    for problem in optional_objects(result, "problems"):
        echo_styled(f"problem: {describe_problem(problem)}", "red")


def _read_config(file: str) -> JsonObject:
    """A config as JSON, as it is written: variables are expanded by the daemon, in its own environment."""
    try:
        with open(file, encoding="utf-8-sig") as opened:
            config = loads(plain(opened.read()), object_pairs_hook=_without_duplicates)
    except OSError as failure:
        raise CommandFailed(f"cannot read {file}: {failure.strerror}") from None
    except json.JSONDecodeError as problem:
        raise CommandFailed(f"{file} is no JSON: line {problem.lineno} column {problem.colno}") from None
    except ValueError as problem:
        raise CommandFailed(
            f"{file} is no usable JSON: {problem if isinstance(problem, _Duplicate) else 'bad text'}"
        ) from None
    if not isinstance(config, dict):
        raise CommandFailed(f"{file} holds no JSON object")
    return config


class _Duplicate(ValueError):
    """One name twice in one object: which of the two counts, readers of JSON do not agree on."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _Duplicate(f"{name!r} comes twice")
        found[name] = value
    return found
