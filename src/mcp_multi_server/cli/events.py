"""`events`: what happens in the daemon, an event a line, as it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from .control import OUTCOME_STYLES
from .failures import CommandFailed
from .logs import notice
from .members import JsonObject, member, moment, number, objects, optional_objects, strings, text
from .render import duration, echo_json, echo_styled, until
from .session import StreamEnded
from .status import STATE_STYLES, describe_collision, describe_list_problem, describe_problem, describe_server
from .streams import EVENTS, DaemonStream

_SENTENCES = {
    "server_removed": "{server}: removed",
    "catalog": "{server}: offers {tools} tools, {prompts} prompts, {resources} resources, {templates} templates",
    "refresh_failed": "{server}: its lists could not be read again: {message}",
    "withdrawn": "{server}: away for too long, its names are no longer listed",
    "client_connected": "client {client} connected (pid {pid}, uid {uid})",
    "client_gone": "client {client} left ({reason})",
    "log_level": "the log's level is {level} (was {was}), as client {client} (uid {uid}) wants it",
    "warning": "warning: {subject}: {message}",
    "internal_error": "a bug of the daemon's, contained, in {where}: the log has the stack",
    "processes_ended": "ended processes {pids}: {why}",
    "listening": "the daemon listens on {socket}",
    "stopping": "the daemon stops ({why})",
}


def events(socket: str | None, *, wait: float, as_json: bool) -> None:
    """Print each event. Ctrl-C is how it is meant to end."""
    try:
        with DaemonStream(socket, EVENTS, {}, wait=wait, notice=notice) as stream:
            while True:
                if (event := stream.next()) is None:
                    continue
                if as_json:
                    echo_json(event, indent=None)
                else:
                    _show(event)
                sys.stdout.flush()
    except StreamEnded:
        raise CommandFailed("the daemon ended the stream of events") from None
    except KeyboardInterrupt:
        return


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
        case "catalog_problems":
            yield _catalog_problems(event), "yellow"
        case "rejected":
            yield _rejected(event), "yellow"
        case "woke":
            yield f"the machine runs again, after {duration(number(event, 'seconds') or 0)} of suspend", ""
        case "server_replaced":
            yield f"{_server(event)}: replaced, the new one serves", "green"
        case "replacement_failed":
            yield _not_replaced(event), "yellow"
        case "collision":
            yield describe_collision(event), "yellow"
        case "config":
            yield _config(event), OUTCOME_STYLES.get(text(event, "outcome"), "")
        case "refresh_failed" | "warning" | "processes_ended":
            yield _sentence(event), "yellow"
        case "internal_error":
            yield _sentence(event), "red"
        case "client_connected" | "client_gone":
            yield _sentence(event), "dim"
        case _:
            yield _sentence(event), ""


def _change(event: JsonObject) -> str:
    """That a server went from one state to another, why, and what comes next."""
    failure, retry_in = member(event, "failure"), number(event, "retry_in")
    why = ": ".join(filter(None, (text(failure, "reason"), text(failure, "message"))))
    line = f"{_server(event)}: {text(event, 'old')} → {text(event, 'new')}"
    line += f" ({why})" if why and text(event, "new") != "ready" else ""
    return line + (f", next attempt {until(retry_in)}" if retry_in is not None else "")


def _server(event: JsonObject) -> str:
    """The name of an event's server; one that is leaving has no row in the status any more."""
    return text(member(event, "server"), "name") or text(event, "server")


def _not_replaced(event: JsonObject) -> str:
    """That a server's replacement did not get ready."""
    why = text(member(event, "failure"), "message")
    return f"{text(event, 'server')}: not replaced, the old one goes on ({why})"


def _catalog_problems(event: JsonObject) -> str:
    """What is wrong with a server's lists, or that nothing is any more."""
    problems = "; ".join(map(describe_list_problem, optional_objects(event, "problems")))
    return f"{text(event, 'server')}: {problems or 'nothing is wrong with its lists any more'}"


def _rejected(event: JsonObject) -> str:
    """Something that a client sent or tried and was refused."""
    line = ": ".join(filter(None, ("refused", text(event, "reason"), text(event, "detail"))))
    left_out = number(event, "left_out")
    return line + (f" ({left_out:g} more before it)" if left_out else "")


def _config(event: JsonObject) -> str:
    """That the config was read, what it changed, and what is wrong with it."""
    changed = member(event, "changed")
    parts = [f"{kind} {', '.join(names)}" for kind in changed if (names := strings(changed, kind))]
    parts += [f"problem: {describe_problem(problem)}" for problem in optional_objects(event, "problems")]
    outcome = f"config {text(event, 'outcome')} (generation {text(event, 'generation')})"
    return f"{outcome}: {'; '.join(parts)}" if parts else outcome


def _sentence(event: JsonObject) -> str:
    """An event in words. One that is not known here, from a newer daemon, is shown with all its members."""
    found = {key: _brief(value) for key, value in event.items()}
    try:
        return _SENTENCES[found["event"]].format_map(found)
    except KeyError:
        details = (f"{key}={value}" for key, value in found.items() if key not in ("event", "at"))
        return " ".join([found.get("event", "event"), *details])


def _brief(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
