"""Who gets which arm, and what answers and workers are told of that; on both transports and at all doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from grpc import aio

from inferway.errors import ModelFailed
from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import Endpoint, MatchRule, RolloutDirective
from inferway.registry.v1.rollouts_pb2 import HeaderMatch
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2
from inferway_gateway.routing import bucket_of
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import ROW, predict_request, tensor
from tests.integration.gateway.snapshots import endpoint, version

V1, V2 = "models/echo/versions/1", "models/echo/versions/2"
ROLLOUT = RolloutDirective(rollout="endpoints/echo/rollouts/1", stable_arm="v1", candidate_arm="v2")
Headers = Sequence[tuple[str, str]]
Ask = Callable[[Bed, Headers], Awaitable[str]]
"""Asks at a door with these headers; returns the version that answered."""
UNITS = [f"user-{number}" for number in range(40)]
CANDIDATES = {unit for unit in UNITS if bucket_of("salt", unit) < 5_000}
OF_CANDIDATE, OF_STABLE = min(CANDIDATES), min(set(UNITS) - CANDIDATES)


def split(weight: int = 5_000, rollout: RolloutDirective | None = ROLLOUT, rules: Sequence[MatchRule] = ()) -> Endpoint:
    """Version 2 has so much of `echo`."""
    made = endpoint(arms={V2: weight, V1: 10_000 - weight})
    made.match_rules.extend(rules)
    if rollout is not None:
        made.rollout.CopyFrom(rollout)
    return made


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    """It has both versions."""
    fake = FakeWorker(versions=(V1, V2))
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture(params=["grpcio", "native"])
async def bed(
    request: pytest.FixtureRequest, tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> AsyncIterator[Bed]:
    """A gateway in the middle of a rollout, on each transport in turn."""
    settings = settings_for(tmp_path, registry.target, transport=request.param)
    async with gateway(settings, registry, worker) as running_bed:
        await running_bed.publish(version(1), version(2), endpoints=[split()])
        await running_bed.until_health_is("model/echo", serving=True)
        yield running_bed


async def publish(bed: Bed, changed: Endpoint) -> None:
    """Returns when the gateway routes by the `changed` endpoint."""
    changed.generation = 8
    await bed.publish(version(1), version(2), endpoints=[changed, endpoint("seen", arms={V1: 10_000})], revision=2)
    await bed.until_health_is("model/seen", serving=True)


def metadata_of(trailing: object) -> dict[str, str]:
    """What was said of the decision."""
    pairs = cast("Sequence[tuple[str, str]]", trailing or ())
    return {key.removeprefix("x-inferway-"): value for key, value in pairs if key.startswith("x-inferway-")}


def inference(**fields: Any) -> oip.ModelInferRequest:
    """A request of the Open Inference Protocol."""
    x = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    return oip.ModelInferRequest(model_name="echo", inputs=[x], raw_input_contents=[ROW], **fields)


def infer(bed: Bed, request: oip.ModelInferRequest, headers: Headers = ()) -> Any:
    """The call."""
    method = bed.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    return method(request, timeout=5, metadata=aio.Metadata(*headers))


async def at_predict(bed: Bed, headers: Headers) -> str:
    """Our own door."""
    return (await bed.stub.Predict(predict_request(), timeout=5, metadata=list(headers))).model_version


async def at_stream(bed: Bed, headers: Headers) -> str:
    """A stream of ours, by its opening."""
    call = bed.stub.StreamPredict(timeout=5, metadata=list(headers))
    await call.write(pb.StreamPredictRequest(open=pb.StreamOpen(target=pb.Target(endpoint="echo"))))
    await call.write(pb.StreamPredictRequest(item=pb.StreamItem(id=1, inputs=[tensor()])))
    await call.done_writing()
    return await anext(answer.result.prediction.model_version async for answer in call if answer.HasField("result"))


async def at_infer(bed: Bed, headers: Headers) -> str:
    """The open protocol."""
    return f"models/echo/versions/{(await infer(bed, inference(), headers)).model_version}"


async def at_stream_infer(bed: Bed, headers: Headers) -> str:
    """A stream of the open protocol."""
    method = bed.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelStreamInferResponse.FromString,
    )
    call = method(iter([inference()]), timeout=5, metadata=aio.Metadata(*headers))
    answers = [answer.infer_response.model_version async for answer in call]
    return f"models/echo/versions/{answers[0]}"


DOORS: Sequence[Ask] = (at_predict, at_stream, at_infer, at_stream_infer)


async def test_every_unit_gets_the_arm_of_its_bucket_again_and_again(bed: Bed):
    """Whoever was sent to the candidate stays there."""
    for _ in range(2):
        calls = [bed.stub.Predict(predict_request(affinity_key=unit), timeout=5) for unit in UNITS]
        answers = await asyncio.gather(*calls)

        assert {unit for unit, answer in zip(UNITS, answers, strict=True) if answer.arm == "v2"} == CANDIDATES


@pytest.mark.parametrize("ask", DOORS)
async def test_a_header_may_name_the_unit_at_every_door(bed: Bed, ask: Ask):
    """Proxies set headers; they do not write messages."""
    assert await ask(bed, [("x-affinity-key", OF_CANDIDATE)]) == V2
    assert await ask(bed, [("x-affinity-key", OF_STABLE)]) == V1


async def test_the_message_is_stronger_than_the_header(bed: Bed):
    """Who says it twice means the nearer."""
    headers = (("x-affinity-key", OF_STABLE),)
    ours = bed.stub.Predict(predict_request(affinity_key=OF_CANDIDATE), timeout=5, metadata=list(headers))
    request = inference()
    request.parameters["inferway_affinity_key"].string_param = OF_CANDIDATE

    assert (await ours).model_version == V2
    assert (await infer(bed, request, headers)).model_version == "2"


@pytest.mark.parametrize("ask", DOORS)
async def test_a_rule_sends_testers_to_an_arm_without_weight_at_every_door(bed: Bed, ask: Ask):
    """They try the candidate before anybody else does."""
    rule = MatchRule(match=HeaderMatch(header="x-ring", prefix="test"), arm="v2")
    await publish(bed, split(0, rules=[rule]))

    assert await ask(bed, [("x-ring", "testers")]) == V2
    assert await ask(bed, [("x-ring", "users")]) == V1


async def test_answers_say_what_was_decided(bed: Bed):
    """Arm, version, weights and chance: what it takes to learn from answers later."""
    ours = bed.stub.Predict(predict_request(affinity_key=OF_CANDIDATE), timeout=5)
    theirs = infer(bed, inference(), [("x-affinity-key", OF_STABLE)])
    pinned = bed.stub.Predict(predict_request(target=pb.Target(endpoint="echo", version=1)), timeout=5)
    await asyncio.gather(ours, theirs, pinned)

    decided = {"arm": "v2", "version": V2, "generation": "7", "propensity": "5000"}
    assert metadata_of(await ours.trailing_metadata()) == decided
    assert metadata_of(await theirs.trailing_metadata()) == decided | {"arm": "v1", "version": V1}
    assert metadata_of(await pinned.trailing_metadata()) == decided | {"arm": "", "version": V1, "propensity": "0"}


async def test_an_error_says_whose_it_is(bed: Bed):
    """The first question of whoever meets one during a rollout."""

    def fail(_: worker_service_pb2.Envelope) -> Sequence[Tensor]:
        raise ModelFailed("broken", cause="test")

    bed.worker.compute = fail
    with pytest.raises(aio.AioRpcError) as caught:
        await bed.stub.Predict(predict_request(affinity_key=OF_CANDIDATE), timeout=5)

    assert metadata_of(caught.value.trailing_metadata())["arm"] == "v2"
    assert "grpc-status-details-bin" in dict(cast("Sequence[tuple[str, bytes]]", caught.value.trailing_metadata()))


async def test_an_endpoint_with_one_arm_and_no_rollout_says_nothing(bed: Bed):
    """Most calls are such; they cost nothing more."""
    await publish(bed, split(0, rollout=None))
    call = bed.stub.Predict(predict_request(), timeout=5)
    await call

    assert metadata_of(await call.trailing_metadata()) == {}


async def test_the_worker_is_told_the_chance_of_the_arm(bed: Bed):
    """What it records must be worth learning from."""
    await at_predict(bed, [("x-affinity-key", OF_CANDIDATE)])
    await bed.stub.Predict(predict_request(target=pb.Target(endpoint="echo", version=2)), timeout=5)
    told = [(sent.arm, sent.generation, sent.propensity_basis_points) for sent in bed.worker.received]

    assert told == [("v2", 7, 5_000), ("", 7, 0)]


async def test_gateways_agree_and_go_on_agreeing_after_a_restart_without_the_registry(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
):
    """A user who comes to another gateway, or back after a crash, must not change sides."""

    async def arms(bed: Bed) -> list[str]:
        await bed.until_health_is("model/echo", serving=True)
        return [(await bed.stub.Predict(predict_request(affinity_key=unit), timeout=5)).arm for unit in UNITS]

    first, second = (settings_for(tmp_path / name, registry.target) for name in ("one", "other"))
    async with gateway(first, registry, worker) as one, gateway(second, registry, worker) as other:
        await one.publish(version(1), version(2), endpoints=[split()])
        agreed = await arms(one)
        assert await arms(other) == agreed
    await registry.stop()
    async with gateway(second, registry, worker) as restarted:
        assert await arms(restarted) == agreed

    assert {unit for unit, arm in zip(UNITS, agreed, strict=True) if arm == "v2"} == CANDIDATES


async def test_weights_change_for_calls_and_open_streams_alike(bed: Bed):
    """From one answer to the next, with no call failing."""
    call = bed.stub.StreamPredict(timeout=5)
    opening = pb.StreamOpen(target=pb.Target(endpoint="echo"), affinity_key=OF_CANDIDATE)
    await call.write(pb.StreamPredictRequest(open=opening))
    await call.write(pb.StreamPredictRequest(item=pb.StreamItem(id=1, inputs=[tensor()])))
    results = (answer.result.prediction.arm async for answer in call if answer.HasField("result"))
    before = [await anext(results), (await bed.stub.Predict(predict_request(affinity_key=OF_CANDIDATE))).arm]
    await publish(bed, split(0))
    await call.write(pb.StreamPredictRequest(item=pb.StreamItem(id=2, inputs=[tensor()])))
    after = [await anext(results), (await bed.stub.Predict(predict_request(affinity_key=OF_CANDIDATE))).arm]
    call.cancel()

    assert (before, after) == (["v2", "v2"], ["v1", "v1"])
