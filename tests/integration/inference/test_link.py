"""The link as a contract: hello, credits, cancel, drain, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode, aio
from numpy.typing import NDArray

from inferway import errors
from inferway.status import from_status
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway.worker.v1.worker_service_pb2_grpc import WorkerServiceStub
from inferway_chassis.channel import open_channel
from inferway_chassis.server import Server
from tests.integration.inference.conftest import Worker, fake_model, runners
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of

V1 = "models/double/versions/1"
BATCH_ROWS = 8


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of the fake model's width."""
    return np.random.default_rng(seed).random((count, 4)).astype("f4")


@pytest.fixture
async def server(registry: FakeRegistry, worker: Worker) -> AsyncIterator[Server]:
    """A worker with one fake model and small batches, which are computed one at a time."""
    files = fake_model()
    await registry.put(model_version(V1, files), files)
    async with worker(max_batch_rows=BATCH_ROWS, warmup_seconds=0) as server:
        yield server


@pytest.fixture
async def gateway(server: Server) -> AsyncIterator[GatewaySide]:
    """A link, once the model is ready."""
    async with GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        yield gateway


async def test_credits_are_two_batches_and_come_back_with_answers(gateway: GatewaySide):
    """They are what keeps the backlog in the gateway, where it can still go elsewhere."""
    await gateway.until(lambda: gateway.credits.get(V1, 0) > 0)
    window = gateway.credits[V1]
    assert window == 2 * BATCH_ROWS
    await gateway.call(*(envelope(n, V1, tensor("x", rows(2, n))) for n in range(1, window // 2 + 1)))

    await gateway.until(lambda: gateway.credits[V1] >= window + window * 3 // 4)
    assert gateway.credits[V1] <= 2 * window
    assert gateway.speeds[V1].rows_per_second > 0, "told with the first grant"


async def test_links_share_the_credits(server: Server, gateway: GatewaySide):
    """Many gateways must not promise themselves more than one worker can do."""
    async with GatewaySide(f"127.0.0.1:{server.port}") as second:
        await gateway.until(lambda: gateway.credits.get(V1, 0) > 0)
        await second.until(lambda: second.credits.get(V1, 0) > 0)
        assert second.credits[V1] == gateway.credits[V1] // 2


async def test_refused_envelopes_give_their_credits_back(gateway: GatewaySide):
    """A gateway that sends nonsense would otherwise run dry."""
    await gateway.until(lambda: gateway.credits.get(V1, 0) > 0)
    window = gateway.credits[V1]
    wrong = [envelope(n, V1, tensor("y", rows(2))) for n in range(1, window // 2 + 1)]
    answers = await gateway.call(*wrong)

    assert {type(from_status(answer.error)) for answer in answers} == {errors.UnknownInput}
    await gateway.until(lambda: gateway.credits[V1] == 2 * window)


async def test_answers_of_a_batch_come_in_one_frame(gateway: GatewaySide):
    """Messages cost, bytes do not."""
    [runner] = runners()
    runner.suspend()
    await gateway.send(envelope(1, V1, tensor("x", rows(1))))
    await gateway.send(*(envelope(n, V1, tensor("x", rows(1))) for n in range(2, 10)))
    await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    runner.resume()
    await gateway.answers_to(range(1, 10))

    assert len(gateway.frames) <= 3


async def test_a_cancelled_request_is_not_computed_nor_answered(gateway: GatewaySide):
    """Work for nobody is what an overloaded worker can least afford."""
    [runner] = runners()
    runner.suspend()
    await gateway.send(*(envelope(n, V1, tensor("x", rows(1))) for n in (1, 2, 3)))
    await gateway.send(*(envelope(n, V1, tensor("x", rows(8))) for n in (4, 5)))
    await gateway.cancel(5)
    await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    runner.resume()
    await gateway.answers_to((1, 2, 3, 4))
    [last] = await gateway.call(envelope(6, V1, tensor("x", rows(1))))

    assert np.array_equal(values_of(last), rows(1) * 2)
    assert 5 not in gateway.answers
    status = await gateway.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    assert status.statistics[0].row_count == 3 + 8 + 1


async def test_a_request_that_waits_too_long_is_told_so(gateway: GatewaySide):
    """It is dropped before compute, and the answer says where the time went."""
    [runner] = runners()
    runner.suspend()
    await gateway.send(envelope(1, V1, tensor("x", rows(1))))
    await gateway.send(envelope(2, V1, tensor("x", rows(8)), remaining_us=20_000))
    await gateway.send(envelope(3, V1, tensor("x", rows(8)), remaining_us=20_000))
    [late] = await gateway.answers_to([3])
    runner.resume()

    with pytest.raises(errors.DeadlineExceeded) as caught:
        values_of(late)
    assert caught.value.metadata == {"stage": "worker"}


async def test_a_link_that_breaks_takes_its_requests_with_it(server: Server, gateway: GatewaySide):
    """Nobody is there to read the answers."""
    [runner] = runners()
    runner.suspend()
    async with GatewaySide(f"127.0.0.1:{server.port}") as broken:
        await broken.send(*(envelope(n, V1, tensor("x", rows(8))) for n in range(1, 6)))
        await broken.stub.GetWorkerStatus(pb.GetWorkerStatusRequest())
    await gateway.send(envelope(1, V1, tensor("x", rows(1))))
    runner.resume()
    [answer] = await gateway.answers_to([1])

    assert np.array_equal(values_of(answer), rows(1) * 2)


async def test_half_close_ends_the_link_after_the_last_answer(gateway: GatewaySide):
    """A gateway that leaves in order gets what it asked for."""
    await gateway.send(*(envelope(n, V1, tensor("x", rows(1))) for n in (1, 2)))
    await gateway.half_close()
    await gateway.answers_to((1, 2))

    await gateway.until(lambda: gateway.ended == "ended")


async def test_a_draining_worker_says_so_answers_and_ends_the_link(server: Server, gateway: GatewaySide):
    """Restarts must not cost anybody an answer."""
    await gateway.send(envelope(1, V1, tensor("x", rows(1))))
    await server.drain()
    await gateway.until(lambda: gateway.drains == 1)
    [late] = await gateway.call(envelope(2, V1, tensor("x", rows(1))))

    assert np.array_equal(values_of(late), rows(1) * 2), "it was on its way when the drain began"
    await gateway.until(lambda: gateway.ended == "ended")


async def test_a_second_envelope_of_the_same_id_ends_the_link(gateway: GatewaySide):
    """Its answer could not be told from the first one's."""
    [runner] = runners()
    runner.suspend()
    await gateway.send(envelope(1, V1, tensor("x", rows(1))), envelope(1, V1, tensor("x", rows(1))))
    await gateway.until(lambda: gateway.ended is not None)
    runner.resume()

    assert isinstance(gateway.ended, aio.AioRpcError)
    assert gateway.ended.code() is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (pb.LinkRequest(cancel=pb.Cancel(ids=[1])), StatusCode.INVALID_ARGUMENT),
        (pb.LinkRequest(), StatusCode.INVALID_ARGUMENT),
        (pb.LinkRequest(hello=pb.GatewayHello(protocol_version=2)), StatusCode.UNIMPLEMENTED),
    ],
)
async def test_a_link_begins_with_a_hello_that_is_understood(server: Server, first: pb.LinkRequest, code: StatusCode):
    """Versions of the protocol are negotiated here or never."""
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = WorkerServiceStub(channel).Link()
        await call.write(first)
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()

    assert caught.value.code() is code


@pytest.mark.parametrize(
    "bad",
    [pb.LinkRequest(hello=pb.GatewayHello(protocol_version=1)), pb.LinkRequest(hold=pb.VersionHold(versions=["m/1"]))],
    ids=["hello", "hold"],
)
async def test_what_cannot_be_said_on_a_link_ends_it(gateway: GatewaySide, bad: pb.LinkRequest):
    """Who says it is broken, and must hear so."""
    await gateway.say(bad)
    await gateway.until(lambda: gateway.ended is not None)

    assert isinstance(gateway.ended, aio.AioRpcError)
    assert gateway.ended.code() is StatusCode.INVALID_ARGUMENT


async def test_a_message_of_a_newer_gateway_is_no_reason_to_end_the_link(gateway: GatewaySide):
    """Gateways and workers are updated one after the other, and what is underway must not suffer from it."""
    await gateway.say(pb.LinkRequest.FromString(b"\xf2\x07\x00"))  # field 126
    await gateway.say(pb.LinkRequest())
    [answer] = await gateway.call(envelope(1, V1, tensor("x", rows(1))))

    assert np.array_equal(values_of(answer), rows(1) * 2)
    assert "hold" in gateway.hellos[0].capabilities


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (envelope(1, "models/none/versions/1", tensor("x", rows(1))), errors.VersionNotReady),
        (envelope(1, "../../etc", tensor("x", rows(1))), errors.InvalidName),
        (envelope(1, V1, tensor("x", rows(1)), signature="nothing"), errors.UnknownSignature),
        (envelope(1, V1, tensor("x", rows(1)), output_names=["z"]), errors.UnknownOutput),
        (envelope(1, V1, tensor("x", rows(1)), remaining_us=-5), errors.DeadlineExceeded),
        (envelope(1, V1, tensor("x", rows(1)), rows=7), errors.InvalidBatch),
        (envelope(1, V1, rows=1), errors.MissingInput),
        (envelope(1, V1, Tensor(name="x", datatype=99, shape=[1, 4], raw=bytes(16)), rows=1), errors.DatatypeMismatch),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_envelope_is_answered_and_the_link_goes_on(
    gateway: GatewaySide, bad: pb.Envelope, error: type[errors.InferwayError]
):
    """One gateway's mistake is one request's error; by the unary call it is the status."""
    [refused, good] = await gateway.call(bad, envelope(2, V1, tensor("x", rows(1))))
    with pytest.raises(error):
        values_of(refused)
    assert np.array_equal(values_of(good), rows(1) * 2)

    with pytest.raises(aio.AioRpcError) as caught:
        await gateway.stub.Infer(pb.InferRequest(envelope=bad))
    assert caught.value.code().name == error.code
