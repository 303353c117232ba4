"""The client's span and the trace context it sends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from inferway_client import Client
from inferway_client.testing import FakeGateway
from tests.unit.client.prediction_suite import ROWS
from tests.unit.client.test_fake_gateway import AFFINE

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A fake gateway with the suite's model."""
    async with FakeGateway({"affine": AFFINE}) as gateway:
        yield gateway


async def test_an_explicit_traceparent_is_continued(gateway: FakeGateway):
    """Programs without OpenTelemetry take part in a trace as well."""
    async with Client(gateway.target) as client:
        await client.predict("affine", {"x": ROWS}, traceparent=TRACEPARENT)
    assert gateway.calls[0]["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]


async def test_the_current_span_is_the_parent(gateway: FakeGateway):
    """One trace crosses the caller and every hop."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("caller") as span:
        async with Client(gateway.target) as client:
            await client.predict("affine", {"x": ROWS})
            async with client.stream("affine"):
                pass
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    assert [call["traceparent"].split("-")[1] for call in gateway.calls] == [trace_id, trace_id]


async def test_nothing_is_sent_outside_a_trace(gateway: FakeGateway):
    """Then the server decides whether to trace."""
    async with Client(gateway.target) as client:
        await client.predict("affine", {"x": ROWS})
    assert "traceparent" not in gateway.calls[0]


def test_the_client_works_without_opentelemetry():
    """It depends on grpcio, protobuf and numpy only."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'opentelemetry' else find(name, package)\n"
        "from inferway_client.tracing import client_span\n"
        f"with client_span('Predict', 'digits', '{TRACEPARENT}') as metadata: print(dict(metadata)['traceparent'])\n"
        "with client_span('Predict', 'digits', None) as metadata: print(metadata)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert output.stdout.split() == [TRACEPARENT, "()"]
