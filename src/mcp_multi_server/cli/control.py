"""The commands that speak to the daemon itself."""

from __future__ import annotations

import json
import time

from .answer import JsonObject, loads, member, optional_objects, text, words
from .failures import OPERATION_FAILED, CommandFailed
from .render import clean, echo, echo_json, echo_styled
from .session import DaemonSession, Late, session

CHANGES = {"start": "green", "stop": "red", "replace": "yellow", "update": "cyan", "keep": "dim"}
_OUTCOME_STYLES = {"applied": "green", "unchanged": "dim", "partial": "yellow", "rejected": "red"}


def status(socket: str | None, *, as_json: bool) -> None:
    """What the daemon knows."""
    with session(socket) as opened:
        result = opened.control("daemon/status")
    if as_json:
        echo_json(result)
    else:
        from .status import show_status

        show_status(result, time.time())


def restart(socket: str | None, server: str, *, timeout: float, as_json: bool) -> int:
    """A new connection for one server."""
    with session(socket) as opened:
        result = _outcome(opened, "daemon/restart", {"server": server}, timeout)
    if as_json:
        echo_json(result)
    else:
        from .status import STATE_STYLES, describe_server

        style = STATE_STYLES.get(text(result, "state"), "")
        echo_styled(describe_server({"name": server, **result}, time.time()), style)
    is_new = text(result, "state") in ("ready", "degraded") and not text(result, "reason")
    return 0 if is_new else OPERATION_FAILED


def reload(socket: str | None, *, timeout: float, as_json: bool) -> int:
    """The config, read again."""
    with session(socket) as opened:
        result = _outcome(opened, "daemon/reload", {}, timeout)
    outcome = text(result, "outcome")
    if as_json:
        echo_json(result)
    else:
        generation = text(result, "generation")
        echo_styled(
            clean(outcome) + (f" (generation {generation})" if generation else ""), _OUTCOME_STYLES.get(outcome, "")
        )
        _show_changes(member(result, "plan"))
        _show_problems(result)
    # "unchanged" may be a file that the watch was faster to apply in part: who asks must hear of it all the same.
    in_force = outcome in ("applied", "unchanged") and not optional_objects(result, "problems")
    return 0 if in_force else OPERATION_FAILED


def plan(socket: str | None, file: str | None, *, as_json: bool) -> None:
    """What a config would change."""
    params = {"config": _read_config(file)} if file else {}
    with session(socket) as opened:
        result = opened.control("daemon/plan", params)
    if as_json:
        echo_json(result)
        return
    if not any(words(result, change) for change in CHANGES if change != "keep"):
        echo("nothing would change")
    _show_changes(result)
    _show_problems(result)


def _outcome(opened: DaemonSession, method: str, params: JsonObject, timeout: float) -> JsonObject:
    try:
        return opened.control(method, params, timeout=timeout)
    except Late:
        raise CommandFailed(
            f"no outcome within {timeout:g} s; the daemon goes on with it, `status` will show it"
        ) from None


def _show_changes(changes: JsonObject) -> None:
    for change, style in CHANGES.items():
        if names := words(changes, change):
            echo_styled(f"{change:<8}{', '.join(map(clean, names))}", style)


def _show_problems(result: JsonObject) -> None:
    from .status import describe_problem

    for problem in optional_objects(result, "problems"):
        echo_styled(f"problem: {describe_problem(problem)}", "red")


def _read_config(file: str) -> JsonObject:
    """A config as JSON; expanding and judging it is the daemon's part."""
    try:
        with open(file, encoding="utf-8") as opened:
            config = loads(opened.read(), object_pairs_hook=_without_duplicates)
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
    """One name twice in one object: which one counts would be a matter of luck."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _Duplicate(f"{name!r} comes twice")
        found[name] = value
    return found
