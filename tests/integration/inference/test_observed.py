"""What can be seen of a worker: traces down into the runner, metrics, statistics."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_chassis.telemetry import Telemetry
from inferway_chassis.testing import serving
from inferway_inference.app import running
from inferway_inference.settings import InferenceSettings
from tests.integration.inference.conftest import fake_model, runners, worker_settings
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor

V1 = "models/double/versions/1"
TRACES = [f"{number:032x}" for number in (1, 2, 3)]
GATEWAY_SPAN = "00f067aa0ba902b7"
X = np.ones((1, 4), "f4")


@pytest.fixture
def telemetry() -> Telemetry:
    """Of the worker's process."""
    return Telemetry("inference", "boot")


@pytest.fixture
def spans(telemetry: Telemetry) -> InMemorySpanExporter:
    """Every span that the worker ends."""
    exporter = InMemorySpanExporter()
    telemetry.provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
async def server(registry: FakeRegistry, telemetry: Telemetry, tmp_path: Any) -> AsyncIterator[Server]:
    """A worker with a fake model."""
    files = fake_model()
    await registry.put(model_version(V1, files), files)
    settings = InferenceSettings(**worker_settings(registry, tmp_path))
    async with serving(running, settings, "inference", Process("inference", "boot", telemetry)) as server:
        yield server


@pytest.fixture
async def gateway(server: Server) -> AsyncIterator[GatewaySide]:
    """A link, once the model is ready."""
    async with GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        yield gateway


def by_name(spans: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    """The worker's own spans; those of its rpcs belong to the chassis."""
    found: dict[str, list[ReadableSpan]] = {}
    for span in spans.get_finished_spans():
        if span.name.startswith(("worker.", "runner.")):
            found.setdefault(span.name, []).append(span)
    return found


def hexadecimal(span: ReadableSpan) -> str:
    """The trace that a span is part of."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


async def test_a_trace_goes_through_the_batch_into_the_runner(gateway: GatewaySide, spans: InMemorySpanExporter):
    """Where the time went must be visible down to the process that spent it."""
    traced = envelope(
        1, V1, tensor("x", X), traceparent=f"00-{TRACES[0]}-{GATEWAY_SPAN}-01", prediction_id="p1", endpoint="double"
    )
    await gateway.call(traced)
    found = by_name(spans)
    [execute], [batch], [compute] = found["worker.execute"], found["worker.batch"], found["runner.compute"]

    assert {hexadecimal(span) for span in (execute, batch, compute)} == {TRACES[0]}
    assert execute.parent is not None
    assert f"{execute.parent.span_id:016x}" == GATEWAY_SPAN
    assert batch.parent == execute.context
    assert compute.parent == batch.context
    assert execute.attributes is not None
    assert execute.attributes["inferway.prediction_id"] == "p1"
    assert compute.attributes is not None
    assert compute.attributes["process.pid"] == runners()[0].pid != os.getpid()
    assert batch.start_time is not None
    assert batch.start_time <= (compute.start_time or 0) <= (compute.end_time or 0) <= (batch.end_time or 0)


async def test_a_batch_is_linked_to_every_traced_request_in_it(gateway: GatewaySide, spans: InMemorySpanExporter):
    """One computation belongs to many traces, and each must lead there."""
    [runner] = runners()
    runner.suspend()
    await gateway.send(envelope(9, V1, tensor("x", X)))
    await gateway.send(
        *(envelope(n, V1, tensor("x", X), traceparent=f"00-{TRACES[n]}-{GATEWAY_SPAN}-01") for n in range(3)),
        envelope(10, V1, tensor("x", X)),
    )
    await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    runner.resume()
    await gateway.answers_to((0, 1, 2, 9, 10))
    found = by_name(spans)
    [batch] = found["worker.batch"]

    assert {link.context.span_id for link in batch.links} == {
        span.context.span_id for span in found["worker.execute"] if span.context is not None
    }
    assert sorted(map(hexadecimal, found["worker.execute"])) == TRACES


async def test_requests_without_a_trace_make_no_span(gateway: GatewaySide, spans: InMemorySpanExporter):
    """Tracing costs nothing where it is off."""
    await gateway.call(*(envelope(n, V1, tensor("x", X)) for n in range(5)))

    assert by_name(spans) == {}


async def test_failed_requests_say_so_in_their_span(gateway: GatewaySide, spans: InMemorySpanExporter):
    """An error without its cause is the start of a long evening."""
    poison = np.full((1, 4), 666, "f4")
    await gateway.call(envelope(1, V1, tensor("x", poison), traceparent=f"00-{TRACES[0]}-{GATEWAY_SPAN}-01"))
    [execute] = by_name(spans)["worker.execute"]

    assert execute.attributes is not None
    assert execute.attributes["inferway.error_reason"] == "MODEL_FAILED"


async def test_requests_batches_and_loads_are_counted(gateway: GatewaySide, telemetry: Telemetry):
    """What alerts and dashboards stand on."""
    await gateway.call(*(envelope(n, V1, tensor("x", X)) for n in range(1, 4)))
    await gateway.call(envelope(4, V1, tensor("x", np.full((1, 4), 666, "f4"))))

    def sample(name: str, **labels: str) -> float | None:
        return telemetry.registry.get_sample_value(name, labels)

    own = {"model": "double", "version": "1"}
    assert sample("inferway_worker_requests_total", **own, code="OK") == 3
    assert sample("inferway_worker_requests_total", **own, code="INTERNAL") == 1
    assert sample("inferway_worker_request_duration_seconds_count", **own) == 4
    assert sample("inferway_worker_batch_rows_sum", **own) == 3
    assert sample("inferway_worker_loads_total", result="success") == 1
    assert (sample("inferway_worker_runner_memory_bytes", **own) or 0) > 1_000_000


async def test_statistics_have_triton_s_meaning(gateway: GatewaySide):
    """Tools that know Triton read them through the gateway."""
    for n in range(1, 4):
        await gateway.call(envelope(n, V1, tensor("x", np.ones((2, 4), "f4"))))
    await gateway.call(envelope(9, V1, tensor("x", np.full((1, 4), 666, "f4"))))
    [found] = (await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())).statistics

    assert (found.success_count, found.failure_count, found.row_count, found.execution_count) == (3, 1, 6, 3)
    assert [(batch.rows, batch.count) for batch in found.batches] == [(2, 3)]
    assert found.success_ns >= found.queue_ns + found.compute_infer_ns
    assert found.last_inference_ms > 1_700_000_000_000
