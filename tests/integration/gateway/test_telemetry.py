"""What an operator sees of the gateway: spans of traced requests, and counters of all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inferway.errors import ModelFailed
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1.worker_service_pb2 import Envelope
from inferway_chassis.process import Process
from inferway_chassis.telemetry import Telemetry
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import predict_request, refusal_of

V1 = "models/echo/versions/1"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


async def test_a_traced_request_has_spans_for_admission_and_queue_and_reaches_the_worker(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """One trace must cross every hop; an untraced request must cost nothing."""
    telemetry, exporter = Telemetry("gateway", "boot"), InMemorySpanExporter()
    telemetry.provider.add_span_processor(SimpleSpanProcessor(exporter))
    process = Process("gateway", "boot", telemetry)
    settings = settings_for(tmp_path, registry.target)
    async with gateway(settings, registry, worker, process) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        await bed.stub.Predict(predict_request(), timeout=5)
        await bed.stub.Predict(predict_request(), timeout=5, metadata=[SAMPLED])

    spans = {span.name: span for span in exporter.get_finished_spans()}
    server_span = spans["PredictionService/Predict"]
    assert set(spans) == {"PredictionService/Predict", "gateway.admission", "gateway.queue"}
    assert {span.parent.span_id for span in spans.values() if span.parent} == {
        0xB7AD6B7169203331,
        server_span.context.span_id,
    }
    assert server_span.attributes is not None
    assert server_span.attributes["inferway.model_version"] == "models/echo/versions/1"
    decision = [server_span.attributes[f"inferway.{name}"] for name in ("arm", "generation", "propensity")]
    assert decision == ["v1", 7, 10_000]
    assert worker.received[0].traceparent == ""
    assert worker.received[1].traceparent == f"00-{TRACE}-{server_span.context.span_id:016x}-01"


async def test_requests_are_counted_by_arm_and_code(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> None:
    """Rollouts are judged by these."""
    process = Process("gateway", "boot", Telemetry("gateway", "boot"))
    settings = settings_for(tmp_path, registry.target, default_timeout_seconds=0.1)
    async with gateway(settings, registry, worker, process) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        await bed.stub.Predict(predict_request(), timeout=5)
        worker.hold()
        await refusal_of(bed.stub.Predict(predict_request()))

    arm = {"endpoint": "echo", "arm": "v1", "version": "models/echo/versions/1"}
    sample = process.telemetry.registry.get_sample_value
    assert sample("inferway_gateway_requests_total", arm | {"code": "OK"}) == 1
    assert sample("inferway_gateway_requests_total", arm | {"code": "DEADLINE_EXCEEDED"}) == 1
    assert sample("inferway_gateway_request_duration_seconds_count", arm) == 1
    assert sample("inferway_gateway_request_duration_seconds_bucket", arm | {"le": "+Inf"}) == 1
    assert sample("inferway_gateway_queue_requests", {"version": "models/echo/versions/1"}) == 0


async def test_an_operator_sees_whom_the_gateway_does_not_trust(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """A worker that is given nothing must not look idle by chance."""
    process = Process("gateway", "boot", Telemetry("gateway", "boot"))
    broken = FakeWorker("w1")
    await broken.start()

    def fail(_: Envelope) -> list[Tensor]:
        raise ModelFailed("broken here")

    broken.compute = fail
    async with gateway(settings_for(tmp_path, registry.target), registry, worker, process) as bed:
        await bed.publish(workers=[worker, broken])
        await worker.until(lambda w: w.links == 1)
        await broken.until(lambda w: w.links == 1)
        await bed.until_health_is("model/echo", serving=True)
        calls = [bed.stub.Predict(predict_request(), timeout=5) for _ in range(40)]
        await asyncio.gather(*calls, return_exceptions=True)
        for _ in range(5):
            await bed.stub.Predict(predict_request(), timeout=5)
        sample = process.telemetry.registry.get_sample_value
        broken_here, here = ({"version": V1, "address": each.address} for each in (broken, worker))

        assert sample("inferway_gateway_breaker", broken_here) == 2
        assert sample("inferway_gateway_ejections_total", broken_here) == 1
        assert sample("inferway_gateway_breaker", here) == 0
        assert sample("inferway_gateway_panic", {"version": V1}) == 0
        assert sample("inferway_gateway_silences_total", {"address": broken.address}) == 0
        assert sample("inferway_gateway_snapshots_refused_total", {}) == 0
    await broken.stop()


async def test_the_worker_learns_who_asks_and_under_which_arm(bed: Bed) -> None:
    """Scheduling, feedback and audit need it there."""
    metadata = [("x-criticality", "sheddable"), ("x-tenant", "acme")]
    response = await bed.stub.Predict(predict_request(), timeout=5, metadata=metadata)
    envelope = bed.worker.received[0]

    assert (envelope.criticality, envelope.tenant) == (4, "acme")
    assert (envelope.endpoint, envelope.arm, envelope.generation) == ("echo", "v1", 7)
    assert envelope.prediction_id == response.prediction_id
    assert 4_000_000 < envelope.remaining_us < 5_000_000
