"""One trace crosses client, gateway, worker and runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from grpc import aio

from tests.testbed.calls import model_infer, tiny_request
from tests.testbed.otlp_receiver import OtlpReceiver
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
HOPS = {
    "GRPCInferenceService/ModelInfer": "inferway-gateway",
    "gateway.admission": "inferway-gateway",
    "gateway.queue": "inferway-gateway",
    "worker.execute": "inferway-inference",
    "runner.compute": "inferway-inference",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def traced(receiver: OtlpReceiver, saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        service: {f"INFERWAY_{service.upper()}_OTLP_ENDPOINT": receiver.target}
        for service in ("gateway", "inference", "registry")
    }
    with Stack(tmp_path_factory.mktemp("traced"), settings=settings) as running:
        publish(running.registry.target, "tiny", saved_models / "tiny")
        running.gateway.wait_serving("model/tiny")
        yield running


async def call(stack: Stack, flags: str, trace_id: str) -> None:
    async with aio.insecure_channel(stack.gateway.target) as channel:
        metadata = (("traceparent", f"00-{trace_id}-{PARENT_ID}-{flags}"),)
        await model_infer(channel)(tiny_request(np.ones((1, 32))), metadata=metadata, timeout=10)


async def test_one_request_is_one_trace_across_every_hop(traced: Stack, receiver: OtlpReceiver) -> None:
    """Where the time went can be seen without guessing."""
    await call(traced, "01", TRACE_ID)
    spans = {span.name: span for span in receiver.wait_for(TRACE_ID, set(HOPS))}

    for name, service in HOPS.items():
        assert spans[name].service.startswith(service)
        assert spans[name].end_ns > spans[name].start_ns
    known = {span.span_id for span in spans.values()} | {PARENT_ID}
    assert {span.parent_id for span in spans.values()} <= known
    assert spans["GRPCInferenceService/ModelInfer"].parent_id == PARENT_ID
    assert spans["worker.execute"].attributes["inferway.model_version"] == "models/tiny/versions/1"


async def test_a_batch_links_the_requests_in_it(traced: Stack, receiver: OtlpReceiver) -> None:
    """A batch belongs to many traces, so it is linked and not nested."""
    trace_id = "1" * 32
    await call(traced, "01", trace_id)
    spans = {span.name: span for span in receiver.wait_for(trace_id, {"worker.execute", "worker.batch"})}

    assert spans["worker.execute"].span_id in spans["worker.batch"].links


async def test_a_request_that_is_not_sampled_makes_no_span(traced: Stack, receiver: OtlpReceiver) -> None:
    """Tracing costs nothing where it is off: the caller's decision holds on every hop."""
    await call(traced, "00", "2" * 32)
    await call(traced, "01", "3" * 32)
    receiver.wait_for("3" * 32, set(HOPS))

    assert not [span for span in receiver._spans if span.trace_id == "2" * 32]
