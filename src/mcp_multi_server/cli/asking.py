"""`call`, `read` and `prompt`: one MCP request each, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .answer import JsonObject, member, objects
from .arguments import needs_schema, parse_object, split_pairs, typed
from .content import Saver, echo_exact, echo_resource, prompt_lines, tool_lines
from .failures import OPERATION_FAILED, Failed
from .offers import find, qualified, server_of
from .render import complain, echo_json
from .session import Late, Session, session
from .waiting import watching


@dataclass(frozen=True, slots=True)
class Asking:
    """How a request is to be made, and its result shown."""

    socket: str | None
    server: str | None
    timeout: float
    output: str | None
    as_json: bool


def call_tool(asking: Asking, name: str, written: Sequence[str]) -> int:
    """Call a tool; the exit code says whether it succeeded."""
    pairs, arguments = _read_arguments(written)
    with session(asking.socket) as opened:
        if asking.server or needs_schema(pairs) or sys.stderr.isatty():
            name, tool = _look_up(opened, "tools", name, asking.server)
        else:
            tool = {}
        arguments |= typed(pairs, member(tool, "inputSchema"))
        whom = asking.server or server_of(tool) or name
        result = _ask(opened, "tools/call", {"name": name, "arguments": arguments}, asking, whom=whom)
    failed = result.get("isError") is True
    if asking.as_json:
        echo_json(result)
    else:
        _print_blocks(tool_lines(result, Saver(asking.output, name)), failed=failed)
    return OPERATION_FAILED if failed else 0


def read_resource(asking: Asking, uri: str) -> None:
    """Read a resource."""
    if asking.server and not uri.startswith(f"{asking.server}:"):
        uri = f"{asking.server}:{uri}"
    with session(asking.socket) as opened:
        result = _ask(opened, "resources/read", {"uri": uri}, asking, whom=asking.server or uri)
    if asking.as_json:
        echo_json(result)
    else:
        echo_resource(objects(result, "contents"), Saver(asking.output, uri.rsplit("/", 1)[-1]))


def get_prompt(asking: Asking, name: str, written: Sequence[str]) -> None:
    """Get a prompt; its arguments are always text."""
    arguments = split_pairs(written)
    with session(asking.socket) as opened:
        if asking.server:
            name, _ = _look_up(opened, "prompts", name, asking.server)
        result = _ask(opened, "prompts/get", {"name": name, "arguments": arguments}, asking, whom=asking.server or name)
    if asking.as_json:
        echo_json(result)
    else:
        _print_blocks(prompt_lines(objects(result, "messages"), Saver(asking.output, name)), failed=False)


def _read_arguments(written: Sequence[str]) -> tuple[dict[str, str], JsonObject]:
    """Pairs that are still to be typed, and arguments that are so already; one of them is empty."""
    if len(written) == 1 and written[0] == "-":
        return {}, parse_object(sys.stdin.read())
    if len(written) == 1 and written[0].lstrip().startswith("{"):
        return {}, parse_object(written[0])
    return split_pairs(written), {}


def _look_up(opened: Session, kind: str, name: str, server: str | None) -> tuple[str, JsonObject]:
    """The name to ask for, and the item as listed."""
    items = objects(opened.ask_all(f"{kind}/list", kind), kind)
    name = qualified(name, server, items) if server else name
    return name, find(name, items)


def _ask(opened: Session, method: str, params: JsonObject, asking: Asking, *, whom: str) -> JsonObject:
    try:
        with watching(whom) as watcher:
            result = opened.ask(method, params, timeout=asking.timeout, watcher=watcher)
    except Late:
        raise Failed(f"no answer from {whom} within {asking.timeout:g} s (--timeout SECONDS waits longer)") from None
    if result.get("resultType") == "input_required":
        raise Failed(f"{whom} asks for input in between, which a command line cannot give")
    return result


def _print_blocks(lines: Sequence[str], *, failed: bool) -> None:
    """Block by block, each beginning on a line of its own."""
    said = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    if failed:
        complain(said or "error: the tool failed and did not say why")
    else:
        echo_exact(said)
