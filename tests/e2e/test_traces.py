"""Traces: `_meta.traceparent` goes through the daemon; where somebody takes spans, each request gets one on the way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.polling import eventually

from .entries import fixture
from .harness import Daemon
from .wire import Wire

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "baggage": "userId=alice,serverNode=DF%2028",
}


class Collector:
    """Takes spans as an OpenTelemetry collector does: OTLP over HTTP, in protobuf."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.add(self.path)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the tests say what went wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for one in request.resource_spans:
            self.resource |= {each.key: each.value.string_value for each in one.resource.attributes}
            self.spans += [span for scope in one.scope_spans for span in scope.spans]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def await_span(self, name: str) -> Span:
        found = eventually(lambda: [span for span in self.spans if span.name == name], what=f"a span {name}")
        assert len(found) == 1
        return found[0]


@contextmanager
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join(10)


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.int_value or each.value.string_value for each in span.attributes}


def received(client: Wire, tool: str, meta: dict[str, Any]) -> dict[str, Any]:
    """The `_meta` that the server got."""
    line = client.call(tool, _meta=meta)["structuredContent"]["line"]
    found: dict[str, Any] = json.loads(line)["params"].get("_meta", {})
    return found


def await_traces(client: Wire) -> None:
    """Wait until the daemon makes spans: it loads what it needs beside its work."""

    def is_traced() -> bool:
        return "traceparent" in received(client, "legacy__received", {})

    eventually(is_traced, what="a traceparent of the daemon's")


@pytest.fixture(scope="module")
def untraced() -> Iterator[Daemon]:
    with Daemon({era: fixture(era, "--era", era) for era in ("legacy", "modern")}) as daemon:
        yield daemon.await_up()


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_context_of_a_trace_goes_through_as_it_came(untraced: Daemon, era: str, server: str) -> None:
    with untraced.legacy() if era == "legacy" else untraced.modern() as client:
        meta = received(client, f"{server}__received", {**CONTEXT, "vendor.example/x": 1})
    assert {name: meta[name] for name in (*CONTEXT, "vendor.example/x")} == {**CONTEXT, "vendor.example/x": 1}


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[Collector, Daemon]]:
    """A daemon with a server of each era, and who takes its spans, ten times a second."""
    with collector() as to:
        sending = {"OTEL_EXPORTER_OTLP_ENDPOINT": to.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        named = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
        servers = {era: fixture(era, "--era", era) for era in ("legacy", "modern")}
        with Daemon(servers, environment=sending | named) as daemon, daemon.await_up().legacy() as client:
            await_traces(client)
            yield to, daemon


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_span_stands_between_the_clients_and_the_servers(
    traced: tuple[Collector, Daemon], era: str, server: str
) -> None:
    to, daemon = traced
    parent = f"{len(to.spans) + 1:016x}"
    with daemon.legacy() if era == "legacy" else daemon.modern() as client:
        meta = received(client, f"{server}__received", {**CONTEXT, "traceparent": f"00-{TRACE}-{parent}-01"})
    (span,) = eventually(lambda: [s for s in to.spans if s.parent_span_id.hex() == parent], what="the span")
    assert meta["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert (meta["tracestate"], meta["baggage"]) == (CONTEXT["tracestate"], CONTEXT["baggage"])
    assert (span.trace_id.hex(), span.kind, span.name) == (TRACE, Span.SPAN_KIND_CLIENT, "tools/call received")
    told = attributes(span)
    assert told.pop("jsonrpc.request.id").isdigit()
    assert told == {
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "received",
        "gen_ai.operation.name": "execute_tool",
        "mcp.protocol.version": {"legacy": "2025-11-25", "modern": "2026-07-28"}[server],
        "network.transport": "pipe",
        "mcp_multi_server.server": server,
    }
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 20e9


def test_what_spans_are_of_is_named(traced: tuple[Collector, Daemon]) -> None:
    to, _ = traced
    assert to.paths == {"/v1/traces"}
    assert to.resource["service.name"] == "mcp-multi-server"
    assert to.resource["service.version"]
    assert to.resource["deployment.environment.name"] == "test"


def test_every_forwarded_request_has_a_span_that_says_how_it_went(traced: tuple[Collector, Daemon]) -> None:
    to, daemon = traced
    with daemon.legacy() as client:
        client.call("legacy__fail")
        client.error("tools/call", {"name": "legacy__rpc_error", "arguments": {"code": 4242}})
        client.result("prompts/get", {"name": "legacy__greet", "arguments": {"language": "en"}})
        client.result("tools/list")
        client.result("resources/read", {"uri": "legacy:note://one"})
    failed, broken = to.await_span("tools/call fail"), to.await_span("tools/call rpc_error")
    assert attributes(failed)["error.type"] == "tool_error"
    assert attributes(broken)["error.type"] == attributes(broken)["rpc.response.status_code"] == "4242"
    assert failed.status.code == broken.status.code == Status.STATUS_CODE_ERROR
    prompt, read = to.await_span("prompts/get greet"), to.await_span("resources/read")
    assert attributes(prompt)["gen_ai.prompt.name"] == "greet"
    assert attributes(read)["mcp.resource.uri"] == "note://one"
    assert "error.type" not in attributes(read)
    assert prompt.trace_id != read.trace_id, "requests without a context begin traces of their own"
    assert not [span for span in to.spans if span.name == "tools/list"], "what the daemon answers itself is no span"


@pytest.mark.parametrize("bad", ["00-xyz", 17, {"a": []}, f"00-{TRACE}-{'0' * 16}-01"])
def test_a_traceparent_that_is_none_begins_a_new_trace(traced: tuple[Collector, Daemon], bad: object) -> None:
    with traced[1].legacy() as client:
        meta = received(client, "legacy__received", {"traceparent": bad, "tracestate": "rojo=1"})
    assert meta["traceparent"].startswith("00-")
    assert TRACE not in meta["traceparent"]
    assert "tracestate" not in meta, "it belonged to the context that was none"


def test_a_collector_that_never_answers_delays_neither_calls_nor_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as black_hole, ExitStack() as held:
        black_hole.settimeout(15)
        endpoint = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        sending = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": "60"}  # longer than `Daemon` waits for the end
        with Daemon({"legacy": fixture("one")}, environment=sending | patient) as daemon, daemon.legacy() as client:
            await_traces(client)
            held.enter_context(black_hole.accept()[0])
            client.call("legacy__echo")


def test_another_protocol_than_ours_is_a_warning_and_nothing_else() -> None:
    wanting = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with Daemon({"legacy": fixture("one")}, environment=wanting) as daemon:
        eventually(lambda: "no spans are sent: http/protobuf is spoken" in daemon.log, what="the warning")
        with daemon.legacy() as client:
            assert "traceparent" not in received(client, "legacy__received", {})
