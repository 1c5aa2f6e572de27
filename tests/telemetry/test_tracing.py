"""Whether spans are wanted, and what is loaded for them."""

import os
import subprocess
import sys

import anyio
import pytest

from mcp_multi_server.core.events import DaemonWarning, Event
from mcp_multi_server.telemetry import tracing

pytestmark = pytest.mark.anyio

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (HERE, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"}, False),
        (HERE | {"OTEL_SDK_DISABLED": "True"}, False),
        (HERE | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (HERE | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
async def test_spans_are_wanted_where_the_environment_says_who_takes_them(
    environ: dict[str, str], wanted: bool
) -> None:
    assert tracing.wanted(environ) is wanted


async def test_without_its_packages_there_is_a_warning_that_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "mcp_multi_server.telemetry.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not installed
    events: list[Event] = []
    with anyio.fail_after(20):
        async with tracing.tracer(HERE, tell=events.append) as tracer:
            assert tracer is None
    (warning,) = events
    assert isinstance(warning, DaemonWarning)
    assert "mcp-multi-server[otel]" in warning.message


async def test_nothing_of_it_is_imported_where_no_spans_are_wanted() -> None:
    script = (
        "import sys\n"
        "import mcp_multi_server.daemon\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    with anyio.fail_after(30):
        await anyio.run_process([sys.executable, "-c", script], env=dict(os.environ), stderr=subprocess.STDOUT)


async def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_multi_server.telemetry.otel import OtelTracer

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "fleet")
    tracer = OtelTracer()
    try:
        named = tracer._provider.resource.attributes  # what is sent beside each span, and nowhere else to be seen
        assert (named["service.name"], named["team"]) == ("fleet", "b")
    finally:
        tracer.close()
