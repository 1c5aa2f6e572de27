"""`call`, `read` and `prompt`: one MCP request each, and its result shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .arguments import needs_schema, parse_object, split_pairs, typed
from .content import Saver, echo_resource, prompt_lines, tool_lines
from .failures import OPERATION_FAILED, CommandFailed
from .listing import find, qualified, server_of
from .members import JsonObject, member, objects
from .options import RequestOptions
from .render import complain, echo_json, echo_said
from .session import DaemonSession, Late, session
from .waiting import displayed_wait


def call_tool(options: RequestOptions, name: str, written: Sequence[str]) -> int:
    """Call a tool and show its result; returns the exit code, which says whether it succeeded."""
    pairs, arguments = _read_arguments(written)
    with session(options.socket) as opened:
        # The list is read only for what it is needed for: the qualified name, types, or whom a display names.
        if options.server or needs_schema(pairs) or sys.stderr.isatty():
            name, tool = _look_up(opened, "tools", name, options.server)
        else:
            tool = {}
        arguments |= typed(pairs, member(tool, "inputSchema"))
        whom = options.server or server_of(tool) or name
        result = _ask(opened, "tools/call", {"name": name, "arguments": arguments}, options, whom=whom)
    failed = result.get("isError") is True
    if options.as_json:
        echo_json(result)
    else:
        _print_blocks(tool_lines(result, Saver(options.output, name)), failed=failed)
    return OPERATION_FAILED if failed else 0


def read_resource(options: RequestOptions, uri: str) -> None:
    """Read a resource and show it."""
    # `server:uri`, as it is listed; a person may have copied it from the list.
    if options.server and not uri.startswith(f"{options.server}:"):
        uri = f"{options.server}:{uri}"
    with session(options.socket) as opened:
        result = _ask(opened, "resources/read", {"uri": uri}, options, whom=options.server or uri)
    if options.as_json:
        echo_json(result)
    else:
        echo_resource(objects(result, "contents"), Saver(options.output, uri.rsplit("/", 1)[-1]))


def get_prompt(options: RequestOptions, name: str, written: Sequence[str]) -> None:
    """Get a prompt and show it; its arguments are always text."""
    arguments = split_pairs(written)
    with session(options.socket) as opened:
        if options.server:
            name, _ = _look_up(opened, "prompts", name, options.server)
        result = _ask(
            opened, "prompts/get", {"name": name, "arguments": arguments}, options, whom=options.server or name
        )
    if options.as_json:
        echo_json(result)
    else:
        _print_blocks(prompt_lines(objects(result, "messages"), Saver(options.output, name)), failed=False)


def _read_arguments(written: Sequence[str]) -> tuple[dict[str, str], JsonObject]:
    """`key=value` pairs, which need the tool's schema to be typed, and arguments as JSON; one of them is empty."""
    if len(written) == 1 and written[0] == "-":
        return {}, parse_object(sys.stdin.read())
    if len(written) == 1 and written[0].lstrip().startswith("{"):
        return {}, parse_object(written[0])
    return split_pairs(written), {}


def _look_up(opened: DaemonSession, kind: str, name: str, server: str | None) -> tuple[str, JsonObject]:
    """The name to ask for, and the item as it is listed; empty if it is not."""
    items = objects(opened.ask_all(f"{kind}/list", kind), kind)
    name = qualified(name, server, items) if server else name
    return name, find(name, items)


def _ask(opened: DaemonSession, method: str, params: JsonObject, options: RequestOptions, *, whom: str) -> JsonObject:
    """The result of a request; `whom` is waited for, in the words of a person. Raises CommandFailed."""
    try:
        with displayed_wait(whom) as display:
            result = opened.ask(method, params, timeout=options.timeout, display=display)
    except Late:
        raise CommandFailed(
            f"no answer from {whom} within {options.timeout:g} s (--timeout SECONDS waits longer)"
        ) from None
    if result.get("resultType") == "input_required":
        raise CommandFailed(f"{whom} asks for input in between, which a command line cannot give")
    return result


def _print_blocks(lines: Sequence[str], *, failed: bool) -> None:
    """Block by block, each beginning on a line of its own."""
    said = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    if failed and not said:
        complain("error: the tool failed and did not say why")
    else:
        echo_said(said, sys.stderr if failed else sys.stdout)
