"""A well-behaved MCP server on stdio, in both eras, without an SDK: it starts in the time Python takes.

Run it as `python -I -S fixture.py --era modern --name one`. The options are the attributes of `Options`, with dashes.
Its results carry numbers, escapes and members that a decoder would lose, so that a test can look for them at the end.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

TYPE_CHECKING = False  # importing `typing` would double the time this server takes to start
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Tool = Callable[["Server", "Call", Json], Json | None]

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
META = "io.modelcontextprotocol/"
CACHEABLE = ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list")
LISTS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources"}
LISTS["resources/templates/list"] = "resourceTemplates"
EXACT = '{"big":123456789012345678901234567890,"one":1.0,"exp":1E+2,"minus":-0.0,"escape":"\\u00e9\\/\\ud83d\\ude00"}'
"""What survives only where bytes are passed on: a re-encoding changes each of these members."""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


class Raw(str):
    """JSON text that is written as it is."""

    __slots__ = ()


class Fault(Exception):
    """A JSON-RPC error to answer with."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.body: Json = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class Options:
    """What the command line can say."""

    era = "both"  # legacy, modern, both, dies-on-probe, silent-on-probe
    name = "fixture"
    version = "1"
    offers = "tools,prompts,resources"
    tools = 0  # so many tools more
    prompts = 0
    resources = 0
    page_size = 0  # 0: everything in one page
    ttl_ms = 0
    delay = 0.0  # seconds asleep before serving
    burn = 0.0  # seconds of CPU before serving
    mute = False
    asks_roots = False  # as soon as it is initialized; the answer goes to the journal
    journal = ""  # a file that gets a line for every start and every call

    def __init__(self, argv: list[str]) -> None:
        words = iter(argv)
        for word in words:
            name = word.removeprefix("--").replace("-", "_")
            default = getattr(Options, name)
            setattr(self, name, True if default is False else type(default)(next(words)))


class Call:
    """One request: its id and line as they came, its params decoded."""

    def __init__(self, line: str, message: Json) -> None:
        self.line = line
        self.id = member(line, "id")
        self.method: str = message["method"]
        self.params: Json = message.get("params") or {}
        self.meta: Json = self.params.get("_meta") or {}
        self.modern = META + "protocolVersion" in self.meta


def members(text: str, at: int = 0) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each member of the JSON object that begins at `at`."""
    decode = json.JSONDecoder().raw_decode
    at = _after(text, at, "{")
    while text[at] != "}":
        name, at = decode(text, at)
        at = _after(text, at, ":")
        _, end = decode(text, at)
        yield name, at, end
        at = _after(text, end, ",")


def member(text: str, *path: str) -> str:
    """The JSON text found at `path` inside a JSON object, or "" where there is none."""
    start, end = 0, len(text)
    for wanted in path:
        found = [(begin, stop) for name, begin, stop in members(text, start) if name == wanted]
        if not found:
            return ""
        start, end = found[-1]
    return text[start:end]


def _after(text: str, at: int, mark: str) -> int:
    """The position after `mark`, where it comes next, and the blanks around it."""
    while text[at] in " \t\r\n":
        at += 1
    if text[at] == mark:
        at += 1
        while text[at] in " \t\r\n":
            at += 1
    return at


def dump(value: Any) -> str:
    return value if isinstance(value, Raw) else json.dumps(value, separators=(",", ":"))


def dump_members(values: Json) -> Raw:
    """A JSON object whose values may be `Raw`."""
    return Raw("{" + ",".join(f"{dump(name)}:{dump(value)}" for name, value in values.items()) + "}")


def text_of(text: str, **more: Any) -> Json:
    """A tool result of one text."""
    return {"content": [{"type": "text", "text": text}], **more}


class Server:
    """The state of this process and what it does with a message; one thread, one `select`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.offers = [word for word in options.offers.split(",") if word]
        self.initialized = False
        self.capabilities: Json = {}
        self.level = "warning"
        self.subscribed: set[str] = set()
        self.listening: dict[str, Json] = {}
        self.running: dict[str, str] = {}
        self.cancelled: list[Json] = []
        self.asked: dict[str, Call | None] = {}
        self.grown = {"tools": 0, "prompts": 0, "resources": 0}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0

    def serve(self) -> None:
        rest = b""
        while True:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            if select.select([0], [], [], wait)[0]:
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.line(line.decode())
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def send(self, **parts: str) -> None:
        body = ",".join(f'"{name}":{text}' for name, text in parts.items())
        self.write(f'{{"jsonrpc":"2.0",{body}}}\n'.encode())

    def notify(self, method: str, params: Json | None = None) -> None:
        parts = {"method": dump(method)}
        if params is not None:
            parts["params"] = dump(params)
        self.send(**parts)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.count, action))

    def journal(self, *words: str) -> None:
        if self.options.journal:
            with open(self.options.journal, "a", encoding="utf-8") as file:
                file.write(" ".join(words) + "\n")

    def line(self, line: str) -> None:
        if self.options.mute:
            return
        message = json.loads(line)
        if "method" not in message:
            self.answered(message)
        elif "id" in message:
            self.request(Call(line, message))
        else:
            self.notified(message["method"], message.get("params") or {})

    def request(self, call: Call) -> None:
        era = self.options.era
        if era == "dies-on-probe" and not self.initialized and call.method != "initialize":
            os._exit(1)
        if era == "silent-on-probe" and call.method == "server/discover":
            return
        try:
            result = self.result(call)
        except Fault as fault:
            self.send(id=call.id, error=dump(fault.body))
            return
        if result is not None:
            self.answer(call, result)

    def answer(self, call: Call, result: Json) -> None:
        if self.is_modern(call):
            result = {"resultType": "complete", **result}
            info = {META + "serverInfo": {"name": self.options.name, "version": self.options.version}}
            result["_meta"] = {**result.get("_meta", {}), **info}
            if call.method in CACHEABLE or call.method == "resources/read":
                result |= {"ttlMs": self.options.ttl_ms, "cacheScope": "public"}
        self.send(id=call.id, result=dump_members(result))

    def is_modern(self, call: Call) -> bool:
        return self.options.era == "modern" or (self.options.era == "both" and call.modern)

    def result(self, call: Call) -> Json | None:
        """What to answer; None where the answer comes later or never. Raises Fault."""
        if self.is_modern(call):
            self.check_envelope(call)
        elif call.method not in ("initialize", "ping", "server/discover") and not self.initialized:
            raise Fault(-32600, "initialize first")
        if call.method in LISTS:
            return self.page(LISTS[call.method], call)
        action = (MODERN_METHODS if self.is_modern(call) else LEGACY_METHODS).get(call.method)
        if action is None:
            raise Fault(-32601, f"Method not found: {call.method}")
        return action(self, call)

    def check_envelope(self, call: Call) -> None:
        version = call.meta.get(META + "protocolVersion")
        if call.method == "initialize" or (version is not None and version != MODERN):
            wanted = version or call.params.get("protocolVersion")
            data = {"supported": self.versions(), "requested": wanted}
            raise Fault(-32022, "Unsupported protocol version", data)
        if version is None or not isinstance(call.meta.get(META + "clientCapabilities"), dict):
            raise Fault(-32602, "the request lacks protocolVersion or clientCapabilities in _meta")

    def versions(self) -> list[str]:
        return [MODERN, *LEGACY] if self.options.era == "both" else [MODERN]

    def notified(self, method: str, params: Json) -> None:
        if method == "notifications/initialized" and self.options.asks_roots:
            self.ask("roots/list", {}, None)
        if method != "notifications/cancelled":
            return
        id = dump(params.get("requestId"))
        if self.listening.pop(id, None) is None:
            tag = self.running.pop(id, None)
            self.cancelled.append({"known": tag is not None, "tag": tag, "reason": params.get("reason")})
            self.journal("cancelled", str(tag))

    def ask(self, method: str, params: Json, call: Call | None) -> None:
        """Send a request; its answer is the result of `call`, else goes to the journal."""
        self.count += 1
        self.asked[f"ask-{self.count}"] = call
        self.send(id=f'"ask-{self.count}"', method=dump(method), params=dump(params))

    def answered(self, message: Json) -> None:
        kept = {name: message[name] for name in ("result", "error") if name in message}
        call = self.asked.pop(str(message.get("id")), None)
        if call is not None:
            self.answer(call, text_of("asked", structuredContent=kept))
        else:
            self.journal("answered", dump(kept))

    def changed(self, kind: str) -> None:
        """Tell everyone who is to know that a list changed."""
        flag = f"{kind}ListChanged"
        self.tell(f"notifications/{kind}/list_changed", {}, session=True, wanted=lambda asked: flag in asked)

    def tell(self, method: str, params: Json, *, session: bool, wanted: Callable[[Json], bool]) -> None:
        """Send a notification in the legacy session, if `session`, and on every subscription that `wanted` it."""
        if self.initialized and session:
            self.notify(method, params or None)
        for id, asked in self.listening.items():
            if wanted(asked):
                meta = Raw(f'{{"{META}subscriptionId":{id}}}')
                self.send(method=dump(method), params=dump_members({"_meta": meta, **params}))

    def page(self, kind: str, call: Call) -> Json:
        offer = "resources" if kind == "resourceTemplates" else kind
        if offer not in self.offers:
            raise Fault(-32601, f"Method not found: {call.method}")
        every, size = getattr(self, f"list_{kind}")(), self.options.page_size
        cursor = call.params.get("cursor")
        start = self.position(cursor) if cursor is not None else 0
        if start > len(every):
            raise Fault(-32602, "no such page")
        if not size or start + size >= len(every):
            return {kind: every[start:]}
        return {kind: every[start : start + size], "nextCursor": f"from {start + size}"}

    def position(self, cursor: Any) -> int:
        if isinstance(cursor, str) and cursor.startswith("from ") and cursor[5:].isdigit():
            return int(cursor[5:])
        raise Fault(-32602, "no such cursor")

    def list_tools(self) -> list[Json]:
        extra = [f"extra_{n}" for n in range(self.options.tools)] + [f"grown_{n}" for n in range(self.grown["tools"])]
        schema = {"type": "object", "properties": {}, "x-number": 123456789012345678901234567890}
        described = f"by {self.options.name}, version {self.options.version}"
        common: Json = {"inputSchema": schema, "annotations": {"readOnlyHint": True, "x-hint": 1.0}, "x-vendor": [None]}
        return [{"name": name, "title": name.title(), "description": described, **common} for name in [*TOOLS, *extra]]

    def list_prompts(self) -> list[Json]:
        extra = [f"prompt_{n}" for n in range(self.options.prompts)]
        extra += [f"grown_{n}" for n in range(self.grown["prompts"])]
        greet: Json = {"name": "greet", "description": "A greeting", "x-vendor": {"keep": 1.0}}
        greet["arguments"] = [{"name": "language", "required": True, "x-vendor": True}]
        return [greet, *({"name": name} for name in extra)]

    def list_resources(self) -> list[Json]:
        count = self.options.resources + self.grown["resources"]
        extra = [{"uri": f"note://extra/{n}", "name": f"extra {n}"} for n in range(count)]
        one: Json = {"uri": "note://one", "name": "one", "mimeType": "text/plain", "size": 3, "x-vendor": {"keep": 1.0}}
        return [one, {"uri": "note://blob", "name": "blob", "mimeType": "application/octet-stream"}, *extra]

    def list_resourceTemplates(self) -> list[Json]:
        return [{"uriTemplate": f"note://{self.options.name}/{{path}}", "name": "any note", "x-vendor": True}]

    def capabilities_offered(self) -> Json:
        every: Json = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}
        every["resources"] = {"listChanged": True, "subscribe": True}
        return {name: every[name] for name in self.offers} | {"completions": {}, "logging": {}}


# --- methods ---------------------------------------------------------------------------------------------------------


def initialize(server: Server, call: Call) -> Json:
    asked = call.params.get("protocolVersion")
    server.initialized = True
    server.capabilities = call.params.get("capabilities") or {}
    info = {"name": server.options.name, "version": server.options.version, "x-vendor": True}
    version = asked if asked in LEGACY else LEGACY[0]
    return {"protocolVersion": version, "capabilities": server.capabilities_offered(), "serverInfo": info}


def discover(server: Server, call: Call) -> Json:
    return {"supportedVersions": server.versions(), "capabilities": server.capabilities_offered()}


def listen(server: Server, call: Call) -> None:
    wanted = {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"}
    honoured = {name: value for name, value in call.params.get("notifications", {}).items() if name in wanted}
    meta = Raw(f'{{"{META}subscriptionId":{call.id}}}')
    body = Raw(f'{{"_meta":{meta},"notifications":{dump(honoured)}}}')
    server.send(method=dump("notifications/subscriptions/acknowledged"), params=body)
    server.listening[call.id] = honoured


def read(server: Server, call: Call) -> Json:
    uri = call.params.get("uri")
    known = {resource["uri"] for resource in server.list_resources()} | {"note://hidden"}
    if not isinstance(uri, str) or (uri not in known and not uri.startswith(f"note://{server.options.name}/")):
        raise Fault(-32602 if server.is_modern(call) else -32002, "Resource not found", {"uri": uri})
    if uri == "note://blob":
        return {"contents": [{"uri": uri, "mimeType": "application/octet-stream", "blob": PIXEL}]}
    content: Json = {"uri": uri, "mimeType": "text/plain", "text": f"{uri} of {server.options.name}"}
    return {"contents": [content | {"x-vendor": {"keep": True}}], "x-top": Raw(EXACT)}


def get_prompt(server: Server, call: Call) -> Json:
    name = call.params.get("name")
    if name not in {prompt["name"] for prompt in server.list_prompts()}:
        raise Fault(-32602, f"Unknown prompt: {name}")
    language = (call.params.get("arguments") or {}).get("language", "no language")
    said = {"role": "user", "content": {"type": "text", "text": f"Greet in {language}, says {server.options.name}"}}
    linked = {"role": "user", "content": {"type": "resource_link", "uri": "note://hidden", "name": "hidden"}}
    return {"description": "A greeting", "messages": [said, linked], "x-top": Raw(EXACT)}


def complete(server: Server, call: Call) -> Json:
    begun = call.params["argument"]["value"]
    words = ("Dansk", "Deutsch", "Suomi") if call.params["ref"]["type"] == "ref/prompt" else ("one", "other")
    values = [word for word in words if word.startswith(begun)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def set_level(server: Server, call: Call) -> Json:
    server.level = call.params["level"]
    server.journal("level", server.level)
    return {}


def subscribe(server: Server, call: Call) -> Json:
    server.subscribed.add(call.params["uri"])
    server.journal("subscribe", call.params["uri"])
    return {}


def unsubscribe(server: Server, call: Call) -> Json:
    server.subscribed.discard(call.params["uri"])
    server.journal("unsubscribe", call.params["uri"])
    return {}


def call_tool(server: Server, call: Call) -> Json | None:
    name = call.params.get("name")
    known = {tool["name"] for tool in server.list_tools()} if "tools" in server.offers else ()
    if name not in known:
        raise Fault(-32602, f"Unknown tool: {name}")
    server.journal("call", str(name), str((call.params.get("arguments") or {}).get("tag", "")))
    return TOOLS.get(str(name), echo)(server, call, call.params.get("arguments") or {})


# --- tools -----------------------------------------------------------------------------------------------------------


def echo(server: Server, call: Call, arguments: Json) -> Json:
    """The arguments byte for byte, beside members that no decoder keeps."""
    said = member(call.line, "params", "arguments") or "{}"
    content = Raw(f'[{{"type":"text","text":{dump(server.options.name)},"x-vendor":{EXACT},"_meta":{{"a.b/c":1.0}}}}]')
    structured = Raw(f'{{"arguments":{said},"exact":{EXACT},"server":{dump(server.options.name)}}}')
    meta = {"vendor.example/server": server.options.name, "vendor.example/big": 123456789012345678901234567890}
    return {"content": content, "structuredContent": structured, "x-top": Raw(EXACT), "_meta": meta}


def received(server: Server, call: Call, arguments: Json) -> Json:
    """The line of this very request, as a string."""
    return text_of("received", structuredContent={"line": call.line})


def slow(server: Server, call: Call, arguments: Json) -> None:
    """Answers after `seconds`, with `steps` progress notifications where a token came; `tag` names it."""
    seconds, steps = float(arguments.get("seconds", 1)), int(arguments.get("steps", 2))
    token = member(call.line, "params", "_meta", "progressToken")
    server.running[call.id] = str(arguments.get("tag", ""))

    def step(number: int) -> None:
        if call.id in server.running and token:
            body: Json = {"progressToken": Raw(token), "progress": Raw(f"{number}.0"), "total": steps}
            body |= {"message": f"step {number}", "x-vendor": Raw("1E+2")}
            server.send(method=dump("notifications/progress"), params=dump_members(body))

    def finish() -> None:
        if server.running.pop(call.id, None) is not None:
            server.answer(call, text_of("done", structuredContent={"seconds": seconds, "tag": arguments.get("tag")}))

    for number in range(1, steps + 1):
        server.later(seconds * number / (steps + 1), partial(step, number))
    server.later(seconds, finish)


def cancelled_ids(server: Server, call: Call, arguments: Json) -> Json:
    """What was cancelled so far, with the tags of the calls, and what is running."""
    running = sorted(server.running.values())
    return text_of("cancelled", structuredContent={"cancelled": server.cancelled, "running": running})


def grow(server: Server, call: Call, arguments: Json) -> Json:
    """One tool (or `kind`) more or fewer, and says so `times` times."""
    kind = arguments.get("kind", "tools")
    server.grown[kind] += int(arguments.get("by", 1))
    for _ in range(int(arguments.get("times", 1))):
        server.changed(kind)
    return text_of(f"{server.grown[kind]} more {kind}")


def touch(server: Server, call: Call, arguments: Json) -> Json:
    """Says that `uri` was updated, to those who asked."""
    uri = arguments["uri"]

    def wanted(asked: Json) -> bool:
        return uri in asked.get("resourceSubscriptions", ())

    method = "notifications/resources/updated"
    server.tell(method, {"uri": uri}, session=uri in server.subscribed, wanted=wanted)
    return text_of("touched")


def log(server: Server, call: Call, arguments: Json) -> Json:
    """A log message to the client: always in a legacy session, for opted-in requests in the modern era."""
    if not server.is_modern(call) or META + "logLevel" in call.meta:
        body = {"level": arguments.get("level", "error"), "logger": server.options.name, "data": arguments.get("data")}
        server.notify("notifications/message", body)
    return text_of("logged", structuredContent={"level": server.level, "asked": call.meta.get(META + "logLevel")})


def ask(server: Server, call: Call, arguments: Json) -> Json | None:
    """Needs an answer from the client's user before it can answer itself."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    wanted = {"mode": "form", "message": "Who are you?", "requestedSchema": schema}
    return needs(server, call, "elicitation", "elicitation/create", wanted)


def sample(server: Server, call: Call, arguments: Json) -> Json | None:
    """Needs what the client's language model makes of `text`."""
    said = {"role": "user", "content": {"type": "text", "text": arguments.get("text", "Hello")}}
    return needs(server, call, "sampling", "sampling/createMessage", {"messages": [said], "maxTokens": 100})


def roots(server: Server, call: Call, arguments: Json) -> Json | None:
    """Needs the client's roots."""
    return needs(server, call, "roots", "roots/list", {})


def needs(server: Server, call: Call, capability: str, method: str, wanted: Json) -> Json | None:
    """Ask the client in the way of the era; the tool's result is what it answers."""
    capabilities = call.meta.get(META + "clientCapabilities", {}) if server.is_modern(call) else server.capabilities
    if capability not in capabilities:
        code = -32021 if server.is_modern(call) else -32603
        raise Fault(code, f"needs {capability}", {"requiredCapabilities": {capability: {}}})
    if not server.is_modern(call):
        server.ask(method, wanted, call)
        return None
    if "inputResponses" in call.params:
        kept = {"result": call.params["inputResponses"].get("who")}
        return text_of("asked", structuredContent=kept | {"state": call.params.get("requestState")})
    requests = {"who": {"method": method, "params": wanted}}
    return {"resultType": "input_required", "inputRequests": requests, "requestState": "opaque é state"}


def fail(server: Server, call: Call, arguments: Json) -> Json:
    return text_of("it failed", isError=True)


def rpc_error(server: Server, call: Call, arguments: Json) -> None:
    raise Fault(int(arguments.get("code", 4242)), "no such luck", LUCK)


def link(server: Server, call: Call, arguments: Json) -> Json:
    """Links to resources: one that is listed, one that is not, and one in full."""
    listed = {"type": "resource_link", "uri": "note://one", "name": "one"}
    hidden = {"type": "resource_link", "uri": "note://hidden", "name": "hidden", "x-vendor": 1.0}
    full = {"type": "resource", "resource": {"uri": "note://hidden", "text": "hidden", "x-vendor": 1.0}}
    return {"content": [listed, hidden, full]}


def image(server: Server, call: Call, arguments: Json) -> Json:
    return {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]}


def big(server: Server, call: Call, arguments: Json) -> Json:
    return text_of("x" * int(arguments["bytes"]))


def environment(server: Server, call: Call, arguments: Json) -> Json:
    return text_of("environment", structuredContent={"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv[1:]})


def say(server: Server, call: Call, arguments: Json) -> Json:
    """Writes `line` to stderr `times` times."""
    os.write(2, (str(arguments["line"]) + "\n").encode() * int(arguments.get("times", 1)))
    return text_of("said")


def pid(server: Server, call: Call, arguments: Json) -> Json:
    return text_of(str(os.getpid()))


def exit_now(server: Server, call: Call, arguments: Json) -> None:
    """Ends without an answer; the last words explain it."""
    os.write(2, b"last words\n")
    os._exit(int(arguments.get("code", 3)))


def crash_mid_call(server: Server, call: Call, arguments: Json) -> None:
    """Dies by a signal with half of its answer written."""
    server.write(f'{{"jsonrpc":"2.0","id":{call.id},"result":{{"content":['.encode())
    os.kill(os.getpid(), signal.SIGKILL)


LUCK = {"exact": 123456789012345678901234567890, "keep": [1.0, None]}
TOOLS: dict[str, Tool] = {
    "echo": echo,
    "received": received,
    "slow": slow,
    "cancelled_ids": cancelled_ids,
    "grow": grow,
    "touch": touch,
    "log": log,
    "ask": ask,
    "sample": sample,
    "roots": roots,
    "fail": fail,
    "rpc_error": rpc_error,
    "link": link,
    "image": image,
    "big": big,
    "environment": environment,
    "say": say,
    "pid": pid,
    "exit": exit_now,
    "crash_mid_call": crash_mid_call,
}
COMMON: dict[str, Callable[[Server, Call], Json | None]] = {
    "tools/call": call_tool,
    "resources/read": read,
    "prompts/get": get_prompt,
    "completion/complete": complete,
}
MODERN_METHODS = {**COMMON, "server/discover": discover, "subscriptions/listen": listen}
LEGACY_METHODS = {
    **COMMON,
    "initialize": initialize,
    "ping": lambda server, call: {},
    "logging/setLevel": set_level,
    "resources/subscribe": subscribe,
    "resources/unsubscribe": unsubscribe,
}


def main() -> None:
    options = Options(sys.argv[1:])
    server = Server(options)
    server.journal("start", str(os.getpid()))
    time.sleep(options.delay)
    until = time.process_time() + options.burn
    while time.process_time() < until:
        pass
    server.serve()


if __name__ == "__main__":
    main()
