"""Triton's sequences: state by `sequence_id`, with tritonclient unmodified, against a worker that adds."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from inferway.errors import ModelFailed
from inferway.foreign.inference import grpc_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_MIGRATE
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1.worker_service_pb2 import LOAD_STATE_READY, Envelope
from inferway_chassis.process import Process, observed
from inferway_chassis.telemetry import Telemetry
from inferway_gateway.sessions.sequence import MAX_WAITING
from tests.integration.gateway.accumulator import accumulate, accumulator, sum_endpoint
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import refusal_of
from tests.integration.gateway.snapshots import endpoint, version

V1, V2 = "models/sum/versions/1", "models/sum/versions/2"
INITIAL = 10
"""The sum before the first item, see the accumulator."""
NOT_STARTED = "must specify the START flag on the first request of the sequence"
"""Triton's words."""
SECONDS = 20


def inputs_of(value: float, rows: int = 1) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", [rows, 1], "FP32")
    tensor.set_data_from_numpy(np.full((rows, 1), value, np.float32))
    return [tensor]


def sum_of(result: Any) -> float:
    """What an item was answered with; the state is not shown."""
    assert [output.name for output in result.get_response().outputs] == ["y"]
    return float(result.as_numpy("y")[0, 0])


async def infer(
    client: triton_aio.InferenceServerClient,
    value: float,
    sequence_id: int | str,
    *,
    start: bool = False,
    end: bool = False,
    rows: int = 1,
    **fields: Any,
) -> float:
    """One unary item."""
    return sum_of(
        await client.infer(
            fields.pop("model", "sum"),
            inputs_of(value, rows),
            sequence_id=sequence_id,
            sequence_start=start,
            sequence_end=end,
            client_timeout=SECONDS,
            **fields,
        )
    )


async def refused(call: Any) -> InferenceServerException:
    """What tritonclient raises."""
    with pytest.raises(InferenceServerException) as caught:
        await call
    return caught.value


class Stream:
    """A stream of the client that blocks, for use in a thread."""

    def __init__(self, client: triton.InferenceServerClient, **options: Any) -> None:
        self._client = client
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: self._answers.put((result, error)), **options)

    def send(self, value: float, sequence_id: int | str, *, request_id: str = "", **flags: bool) -> None:
        self._client.async_stream_infer(
            "sum", inputs_of(value), request_id=request_id, sequence_id=sequence_id, **flags
        )

    def receive(self) -> Any:
        """The next result; raises what the server says went wrong."""
        result, error = self._answers.get(timeout=SECONDS)
        if error is not None:
            raise error
        return result

    def ask(self, value: float, sequence_id: int | str, *, sequence_start: bool = False) -> float:
        """Sends, and waits for the answer."""
        self.send(value, sequence_id, sequence_start=sequence_start)
        return sum_of(self.receive())


async def in_thread(bed: Bed, work: Callable[[triton.InferenceServerClient], Any]) -> Any:
    """The client blocks, so it runs beside the event loop that the gateway runs on."""

    def call() -> Any:
        with triton.InferenceServerClient(bed.target) as client:
            return work(client)

    return await asyncio.to_thread(call)


async def add_version(worker: FakeWorker, name: str) -> None:
    await worker.set_state(name, LOAD_STATE_READY)
    await worker.grant(name)


async def prepare(bed: Bed) -> Bed:
    """The worker gets version 1 of `sum`, beside that of `echo`."""
    bed.worker.compute = accumulate
    await add_version(bed.worker, V1)
    await bed.publish(version(), accumulator(), endpoints=[endpoint(), sum_endpoint()])
    await bed.until_health_is("model/sum", serving=True)
    return bed


@pytest.fixture
async def summing(bed: Bed) -> Bed:
    return await prepare(bed)


@pytest.fixture
async def client(summing: Bed) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(summing.target) as made:
        yield made


@pytest.mark.parametrize("ids", [range(1, 21), [f"vehicle {number}" for number in range(20)]], ids=["int", "string"])
async def test_sequences_interleave_on_one_stream(summing: Bed, ids: Sequence[int | str]) -> None:
    """A client drives many correlated sequences over one stream, and no state leaks from one to the other."""
    steps = 10

    def work(client: triton.InferenceServerClient) -> dict[str, float]:
        stream = Stream(client)
        for step, (place, name) in itertools.product(range(steps), enumerate(ids)):
            flags = {"sequence_start": step == 0, "sequence_end": step == steps - 1}
            stream.send(place + step, name, request_id=f"{place}/{step}", **flags)
        results = [stream.receive() for _ in range(steps * len(ids))]
        return {result.get_response().id: sum_of(result) for result in results}

    got = await in_thread(summing, work)

    for place in range(len(ids)):
        sums = INITIAL + np.cumsum(place + np.arange(steps))
        assert [got[f"{place}/{step}"] for step in range(steps)] == list(sums)


async def test_a_sequence_goes_on_over_other_streams_and_unary_calls(summing: Bed) -> None:
    """An id is all that its items have in common."""

    def work(client: triton.InferenceServerClient) -> list[float]:
        one = Stream(client)
        with triton.InferenceServerClient(summing.target) as other:
            two = Stream(other)
            sums = [one.ask(1, 5, sequence_start=True), two.ask(2, 5), one.ask(3, 5)]
        result = client.infer("sum", inputs_of(4), sequence_id=5)
        return [*sums, sum_of(result)]

    assert await in_thread(summing, work) == [11, 13, 16, 20]


async def test_two_hundred_sequences_at_once_are_all_right(summing: Bed) -> None:
    """They share frames to the worker, and each has the state that NumPy computes."""
    count, steps = 200, 6
    values = np.random.default_rng(5).integers(0, 100, (count, steps)).astype(np.float32)

    def drive(client: triton.InferenceServerClient, places: Iterable[int]) -> dict[int, list[float]]:
        stream = Stream(client)
        got: dict[int, list[float]] = {place: [] for place in places}
        for step, place in itertools.product(range(steps), got):
            stream.send(values[place, step], place + 1, request_id=str(place), sequence_start=step == 0)
        for _ in range(steps * len(got)):
            result = stream.receive()
            got[int(result.get_response().id)].append(sum_of(result))
        return got

    halves = range(0, count, 2), range(1, count, 2)
    parts = await asyncio.gather(*(in_thread(summing, partial(drive, places=half)) for half in halves))

    sums = INITIAL + np.cumsum(values, axis=1)
    for place, got in itertools.chain(*(part.items() for part in parts)):
        assert got == list(sums[place])
    assert len(summing.worker.received) == count * steps
    assert max(summing.worker.frame_sizes) > 1


async def test_a_second_start_begins_anew(client: triton_aio.InferenceServerClient) -> None:
    """A client that lost count starts again; what was before must not show."""
    sums = [
        await infer(client, 1, 5, start=True),
        await infer(client, 2, 5),
        await infer(client, 3, 5, start=True),
        await infer(client, 4, 5),
    ]

    assert sums == [11, 13, 13, 17]


async def test_a_start_leaves_the_items_before_it_their_state(summing: Bed) -> None:
    """As in Triton: what is in line of the older sequence is computed first, then the new one begins."""
    summing.worker.hold()

    def work(client: triton.InferenceServerClient) -> list[float]:
        stream = Stream(client)
        for number, start in ((1, True), (2, False), (3, True), (4, False)):
            stream.send(number, 5, sequence_start=start)
        return [sum_of(stream.receive()) for _ in range(4)]

    asking = asyncio.create_task(in_thread(summing, work))
    await summing.worker.until(lambda w: len(w.received) == 1)
    await summing.worker.release()

    assert await asking == [11, 13, 13, 17]


async def test_after_its_end_a_sequence_is_forgotten(client: triton_aio.InferenceServerClient) -> None:
    """The end itself is computed like any item; what comes later must start."""
    sums = [await infer(client, 1, "a", start=True), await infer(client, 2, "a", end=True)]
    error = await refused(infer(client, 3, "a"))

    assert sums == [11, 13]
    assert error.message() == f"inference request for sequence a to model 'sum' {NOT_STARTED}"
    assert await infer(client, 4, "a", start=True) == 14


async def test_a_sequence_may_be_one_item_long(client: triton_aio.InferenceServerClient) -> None:
    """Both flags on one request are permitted."""
    assert await infer(client, 1, 5, start=True, end=True) == 11
    assert "INVALID_ARGUMENT" in str((await refused(infer(client, 1, 5))).status())


async def test_an_item_without_a_start_is_refused_on_streams_in_both_forms(summing: Bed) -> None:
    """Triton's clients look for its words, in a message, or as the status of the stream if they ask for that."""

    def work(client: triton.InferenceServerClient) -> tuple[str, float, Any]:
        stream = Stream(client)
        with pytest.raises(InferenceServerException) as said:
            stream.ask(1, 7)
        after = stream.ask(1, 7, sequence_start=True)
        client.stop_stream()
        stream = Stream(client, headers={"triton_grpc_error": "true"})
        with pytest.raises(InferenceServerException) as ended:
            stream.ask(1, 8)
        client.stop_stream()
        return said.value.message(), after, ended.value

    message, after, ended = await in_thread(summing, work)

    assert message == f"inference request for sequence 7 to model 'sum' {NOT_STARTED}"
    assert after == 11
    assert "INVALID_ARGUMENT" in str(ended.status())


async def test_the_refusal_names_the_parameter_that_is_missing(summing: Bed) -> None:
    """Programs read reason and field, not words."""
    error = await refusal_of(call(summing, item(1, sequence_id=pb.InferParameter(uint64_param=5))))

    assert (error.reason, error.metadata) == ("INVALID_PARAMETER", {"parameter": "sequence_start"})
    assert [violation.field for violation in error.violations] == ["parameters[sequence_start]"]


async def test_the_form_of_an_integer_does_not_matter_but_text_is_another_id(summing: Bed) -> None:
    """Clients of other languages send uint64 where tritonclient sends int64."""
    signed, unsigned = pb.InferParameter(int64_param=5), pb.InferParameter(uint64_param=5)
    start = pb.InferParameter(bool_param=True)

    await call(summing, item(1, sequence_id=signed, sequence_start=start))
    response = await call(summing, item(2, sequence_id=unsigned))
    error = await refusal_of(call(summing, item(2, sequence_id=pb.InferParameter(string_param="5"))))

    assert np.frombuffer(response.raw_output_contents[0], "<f4") == [13]
    assert error.reason == "INVALID_PARAMETER"


@pytest.mark.parametrize("nothing", [pb.InferParameter(uint64_param=0), pb.InferParameter(string_param="")])
async def test_a_stateful_model_wants_an_id(summing: Bed, nothing: pb.InferParameter) -> None:
    """0 and the empty string mean none, as in Triton: there would be no state to go on from."""
    start = pb.InferParameter(bool_param=True)
    error = await refusal_of(call(summing, item(1, sequence_id=nothing, sequence_start=start)))

    assert error.reason == "SESSION_REQUIRED"
    assert summing.worker.received == []


async def test_a_stateless_model_takes_no_notice_of_sequences(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """As in Triton, where a model without a sequence batcher never looks at the parameters."""
    summing.worker.compute = lambda envelope: [Tensor(**_fields(envelope), name="y")]
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))

    result = await client.infer("echo", [tensor], sequence_id=5, client_timeout=SECONDS)

    assert np.array_equal(result.as_numpy("y"), np.ones((1, 4)))


def _fields(envelope: Envelope) -> dict[str, Any]:
    source = envelope.inputs[0]
    return {"datatype": source.datatype, "shape": source.shape, "raw": source.raw}


async def test_tenants_and_versions_have_sequences_of_their_own(client: triton_aio.InferenceServerClient) -> None:
    """Ids are chosen by callers who do not know each other."""
    await infer(client, 1, 5, start=True)
    await infer(client, 2, 5, start=True, headers={"x-tenant": "gold"})
    await infer(client, 3, 5, start=True, model_version="1")
    sums = [
        await infer(client, 10, 5),
        await infer(client, 10, 5, headers={"x-tenant": "gold"}),
        await infer(client, 10, 5, model_version="1"),
    ]

    assert sums == [21, 22, 23]
    assert NOT_STARTED in (await refused(infer(client, 1, 5, headers={"x-tenant": "silver"}))).message()


async def test_an_item_that_fails_leaves_the_state_as_it_was(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """Whether it never reached the model, or the model failed with it."""

    def fail_on_two(envelope: Envelope) -> Sequence[Tensor]:
        if np.frombuffer(envelope.inputs[1].raw, "<f4")[0] == 2:
            raise ModelFailed("two is too much")
        return accumulate(envelope)

    summing.worker.compute = fail_on_two
    await infer(client, 1, 5, start=True)

    assert "two is too much" in (await refused(infer(client, 2, 5))).message()
    assert "2" in (await refused(infer(client, 1, 5, rows=2))).message()
    assert await infer(client, 3, 5) == 14


async def test_a_start_that_fails_is_still_a_start(summing: Bed, client: triton_aio.InferenceServerClient) -> None:
    """The state of whoever had the id before must not come back."""
    await infer(client, 100, 5, start=True)
    summing.worker.compute = failing
    await refused(infer(client, 1, 5, start=True))
    summing.worker.compute = accumulate

    assert await infer(client, 2, 5) == 12


def failing(envelope: Envelope) -> Sequence[Tensor]:
    raise ModelFailed("no")


async def test_a_cancelled_item_in_flight_leaves_the_state_as_it_was(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """Its caller will never know whether it was applied, so it is not."""
    await infer(client, 1, 5, start=True)
    summing.worker.hold()
    going = asyncio.create_task(infer(client, 2, 5))
    await summing.worker.until(lambda w: len(w.received) == 2)
    going.cancel()
    await asyncio.wait([going])
    await summing.worker.until(lambda w: len(w.cancelled) == 1)
    await summing.worker.release()

    assert await infer(client, 3, 5) == 14


async def test_a_stream_that_dies_takes_only_its_own_items_along(summing: Bed) -> None:
    """In flight and in line; another caller's items of the same sequence are answered."""
    summing.worker.hold()

    def work(client: triton.InferenceServerClient) -> list[float]:
        staying = Stream(client)
        with triton.InferenceServerClient(summing.target) as other:
            leaving = Stream(other)
            leaving.send(1, 5, sequence_start=True)
            leaving.send(2, 5)
            arrived.wait(SECONDS)
            staying.send(4, 6, sequence_start=True)
            staying.send(8, 6)
            other.stop_stream(cancel_requests=True)
        return [sum_of(staying.receive()) for _ in range(2)]

    arrived = threading.Event()
    asking = asyncio.create_task(in_thread(summing, work))
    await summing.worker.until(lambda w: len(w.received) == 1)
    arrived.set()
    await summing.worker.until(lambda w: len(w.cancelled) == 1)
    await summing.worker.until(lambda w: len(w.received) == 2)
    await summing.worker.release()

    assert await asking == [14, 22]
    assert [_value_of(envelope) for envelope in summing.worker.received] == [1, 4, 8]


def _value_of(envelope: Envelope) -> float:
    return float(np.frombuffer(envelope.inputs[1].raw, "<f4")[0])


async def test_a_cancelled_start_still_ends_what_was_before(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """Items that follow it belong to a sequence that never began, not to the older one."""
    await infer(client, 1, 5, start=True)
    summing.worker.hold()
    first = asyncio.create_task(infer(client, 2, 5))
    await summing.worker.until(lambda w: len(w.received) == 2)
    start = asyncio.create_task(infer(client, 3, 5, start=True))
    other = asyncio.create_task(infer(client, 1, 6, start=True))
    await summing.worker.until(lambda w: len(w.received) == 3)
    start.cancel()
    await asyncio.wait([start])
    await summing.worker.release()

    assert [await first, await other] == [13, 11]
    assert NOT_STARTED in (await refused(infer(client, 4, 5))).message()


async def test_a_sequence_outlives_its_worker(summing: Bed, client: triton_aio.InferenceServerClient) -> None:
    """The state is in the gateway, so another worker goes on with it, and the lost item is applied once."""
    await infer(client, 1, 5, start=True)
    summing.worker.hold()
    going = asyncio.create_task(infer(client, 2, 5))
    await summing.worker.until(lambda w: len(w.received) == 2)
    port = int(summing.worker.address.rpartition(":")[2])
    await summing.worker.stop()
    successor = FakeWorker(versions=["models/echo/versions/1", V1])
    successor.compute = accumulate
    await successor.start(port)
    try:
        assert [await going, await infer(client, 3, 5)] == [13, 16]
        assert len(successor.received) == 2
    finally:
        await successor.stop()


async def test_a_live_sequence_stays_with_its_version_and_a_new_one_gets_the_new(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """State belongs to a version; a start is the moment to move."""
    await infer(client, 1, 5, start=True)
    await add_version(summing.worker, V2)
    await summing.publish(accumulator(wanted=False), accumulator(2), endpoints=[sum_endpoint({V2: 10_000})], revision=2)
    await _until_served_by(client, "2")

    old = await client.infer("sum", inputs_of(1), sequence_id=5, client_timeout=SECONDS)
    new = await client.infer("sum", inputs_of(1), sequence_id=5, sequence_start=True, client_timeout=SECONDS)

    assert (sum_of(old), old.get_response().model_version) == (12, "1")
    assert (sum_of(new), new.get_response().model_version) == (11, "2")


async def _until_served_by(client: triton_aio.InferenceServerClient, number: str) -> None:
    async with asyncio.timeout(SECONDS):
        served_by = ""
        while served_by != number:
            probe = await client.infer("sum", inputs_of(0), sequence_id="p", sequence_start=True, sequence_end=True)
            served_by = probe.get_response().model_version


async def test_a_live_sequence_migrates_with_its_state_if_the_endpoint_says_so(
    summing: Bed, client: triton_aio.InferenceServerClient
) -> None:
    """The same policy as for streams."""
    await infer(client, 1, 5, start=True)
    await add_version(summing.worker, V2)
    arms = sum_endpoint({V2: 10_000}, STREAM_POLICY_MIGRATE)
    await summing.publish(accumulator(wanted=False), accumulator(2), endpoints=[arms], revision=2)
    await _until_served_by(client, "2")

    result = await client.infer("sum", inputs_of(1), sequence_id=5, client_timeout=SECONDS)

    assert (sum_of(result), result.get_response().model_version) == (12, "2")


async def test_an_idle_sequence_is_forgotten(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> None:
    """Clients that go away without an end must not leave state behind for ever; each item renews the time."""
    ahead = 0.0
    settings = settings_for(tmp_path, registry.target, sequence_idle_seconds=60)
    async with observed("gateway", settings) as process:
        shifted = replace(process, clock=lambda: time.monotonic() + ahead)
        async with gateway(settings, registry, worker, shifted) as bed:
            await prepare(bed)
            async with triton_aio.InferenceServerClient(bed.target) as client:
                await infer(client, 1, 5, start=True)
                ahead += 40
                await infer(client, 2, 5)
                ahead += 40
                assert await infer(client, 3, 5) == 16
                ahead += 61
                assert NOT_STARTED in (await refused(infer(client, 4, 5))).message()


async def test_sequences_are_limited_in_number(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> None:
    """Each takes memory; one that ends makes room."""
    settings = settings_for(tmp_path, registry.target, max_sequences=2)
    async with gateway(settings, registry, worker) as bed:
        await prepare(bed)
        async with triton_aio.InferenceServerClient(bed.target) as client:
            await infer(client, 1, 1, start=True)
            await infer(client, 1, 2, start=True)
            assert "RESOURCE_EXHAUSTED" in str((await refused(infer(client, 1, 3, start=True))).status())
            await infer(client, 1, 2, end=True)
            assert await infer(client, 1, 3, start=True) == 11


async def test_items_in_line_are_limited_in_number(summing: Bed) -> None:
    """One caller that sends without end is told so at once; nothing that got in line is lost."""
    summing.worker.hold()
    start = pb.InferParameter(bool_param=True)
    number = pb.InferParameter(uint64_param=5)
    calls = [call(summing, item(1, sequence_id=number, sequence_start=start))]
    await summing.worker.until(lambda w: len(w.received) == 1)
    calls += [call(summing, item(1, sequence_id=number)) for _ in range(MAX_WAITING + 1)]
    done, _ = await asyncio.wait([asyncio.ensure_future(made) for made in calls], return_when=asyncio.FIRST_COMPLETED)
    [refusal] = done
    await summing.worker.release()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert refusal.exception() is not None
    sums = sorted(_sum_in(outcome) for outcome in outcomes if isinstance(outcome, pb.ModelInferResponse))
    assert sums == list(range(11, 11 + MAX_WAITING + 1))


def _sum_in(response: pb.ModelInferResponse) -> float:
    return float(np.frombuffer(response.raw_output_contents[0], "<f4")[0])


async def test_each_item_is_part_of_its_own_caller_s_trace(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """One after the other they are sent on by whoever serves the sequence, which is part of no trace."""
    settings = settings_for(tmp_path, registry.target)
    async with (
        gateway(settings, registry, worker, Process("gateway", "boot", Telemetry("gateway", "boot"))) as bed,
        triton_aio.InferenceServerClient((await prepare(bed)).target) as client,
    ):
        worker.hold()
        calls = []
        for digit, flag in (("a", "01"), ("b", "00"), ("c", "01")):
            headers = {"traceparent": f"00-{digit * 32}-{'1' * 16}-{flag}"}
            calls.append(asyncio.create_task(infer(client, 1, 5, start=digit == "a", headers=headers)))
            await worker.until(lambda w: len(w.received) >= 1)
        await worker.release()
        await asyncio.gather(*calls)

    traces = [envelope.traceparent[3:35] for envelope in worker.received]
    assert traces[0] == "a" * 32
    assert sorted(traces[1:]) == ["", "c" * 32]


async def test_the_only_answer_to_an_item_is_the_final_one_if_the_client_asks_for_finality(summing: Bed) -> None:
    """Clients of decoupled models count final responses, whether state is kept or not."""

    def work(client: triton.InferenceServerClient) -> bool:
        stream = Stream(client)
        client.async_stream_infer(
            "sum", inputs_of(1), sequence_id=5, sequence_start=True, enable_empty_final_response=True
        )
        return bool(stream.receive().get_response().parameters["triton_final_response"].bool_param)

    assert await in_thread(summing, work)


async def test_the_state_is_no_business_of_callers(summing: Bed, client: triton_aio.InferenceServerClient) -> None:
    """Metadata is what tools build their requests from: state inputs in it would be asked of users."""
    metadata = await client.get_model_metadata("sum")
    server = await client.get_server_metadata()

    assert ([t.name for t in metadata.inputs], [t.name for t in metadata.outputs]) == (["x"], ["y"])
    assert {"sequence", "sequence(string_id)"} <= set(server.extensions)


async def test_the_config_tells_how_sequences_are_kept(client: triton_aio.InferenceServerClient) -> None:
    """In the form of Triton's implicit state; tools see from `sequence_batching` that a model wants sequences."""
    config = (await client.get_model_config("sum")).config
    batching = config.sequence_batching
    [state] = batching.state

    assert config.WhichOneof("scheduling_choice") == "sequence_batching"
    assert batching.WhichOneof("strategy_choice") == "oldest"
    assert batching.max_sequence_idle_microseconds == 60_000_000
    assert (state.input_name, state.output_name, state.data_type, list(state.dims)) == ("state", "next_state", 11, [2])
    assert not state.initial_state  # it begins at ten
    assert (await client.get_model_config("echo")).config.WhichOneof("scheduling_choice") == "dynamic_batching"


def item(value: float, **parameters: pb.InferParameter) -> pb.ModelInferRequest:
    """A request with parameters as no client of Triton writes them."""
    request = pb.ModelInferRequest(model_name="sum", parameters=parameters)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.float32(value).tobytes())
    return request


def call(bed: Bed, request: pb.ModelInferRequest) -> Any:
    made = bed.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    return made(request, timeout=SECONDS)
