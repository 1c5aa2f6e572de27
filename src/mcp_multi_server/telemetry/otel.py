"""Spans by OpenTelemetry's SDK, sent over OTLP/HTTP. Importing this imports the SDK (the extra `otel`).

The SDK reads its environment variables itself: endpoint, headers, sampler, resource. Its global tracer is left alone.
"""

from __future__ import annotations

import os
import time

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..core.jsonrpc import Members, encode, text
from ..core.spans import Operation, attributes, error_attributes, span_name

NAME = "mcp-multi-server"
PARENT, STATE = "traceparent", "tracestate"
"""Reserved in `_meta` for W3C Trace Context (basic/index, "_meta")."""

_W3C = TraceContextTextMapPropagator()


class OtelTracer:
    """Makes spans by OpenTelemetry's SDK, which sends them in a thread of its own.

    `tracing.tracer` makes it and closes it.
    """

    def __init__(self) -> None:
        own = Resource({"service.name": NAME, "service.version": __version__})
        named = OTELResourceDetector().detect()  # what the environment says, without the machine's own details
        if os.environ.get("OTEL_SERVICE_NAME"):
            named = named.merge(Resource({"service.name": os.environ["OTEL_SERVICE_NAME"]}))
        # `close` ends it, with a deadline; at exit there is none.
        self._provider = TracerProvider(resource=own.merge(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(NAME, __version__)

    def begin(self, operation: Operation, meta: Members | None, *, seconds_ago: float) -> OtelSpan:
        """The span of a request that came in so many seconds ago, below the one that its `_meta` names."""
        span = self._tracer.start_span(
            span_name(operation),
            context=_parent(meta),
            kind=SpanKind.CLIENT,
            attributes=attributes(operation),
            start_time=time.time_ns() - int(seconds_ago * 1e9),
        )
        return OtelSpan(span, meta)

    def close(self) -> None:
        """Send what waits; takes as long as the network does."""
        self._provider.shutdown()


class OtelSpan:
    """A request that is under way. `meta`: what to send as its `_meta`, the client's with this span as the parent."""

    __slots__ = ("_span", "meta")

    def __init__(self, span: SdkSpan, meta: Members | None) -> None:
        self._span = span
        self.meta = dict(meta) if meta else {}
        self.meta.pop(STATE, None)  # belongs to the parent that it came with
        carrier: dict[str, str] = {}
        # An empty context: the current one of this task may hold somebody else's span or baggage.
        _W3C.inject(carrier, set_span_in_context(span, Context()))
        self.meta |= {name: msgspec.Raw(encode(said)) for name, said in carrier.items()}

    def end(self, error: str) -> None:
        """The request was answered, or given up; `error` is "" for success."""
        if error:
            self._span.set_attributes(error_attributes(error))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _parent(meta: Members | None) -> Context:
    """The context that the client's `_meta` speaks of; an empty one begins a new trace."""
    said = {name: text(meta.get(name)) for name in (PARENT, STATE)} if meta else {}
    return _W3C.extract({name: value for name, value in said.items() if value is not None}, Context())
