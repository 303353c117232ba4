"""What the gateway does when workers, models and registries come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from grpc import aio

from inferway.errors import CorruptArtifact, ModelFailed, RunnerCrashed, VersionNotReady
from inferway.foreign.inference.grpc_service_pb2 import ModelReadyRequest, ModelReadyResponse
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1.worker_service_pb2 import (
    LOAD_STATE_FAILED,
    LOAD_STATE_LOADING,
    LOAD_STATE_READY,
    Envelope,
)
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker, echo
from tests.integration.gateway.requests import ROW, predict_request, refusal_of, tensor
from tests.integration.gateway.snapshots import endpoint, snapshot, version

V1, V2 = "models/echo/versions/1", "models/echo/versions/2"


async def test_a_request_in_flight_when_the_worker_dies_is_answered_by_another(bed: Bed) -> None:
    """A kill -9 of one worker must not cost a caller anything."""
    other = FakeWorker("w1")
    await other.start()
    bed.worker.hold()
    call = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=10))
    await bed.worker.until(lambda w: len(w.received) == 1)
    await bed.publish(workers=[bed.worker, other], revision=2)
    await other.until(lambda w: w.links == 1)

    await bed.worker.stop()
    response = await call
    await other.stop()

    assert response.outputs[0].raw == ROW
    assert [envelope.attempt for envelope in other.received] == [2]


async def test_a_request_in_flight_waits_for_the_worker_to_come_back(bed: Bed) -> None:
    """With a single worker, its restart takes seconds and the caller's deadline is the limit."""
    bed.worker.hold()
    call = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=10))
    await bed.worker.until(lambda w: len(w.received) == 1)
    port = int(bed.worker.address.rpartition(":")[2])
    await bed.worker.stop()
    successor = FakeWorker("w0")
    await successor.start(port)

    response = await call
    await successor.stop()

    assert response.outputs[0].raw == ROW


async def test_a_version_that_must_not_run_twice_is_not_retried(bed: Bed) -> None:
    """Repeating is the publisher's decision where a prediction has effects."""
    await bed.publish(version(1, idempotent=False), workers=[bed.worker], revision=2, aliases={"new": V1})
    await until_alias_known(bed)
    bed.worker.hold()
    call = asyncio.ensure_future(refusal_of(bed.stub.Predict(predict_request(), timeout=10)))
    await bed.worker.until(lambda w: len(w.received) == 1)

    await bed.worker.stop()

    assert (await call).reason == "WORKER_LOST"


async def until_alias_known(bed: Bed) -> None:
    """Returns once the snapshot with alias `new` holds."""
    method: aio.UnaryUnaryMultiCallable[ModelReadyRequest, ModelReadyResponse] = bed.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelReady",
        request_serializer=ModelReadyRequest.SerializeToString,
        response_deserializer=ModelReadyResponse.FromString,
    )
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(aio.AioRpcError):
                if (await method(ModelReadyRequest(name="echo", version="new"))).ready:
                    return


async def test_a_request_that_crashes_its_runner_crashes_at_most_two(bed: Bed) -> None:
    """A poison request must not walk through the fleet."""

    def crash(_: Envelope) -> list[Tensor]:
        raise RunnerCrashed("the model's process ended")

    bed.worker.compute = crash

    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))

    again = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))

    assert error.reason == again.reason == "QUARANTINED"
    assert [envelope.attempt for envelope in bed.worker.received] == [1, 2]


async def test_a_refusal_before_compute_is_retried_when_the_worker_is_ready_again(bed: Bed) -> None:
    """A worker that just lost a version refuses; its next hello says when to come back."""
    refused = asyncio.Event()

    def refuse_once(envelope: Envelope) -> Sequence[Tensor]:
        if not refused.is_set():
            refused.set()
            raise VersionNotReady("not yet")
        return echo(envelope)

    bed.worker.compute = refuse_once
    call = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=5))
    await refused.wait()
    await bed.worker.set_state(V1, LOAD_STATE_READY)

    assert (await call).outputs[0].raw == ROW


async def test_an_error_of_the_model_comes_back_as_it_is(bed: Bed) -> None:
    """The worker's own words are the only ones that explain it."""

    def fail(_: Envelope) -> list[Tensor]:
        raise ModelFailed("division by zero in node 7", model="echo", version=1, cause="division")

    bed.worker.compute = fail

    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))

    assert (error.reason, error.message) == ("MODEL_FAILED", "division by zero in node 7")
    assert error.metadata["cause"] == "division"


async def test_large_envelopes_go_beside_the_link(bed: Bed) -> None:
    """Small requests never wait behind a large one."""
    raw = b"\0" * (2 << 20)
    request = predict_request(inputs=[tensor(raw=raw, shape=(len(raw) // 16, 4))])

    response = await bed.stub.Predict(request, timeout=10)

    assert response.outputs[0].raw == raw
    assert len(bed.worker.large) == 1
    assert bed.worker.received == []


async def test_what_fits_no_message_to_a_worker_is_refused_at_once(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """On its way out it would fail the call to the worker, whoever that is. Packed contents may outgrow the request."""
    settings = settings_for(tmp_path, registry.target, max_message_bytes=1 << 20)
    raw = b"\0" * ((1 << 20) - 1024)
    async with gateway(settings, registry, worker) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        request = predict_request(inputs=[tensor(raw=raw, shape=(len(raw) // 16, 4))])

        error = await refusal_of(bed.stub.Predict(request, timeout=5))

    assert (error.reason, worker.large) == ("INVALID_FIELD", [])


async def test_a_caller_that_goes_away_cancels_at_the_worker(bed: Bed) -> None:
    """Work that nobody waits for is not worth doing."""
    bed.worker.hold()
    call = bed.stub.Predict(predict_request(), timeout=10)
    await bed.worker.until(lambda w: len(w.received) == 1)

    call.cancel()
    await bed.worker.until(lambda w: bool(w.cancelled))

    assert bed.worker.cancelled == [bed.worker.received[0].id]


async def test_the_deadline_ends_a_request_that_the_worker_never_answers(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """A caller without a deadline gets the server's."""
    settings = settings_for(tmp_path, registry.target, default_timeout_seconds=0.2)
    async with gateway(settings, registry, worker) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        worker.hold()

        error = await refusal_of(bed.stub.Predict(predict_request()))
        await worker.until(lambda w: bool(w.cancelled))

    assert (error.reason, error.metadata["stage"]) == ("DEADLINE_EXCEEDED", "worker")
    assert 0 < worker.received[0].remaining_us <= 200_000


async def test_requests_beyond_the_credits_wait_in_the_gateway_and_a_full_queue_refuses(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """The backlog is bounded and waits where it can still go elsewhere."""
    worker.credits = 1
    settings = settings_for(tmp_path, registry.target, queue_max_requests=1, links_per_worker=1)
    async with gateway(settings, registry, worker) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        worker.hold()
        bound = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=5))
        await worker.until(lambda w: len(w.received) == 1)
        others = [asyncio.ensure_future(refusal_of(bed.stub.Predict(predict_request(), timeout=5)))]
        queued = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=5))
        done, _ = await asyncio.wait([*others, queued], return_when=asyncio.FIRST_COMPLETED)
        await worker.release()
        await asyncio.wait([bound, *others, queued])

    assert len(worker.received) == 2
    assert len(done) == 1


async def test_work_goes_to_the_worker_with_less_of_it(bed: Bed) -> None:
    """Late binding is what keeps a slow worker from collecting a queue."""
    other = FakeWorker("w1")
    await other.start()
    await bed.publish(workers=[bed.worker, other], revision=2)
    await other.until(lambda w: w.links == 1)
    bed.worker.hold()
    other.hold()
    calls = [asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=5)) for _ in range(8)]
    await bed.worker.until(lambda w: len(w.received) == 4)
    await other.until(lambda w: len(w.received) == 4)
    await bed.worker.release()
    await other.release()

    await asyncio.gather(*calls)
    await other.stop()


async def test_a_draining_worker_gets_nothing_new_and_still_answers(bed: Bed) -> None:
    """Restarting a worker must be invisible."""
    bed.worker.hold()
    call = asyncio.ensure_future(bed.stub.Predict(predict_request(), timeout=10))
    await bed.worker.until(lambda w: len(w.received) == 1)
    bed.worker.drain()
    await bed.until_health_is("model/echo", serving=False)

    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=10))
    await bed.worker.release()

    assert error.reason == "NO_WORKER"
    assert (await call).outputs[0].raw == ROW


async def test_a_version_that_is_still_loading_is_unavailable_at_once(bed: Bed) -> None:
    """Waiting would only hide from the caller that a retry is needed."""
    await bed.worker.set_state(V1, LOAD_STATE_LOADING)
    await bed.until_health_is("model/echo", serving=False)

    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=10))

    assert (error.code, error.reason) == ("UNAVAILABLE", "VERSION_NOT_READY")
    assert error.retryable


async def test_a_version_that_failed_to_load_everywhere_says_why(bed: Bed) -> None:
    """The cause must reach the person who sees only the client's side."""
    await bed.worker.set_state(V1, LOAD_STATE_FAILED, CorruptArtifact("saved_model.pb is cut short"))
    await bed.until_health_is("model/echo", serving=False)

    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))

    assert error.reason == "VERSION_LOAD_FAILED"
    assert "saved_model.pb is cut short" in error.message
    assert error.metadata["cause"] == "saved_model.pb is cut short"


async def test_an_unloaded_version_is_refused_until_it_is_restored(bed: Bed) -> None:
    """The endpoint keeps its arm, so the caller learns what happened to it."""
    await bed.publish(version(1, unloaded=True, wanted=False), revision=2)
    await bed.until_health_is("model/echo", serving=False)
    error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))
    await bed.publish(version(1), revision=3)
    await bed.until_health_is("model/echo", serving=True)

    assert error.reason == "VERSION_UNLOADED"
    assert (await bed.stub.Predict(predict_request(), timeout=5)).outputs


async def test_a_deleted_endpoint_stops_serving(bed: Bed) -> None:
    """Whoever watches its health must hear that it is gone, not see it healthy for ever."""
    await bed.until_health_is("model/echo", serving=True)
    await bed.publish(version(1), endpoints=[endpoint("other", arms={V1: 10_000})], revision=2)

    await bed.until_health_is("model/other", serving=True)
    await bed.until_health_is("model/echo", serving=False)


async def test_a_pinned_version_that_nothing_names_says_so(bed: Bed) -> None:
    """Otherwise one would wait for a load that never comes."""
    await bed.publish(version(1), version(2, wanted=False), aliases={"new": V1}, revision=2)
    await until_alias_known(bed)

    error = await refusal_of(bed.stub.Predict(predict_request(target=pb.Target(endpoint="echo", version=2)), timeout=5))

    assert (error.code, error.reason, error.retryable) == ("FAILED_PRECONDITION", "VERSION_NOT_SERVED", False)
    assert "no arm, alias or policy names it" in error.message


async def test_numbers_and_aliases_pin_a_version(bed: Bed) -> None:
    """Both are what `model_version` takes."""
    await bed.worker.set_state(V2, LOAD_STATE_READY)
    await bed.worker.grant(V2)
    await bed.publish(version(1), version(2), aliases={"new": V2}, revision=2)
    await until_alias_known(bed)

    pinned = await bed.stub.Predict(predict_request(target=pb.Target(endpoint="echo", alias="new")), timeout=5)
    unpinned = await bed.stub.Predict(predict_request(), timeout=5)

    assert (pinned.model_version, unpinned.model_version) == (V2, V1)


async def test_predictions_go_on_without_the_registry_and_after_a_restart_too(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """Traffic never waits for the control plane."""
    settings = settings_for(tmp_path, registry.target)
    async with gateway(settings, registry, worker) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        await registry.stop()
        before = await bed.stub.Predict(predict_request(), timeout=5)
    async with gateway(settings, registry, worker) as bed:
        await bed.until_health_is("model/echo", serving=True)
        after = await bed.stub.Predict(predict_request(), timeout=5)

    assert before.outputs[0].raw == after.outputs[0].raw == ROW


async def test_a_snapshot_without_workers_keeps_the_links_that_are_alive(bed: Bed) -> None:
    """A registry that has just restarted knows no worker yet; that must not cost a request."""
    await bed.registry.publish(snapshot(versions=[version()], aliases={"new": V1}, workers=[], revision=2))
    await until_alias_known(bed)

    assert (await bed.stub.Predict(predict_request(), timeout=5)).outputs


async def test_a_snapshot_that_contradicts_itself_is_refused_and_the_last_good_one_stays(bed: Bed) -> None:
    """A fault of the control plane must not become one of the data plane."""
    await bed.publish(version(1), endpoints=[endpoint(arms={"models/echo/versions/9": 10_000})], revision=2)
    await bed.publish(version(1), endpoints=[endpoint(arms={V1: 9_999})], revision=3)
    await bed.publish(version(1), aliases={"new": V1}, revision=4)
    await until_alias_known(bed)

    assert (await bed.stub.Predict(predict_request(), timeout=5)).model_version == V1


async def test_before_the_first_snapshot_requests_are_unavailable(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """A new gateway says that it is not ready rather than that a model does not exist."""
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as bed:
        await bed.until_health_is("", serving=False)

        error = await refusal_of(bed.stub.Predict(predict_request(), timeout=5))

    assert error.reason == "NOT_SYNCHRONISED"
