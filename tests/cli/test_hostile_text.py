"""Text of servers, clients and files on a person's terminal: no command lets a terminal obey it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from .conftest import MakeDaemon
from .samples import EVENTS, at, fleet
from .wire import Answer, Json, Line, run, run_on_terminal

CLIPBOARD, CLEAR, RED_C1, REVERSED = "\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b31m", "\u202e"
EVIL = f"{CLIPBOARD}{CLEAR}{RED_C1}{REVERSED}\u2028\x1b]0;open\nFORGED: ready"
RAW = (CLIPBOARD, CLEAR, RED_C1, REVERSED, "\u2028", "\x1b]0;")


def hostile(value: object) -> object:
    """The value with hostile text at the end of each string that is no time, state or word of the protocol."""
    match value:
        case dict():
            return {key: item if key in _WORDS else hostile(item) for key, item in value.items()}
        case list() | tuple():
            return [hostile(item) for item in value]
        case str():
            return value + EVIL
        case _:
            return value


_WORDS = ("since", "startedAt", "nextAttemptAt", "at", "type", "event", "blob", "data", "ended")


def answer(result: object) -> Json:
    found = hostile(result)
    assert isinstance(found, dict)
    return found


def failing(line: Line, request: Json) -> None:
    data = {"server": "git", "state": "backoff", "reason": "exit", "retryAt": at(hours=-1)}
    line.send({"id": request["id"], "error": {"code": -32603, "message": EVIL, "data": hostile(data)}})


def working(line: Line, request: Json) -> None:
    progress = {"progressToken": request["params"]["_meta"]["progressToken"], "progress": 1, "message": EVIL}
    line.send({"method": "notifications/progress", "params": progress})
    line.send({"id": request["id"], "result": {"content": []}})


def telling(method: str, *notes: object) -> Answer:
    def tell(line: Line, request: Json) -> None:
        for note in notes:
            line.send({"method": f"notifications/daemon/{method}", "params": hostile(note)})
        line.hang_up()

    return tell


TEXT = {"type": "text", "text": "t"}
ITEM: Json = {"name": "t", "description": "d", "title": "t", "uri": "a:b", "uriTemplate": "a:{b}"}
ITEM |= {"_meta": {"serverName": "git", "mcp-multi-server/state": "backoff"}}
ITEMS = answer({kind: [ITEM] for kind in ("tools", "resources", "resourceTemplates", "prompts")})
BLOCKS: list[Json] = [
    TEXT,
    {"type": "image", "mimeType": "image/png", "data": ""},
    {"type": "resource_link", "uri": "a:b", "name": "n"},
    {"type": "resource", "resource": {"uri": "a:b", "text": "t"}},
    {"type": "resource", "resource": {"uri": "a:b", "mimeType": "m", "blob": ""}},
    {"type": "hologram" + EVIL},
]
PLAN: Json = {"outcome": "partial", "plan": {"start": ["a"]}, "start": ["a"]}
PLAN |= {"problems": [{"field": "f", "message": "m"}]}
SCRIPTS: list[tuple[tuple[str, ...], Mapping[str, Answer]]] = [
    (("tools",), {"tools/list": ITEMS}),
    (("resources",), {"resources/list": ITEMS}),
    (("templates",), {"resources/templates/list": ITEMS}),
    (("prompts",), {"prompts/list": ITEMS}),
    (("call", "t", "{}"), {"tools/list": ITEMS, "tools/call": answer({"content": BLOCKS})}),
    (("call", "t", "{}"), {"tools/list": ITEMS, "tools/call": answer({"content": [TEXT], "isError": True})}),
    (
        ("call", "t", "{}"),
        {"tools/list": ITEMS, "tools/call": answer({"structuredContent": {"a": "b"}})},
    ),
    (("call", "t", "{}"), {"tools/list": ITEMS, "tools/call": failing}),
    (("call", "t", "{}"), {"tools/list": ITEMS, "tools/call": working}),
    (("call", "t", "{}"), {"tools/list": failing}),
    (("read", "a:b"), {"resources/read": answer({"contents": [{"uri": "a:b", "text": "t"}]})}),
    (("read", "a:b"), {"resources/read": answer({"contents": [{"uri": "a:b", "mimeType": "m", "blob": ""}]})}),
    (("prompt", "p"), {"prompts/get": answer({"messages": [{"role": "user", "content": TEXT}]})}),
    (("status",), {"daemon/status": answer(fleet())}),
    (("restart", "git"), {"daemon/restart": answer({"state": "backoff", "reason": "r"})}),
    (("reload",), {"daemon/reload": answer(PLAN)}),
    (("plan",), {"daemon/plan": answer(PLAN)}),
    (("logs", "git"), {"daemon/logs": answer({"lines": ["l"]})}),
    (("logs", "git", "--follow", "--wait", "0"), {"daemon/logs": telling("log", {"lines": ["l"], "state": "backoff"})}),
    (("events", "--wait", "0"), {"daemon/events": telling("event", *EVENTS)}),
    (("log-level",), {"daemon/log-level": answer({"level": "info", "configured": "info"})}),
]
NAMES = [" ".join(words[:1]) + f"-{number}" for number, (words, _) in enumerate(SCRIPTS)]


@pytest.mark.parametrize(("words", "script"), SCRIPTS, ids=NAMES)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_terminal_obeys_no_text_of_strangers(
    daemon_with: MakeDaemon, words: tuple[str, ...], script: Mapping[str, Answer], options: tuple[str, ...]
) -> None:
    _, drawn = run_on_terminal([*words, *options], daemon=daemon_with(script))
    assert "9b" in drawn, "what was said is shown, harmlessly"
    assert not [raw for raw in RAW if raw in drawn]


LISTS = [(words, script) for words, script in SCRIPTS if words[0] in ("tools", "resources", "status", "events", "logs")]


@pytest.mark.parametrize(("words", "script"), LISTS)
def test_no_text_of_strangers_begins_a_line_of_its_own(
    daemon_with: MakeDaemon, words: tuple[str, ...], script: Mapping[str, Answer]
) -> None:
    done = run(*words, daemon=daemon_with(script))
    assert "FORGED" in done.stdout
    assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("FORGED")]


def test_what_a_tool_or_resource_said_goes_into_a_pipe_as_it_came(daemon_with: MakeDaemon) -> None:
    result = {"content": [{"type": "text", "text": EVIL + "\r\n"}], "isError": False}
    daemon = daemon_with({"tools/call": result, "resources/read": {"contents": [{"uri": "a:b", "text": EVIL}]}})
    assert run("call", "t", "{}", daemon=daemon).stdout == EVIL + "\r\n"
    assert run("read", "a:b", daemon=daemon).stdout == EVIL
    assert json.loads(run("call", "t", "{}", "--json", daemon=daemon).stdout) == result


def test_an_error_of_several_lines_stays_one_error(daemon_with: MakeDaemon) -> None:
    def fail(line: Line, request: Json) -> None:
        line.send({"id": request["id"], "error": {"code": -32603, "message": "first\nerror: second\n\n"}})

    assert run("read", "a:b", daemon=daemon_with({"resources/read": fail})).stderr == "error: first\n  error: second\n"
