"""`events`: what happens in the daemon, a line each, as it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from .answer import JsonObject, member, moment, number, objects, optional_objects, text, words
from .failures import Failed
from .render import clean, echo_json, echo_styled, until
from .session import session
from .status import STATE_STYLES, describe_collision, describe_problem, describe_server


def events(socket: str | None, *, as_json: bool) -> None:
    """Print what happens. Ctrl-C is how it is meant to end."""
    with session(socket) as opened:
        try:
            for event in opened.stream("daemon/events", "notifications/daemon/event"):
                if as_json:
                    echo_json(event, indent=None)
                else:
                    _show(event)
                sys.stdout.flush()
        except KeyboardInterrupt:
            return
    raise Failed("the daemon ended the stream of events")


def _show(event: JsonObject) -> None:
    happened = moment(event, "at") or time.time()
    stamp = time.strftime("%H:%M:%S", time.localtime(happened))
    for line, style in _lines(event, happened):
        echo_styled(f"{stamp} {line}", style)


def _lines(event: JsonObject, now: float) -> Iterator[tuple[str, str]]:
    match event.get("event"):
        case "status":
            for server in objects(member(event, "status"), "servers"):
                yield describe_server(server, now), STATE_STYLES.get(text(server, "state"), "")
        case "server":
            yield _change(event), STATE_STYLES.get(text(event, "new"), "")
        case "server_replaced":
            yield clean(f"{text(member(event, 'server'), 'name')}: replaced, the new one serves"), "green"
        case "replacement_failed":
            yield _not_replaced(event), "yellow"
        case "collision":
            yield describe_collision(event), "yellow"
        case "config":
            yield _config(event), ""
        case _:
            yield _anything(event), ""


def _change(event: JsonObject) -> str:
    """A server that went from one state to another."""
    failure, retry_in = member(event, "failure"), number(event, "retry_in")
    why = ": ".join(filter(None, (text(failure, "reason"), text(failure, "message"))))
    line = f"{text(member(event, 'server'), 'name')}: {text(event, 'old')} → {text(event, 'new')}"
    line += f" ({why})" if why and text(event, "new") != "ready" else ""
    return clean(line) + (f", next attempt {until(retry_in)}" if retry_in is not None else "")


def _not_replaced(event: JsonObject) -> str:
    """A server whose successor did not get ready."""
    why = text(member(event, "failure"), "message")
    return clean(f"{text(event, 'server')}: not replaced, the old one goes on ({why})")


def _config(event: JsonObject) -> str:
    """A config that was read."""
    changed = member(event, "changed")
    parts = [f"{kind} {', '.join(names)}" for kind in changed if (names := words(changed, kind))]
    parts += [f"problem: {describe_problem(problem)}" for problem in optional_objects(event, "problems")]
    outcome = f"config {text(event, 'outcome')} (generation {text(event, 'generation')})"
    return clean(f"{outcome}: {'; '.join(parts)}" if parts else outcome)


def _anything(event: JsonObject) -> str:
    details = (f"{key}={_brief(value)}" for key, value in event.items() if key not in ("event", "at"))
    return clean(" ".join([text(event, "event") or "event", *details]))


def _brief(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
