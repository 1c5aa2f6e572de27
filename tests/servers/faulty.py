"""An MCP server on stdio that is wrong in one way: `python -I -S faulty.py MODE`.

It speaks the legacy era and offers `work`, which always answers, and `trigger`, which does what MODE says. Modes in
`AT_START`, `AT_LIST` and `ALWAYS` are wrong there instead, and `trigger` then answers like `work`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping

TYPE_CHECKING = False  # importing `typing` would double the time this server takes to start
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

JUNK = (
    b"Listening on port 8080",
    b"",
    b"{",
    b'{"a":1}',
    b"[]",
    b'"x"',
    b"3",
    b"null",
    b"\xff\xfe\x00",
    b'{"jsonrpc":"1.0"}',
)
LONG_NAME = "n" * 300
MANY = 2_000
WORKED = '{"content":[{"type":"text","text":"worked"}]}'


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def line(text: str) -> None:
    write(text.encode() + b"\n")


def answer(id: str, result: str) -> None:
    line(f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}')


def error(id: str, body: str) -> None:
    line(f'{{"jsonrpc":"2.0","id":{id},"error":{body}}}')


def junk(id: str = "") -> None:
    for text in JUNK:
        write(text + b"\n")


def flood(id: str) -> None:
    while True:
        write(b"no json at all, and without end\n" * 1000)


def twice(id: str) -> None:
    answer(id, WORKED)
    answer(id, '{"content":[],"second":true}')


def strangers(id: str) -> None:
    """Answers to what nobody asked."""
    for stranger in ("999999", '"nope"', "null", "1.5", "-1", "true", f"{id}0" if id.isdigit() else "0"):
        answer(stranger, '{"content":[]}')


def bad_notifications(id: str) -> None:
    for method in ("tools/list_changed", "progress", "cancelled", "resources/updated", "message", "none/such"):
        for params in ("[]", '"x"', "null", '{"uri":3,"progressToken":{},"requestId":[],"level":7}'):
            line(f'{{"jsonrpc":"2.0","method":"notifications/{method}","params":{params}}}')
    line('{"jsonrpc":"2.0","method":17}')


def stray_progress(id: str) -> None:
    for token in ("424242", '"nobody"', id, f'"{id}"', "null", "1.5"):
        line(
            '{"jsonrpc":"2.0","method":"notifications/progress",'
            f'"params":{{"progressToken":{token},"progress":1,"total":2}}}}'
        )


def odd_requests(id: str) -> None:
    """Requests to a client that offered nothing."""
    for asked, method in ((id, "roots/list"), ('"a"', "sampling/createMessage"), ("7", "none/such"), ("8", "ping")):
        line(f'{{"jsonrpc":"2.0","id":{asked},"method":"{method}","params":{{}}}}')


def half_then_exit(id: str) -> None:
    write(f'{{"jsonrpc":"2.0","id":{id},"result":{{"content"'.encode())
    os.write(2, b"out of ideas\n")
    os._exit(3)


def close_stdout(id: str) -> None:
    os.close(1)
    time.sleep(3600)


def nested(depth: int) -> str:
    return '{"content":[],"deep":' + "[" * depth + "]" * depth + "}"


def silence(id: str) -> None:
    """No answer, and none to anything that comes after."""
    time.sleep(3600)


ORPHAN = ["sh", "-c", "trap '' TERM; echo orphan $$ >&2; while :; do sleep 60; done"]
"""Ignores SIGTERM, holds on to the pipes, and says who it is."""


def leave_orphan(argv: list[str], environ: Mapping[str, str]) -> None:
    """As daemons start: fork, setsid, fork. Only the last one stays; nobody below this server is its parent."""
    if middle := os.fork():
        os.waitpid(middle, 0)
        return
    os.setsid()
    if not os.fork():
        os.execve(f"/bin/{argv[0]}", argv, environ)
    os._exit(0)


def leave_zombies() -> None:
    for _ in range(20):
        leave_orphan(["true"], os.environ)


TRIGGERS: dict[str, Callable[[str], None]] = {
    "long-line": lambda id: answer(id, '{"content":[{"type":"text","text":"%s"}]}' % ("x" * 20 * 1024 * 1024)),
    "array-instead": lambda id: line(f"[{id}]"),
    "string-result": lambda id: answer(id, '"oops"'),
    "null-result": lambda id: answer(id, "null"),
    "neither": lambda id: line(f'{{"jsonrpc":"2.0","id":{id}}}'),
    "both": lambda id: line(f'{{"jsonrpc":"2.0","id":{id},"result":{WORKED},"error":{{"code":1,"message":"m"}}}}'),
    "exit": half_then_exit,
    "no-answer": lambda id: None,
    "hang": silence,
    "flood": flood,
    "close-stdout": close_stdout,
    "error-code-string": lambda id: error(id, '{"code":"E_BAD","message":"bad"}'),
    "error-no-message": lambda id: error(id, '{"code":-32000}'),
    "error-string": lambda id: error(id, '"bad"'),
    "error-null": lambda id: error(id, "null"),
    "error-message-object": lambda id: error(id, '{"code":1.5,"message":{"text":"bad"},"data":[NaN]}'),
    "bad-utf8": lambda id: write(b'{"jsonrpc":"2.0","id":%s,"result":{"content":[],"x":"\xff\xfe"}}\n' % id.encode()),
    "nan": lambda id: answer(id, '{"content":[],"x":[NaN,Infinity]}'),
    "deep": lambda id: answer(id, nested(200)),
    "bottomless": lambda id: answer(id, nested(100_000)),
    "lone-surrogate": lambda id: answer(id, '{"content":[],"x":"\\ud800"}'),
}
"""Modes where `trigger` does something instead of answering."""
BEFORE: dict[str, Callable[[str], None]] = {
    "junk-lines": junk,
    "strangers": strangers,
    "bad-notifications": bad_notifications,
    "stray-progress": stray_progress,
    "odd-requests": odd_requests,
}
"""Modes where `trigger` does something and then answers."""
TWICE = "twice"
AT_START: dict[str, Callable[[], None]] = {
    "leaves-stubborn": lambda: leave_orphan(ORPHAN, os.environ),
    "leaves-nameless": lambda: leave_orphan(ORPHAN, {}),
    "leaves-zombies": leave_zombies,
    "junk-first": junk,
    "mute": lambda: time.sleep(3600),
    "stderr-first": lambda: write_stderr(2 * 1024 * 1024),
    "exits-at-once": lambda: os._exit(5),
    "exits-127": lambda: os._exit(127),
}


def write_stderr(size: int) -> None:
    text = b"a server that says too much about itself\n" * 100
    for _ in range(size // len(text)):
        os.write(2, text)


def tool(name: object) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}}


GOOD = [tool("work"), tool("trigger")]
LISTS: dict[str, Callable[[Json], Any]] = {
    "same-cursor": lambda params: {"tools": GOOD, "nextCursor": "again"},
    "new-cursor": lambda params: {
        "tools": [tool(f"t{len(params.get('cursor', ''))}")],
        "nextCursor": params.get("cursor", "") + "x",
    },
    "many-tools": lambda params: {"tools": GOOD + [tool(f"tool_{n}") for n in range(MANY - len(GOOD))]},
    "long-name": lambda params: {"tools": [*GOOD, tool(LONG_NAME)]},
    "bad-names": lambda params: {
        "tools": [*GOOD, {"inputSchema": {}}, tool(3), tool(None), tool(["a"]), tool(""), "no", 7]
    },
    "twins": lambda params: {"tools": [*GOOD, tool("twin"), tool("twin"), tool("work")]},
    "tools-string": lambda params: {"tools": "none"},
    "tools-missing": lambda params: {},
    "list-string": lambda params: "none",
    "cursor-number": lambda params: {"tools": GOOD, "nextCursor": 7},
}
"""Modes that are wrong in what they list."""
MODES = (*TRIGGERS, *BEFORE, TWICE, *AT_START, *LISTS)


def main(mode: str) -> None:
    if mode not in MODES:
        sys.exit(f"unknown mode {mode}")
    if mode in AT_START:
        AT_START[mode]()
    for text in iter(sys.stdin.buffer.readline, b""):
        message = json.loads(text)
        if "method" in message and "id" in message:
            serve(mode, message, json.dumps(message["id"]))


def serve(mode: str, message: Json, id: str) -> None:
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        version = json.dumps(params["protocolVersion"])
        info = f'{{"name":"{mode}","version":"1"}}'
        answer(id, f'{{"protocolVersion":{version},"capabilities":{{"tools":{{}}}},"serverInfo":{info}}}')
    elif method == "ping":
        answer(id, "{}")
    elif method == "tools/list":
        answer(id, json.dumps(LISTS[mode](params) if mode in LISTS else {"tools": GOOD}))
    elif method == "tools/call":
        call(mode, params.get("name"), id)
    else:
        error(id, '{"code":-32601,"message":"Method not found"}')


def call(mode: str, name: object, id: str) -> None:
    if name == "trigger" and mode in TRIGGERS:
        TRIGGERS[mode](id)
    elif name == "trigger" and mode == TWICE:
        twice(id)
    else:
        if name == "trigger" and mode in BEFORE:
            BEFORE[mode](id)
        answer(id, WORKED)


if __name__ == "__main__":
    main(sys.argv[1])
