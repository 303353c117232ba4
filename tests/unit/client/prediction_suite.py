"""What every server of the prediction service does for the client: the fake and the real gateway pass it.

Whoever runs it gives the fixture `target`: `host:port` of a gateway with the endpoint `affine`, whose one version,
also called `champion`, takes `x` (FP32, [-1, 3]) and answers `y` = 2 x + 1 of the same shape, and the stateful endpoint
`accumulator`, which takes `x` (FP32, [-1, 1]) and answers `y`, the sum of all `x` of the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from inferway.errors import (
    AliasNotFound,
    DatatypeMismatch,
    EndpointNotFound,
    InvalidBatch,
    InvalidName,
    InvalidRequest,
    MissingInput,
    SessionNotFound,
    SessionRequired,
    ShapeMismatch,
    StreamProtocolViolated,
    UnknownInput,
    UnknownOutput,
    VersionNotFound,
)
from inferway_client import Client, StreamResult
from inferway_client.tensors import Array

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def row(value: float) -> dict[str, Array]:
    """One row of equal numbers."""
    return {"x": np.full((1, 3), value, np.float32)}


def number(value: float) -> dict[str, Array]:
    """One row of the accumulator."""
    return {"x": np.full((1, 1), value, np.float32)}


def y(result: StreamResult) -> float:
    """The first number of an answer."""
    return float(result.unwrap().outputs["y"][0, 0])


class PredictionSuite:
    """Inherit, and give `target`."""

    @pytest.fixture
    async def client(self, target: str) -> AsyncIterator[Client]:
        """A client of the server under test."""
        async with Client(target, timeout=10.0) as client:
            yield client

    async def test_predict_answers_with_outputs_version_and_id(self, client: Client):
        """The plainest call works."""
        prediction = await client.predict("affine", {"x": ROWS})
        np.testing.assert_array_equal(prediction.outputs["y"], 2 * ROWS + 1)
        assert prediction.model_version == "models/affine/versions/1"
        assert prediction.version == 1
        assert prediction.prediction_id
        assert prediction.timing is None

    @pytest.mark.parametrize("version", [1, "champion"])
    async def test_predict_takes_a_number_or_an_alias(self, client: Client, version: int | str):
        """Pinning a version is how one compares versions."""
        prediction = await client.predict("affine", {"x": ROWS}, version=version)
        assert prediction.version == 1

    async def test_timing_comes_when_asked_for(self, client: Client):
        """Callers find out where the time went without a trace."""
        prediction = await client.predict("affine", {"x": ROWS}, timing=True)
        assert prediction.timing is not None
        assert prediction.timing.batch_rows >= 1
        assert prediction.timing.dispatch_reason in {"full", "idle", "deadline", "delay bound", "unbatched"}

    async def test_many_predictions_at_once_get_their_own_answers(self, client: Client):
        """Batched rows go back to whom they belong."""
        answers = await asyncio.gather(*(client.predict("affine", row(value)) for value in range(50)))
        assert [float(answer.outputs["y"][0, 0]) for answer in answers] == [2 * value + 1 for value in range(50)]

    @pytest.mark.parametrize(
        ("inputs", "error", "field"),
        [
            ({"z": ROWS, "x": ROWS}, UnknownInput, "inputs"),
            ({}, MissingInput, "inputs"),
            ({"x": ROWS.astype(np.float64)}, DatatypeMismatch, "inputs"),
            ({"x": ROWS[:, :2]}, ShapeMismatch, "inputs"),
            ({"x": ROWS[0]}, ShapeMismatch, "inputs"),
            ({"x": ROWS[:0]}, InvalidBatch, "inputs"),
        ],
    )
    async def test_wrong_inputs_are_refused_with_the_field(
        self, client: Client, inputs: dict[str, Array], error: type[InvalidRequest], field: str
    ):
        """A caller learns which field to mend."""
        with pytest.raises(error) as caught:
            await client.predict("affine", inputs)
        assert caught.value.violations[0].field.startswith(field)
        assert not caught.value.retryable

    async def test_an_unknown_output_is_refused(self, client: Client):
        """A misspelt output is not silently left out."""
        with pytest.raises(UnknownOutput):
            await client.predict("affine", {"x": ROWS}, output_names=["q"])

    async def test_names_that_do_not_exist_are_not_found(self, client: Client):
        """Endpoint, version and alias each say which of them it was."""
        with pytest.raises(EndpointNotFound):
            await client.predict("nothing", {"x": ROWS})
        with pytest.raises(VersionNotFound):
            await client.predict("affine", {"x": ROWS}, version=7)
        with pytest.raises(AliasNotFound):
            await client.predict("affine", {"x": ROWS}, version="challenger")
        with pytest.raises(InvalidName):
            await client.predict("../affine", {"x": ROWS})

    async def test_an_ordered_stream_answers_in_order(self, client: Client):
        """`map` is the everyday use of a stream."""
        async with client.stream("affine", ordered=True) as stream:
            results = [result async for result in stream.map(row(value) for value in range(200))]
        assert [result.id for result in results] == list(range(200))
        assert [float(result.unwrap().outputs["y"][0, 0]) for result in results] == [2 * v + 1 for v in range(200)]

    async def test_a_bad_item_fails_alone(self, client: Client):
        """One caller's mistake in the middle costs one item."""
        batches = [row(1), {"x": np.zeros((1, 2), np.float32)}, row(3)]
        async with client.stream("affine", ordered=True) as stream:
            results = [result async for result in stream.map(batches)]
        assert [type(result.error) for result in results] == [type(None), ShapeMismatch, type(None)]
        with pytest.raises(ShapeMismatch):
            results[1].unwrap()

    async def test_results_as_completed_name_their_items(self, client: Client):
        """Without order, ids tell which item an answer belongs to."""
        async with client.stream("affine") as stream:
            ids = {await stream.send(row(value)): value for value in range(20)}
            await stream.finish()
            results = [result async for result in stream]
        assert {result.id for result in results} == set(ids)
        assert all(float(result.unwrap().outputs["y"][0, 0]) == 2 * ids[result.id] + 1 for result in results)

    async def test_a_stream_maps_several_times(self, client: Client):
        """A stream is opened once for many rounds."""
        async with client.stream("affine", ordered=True) as stream:
            for _ in range(3):
                assert [result.id async for result in stream.map([row(0), row(1)])] == [0, 1]

    async def test_nothing_is_sent_after_finish(self, client: Client):
        """The mistake is told instead of hanging."""
        async with client.stream("affine") as stream:
            await stream.finish()
            with pytest.raises(StreamProtocolViolated):
                await stream.send(row(0))
            assert [result async for result in stream] == []

    async def test_a_stream_to_nowhere_does_not_open(self, client: Client):
        """The error comes at `async with`, before anything is sent."""
        with pytest.raises(EndpointNotFound):
            async with client.stream("nothing"):
                pytest.fail("opened")

    async def test_the_limit_in_flight_holds(self, client: Client):
        """A client that does not read is slowed down, not the server filled up."""
        async with client.stream("affine", max_in_flight=2) as stream:
            assert stream.max_in_flight == 2
            results = [result async for result in stream.map(row(value) for value in range(10))]
        assert len(results) == 10

    async def test_a_session_carries_state_that_callers_do_not_see(self, client: Client):
        """Callers stream positions, and what was before is the model's business."""
        async with client.stream("accumulator") as stream:
            results = [result async for result in stream.map(number(value) for value in range(100))]
        assert [result.id for result in results] == list(range(100))
        assert [y(result) for result in results] == list(np.cumsum(range(100)))
        assert set(results[0].unwrap().outputs) == {"y"}

    async def test_a_bad_item_of_a_session_leaves_the_state_as_it_was(self, client: Client):
        """One bad reading of a sensor does not spoil the session."""
        batches = [number(1), {"x": np.zeros((1, 2), np.float32)}, number(2)]
        async with client.stream("accumulator") as stream:
            results = [result async for result in stream.map(batches)]
        assert [type(result.error) for result in results] == [type(None), ShapeMismatch, type(None)]
        assert y(results[2]) == 3

    async def test_sessions_do_not_know_of_each_other(self, client: Client):
        """Their items share batches, and nothing else."""

        async def last(step: int) -> float:
            async with client.stream("accumulator") as stream:
                return [y(result) async for result in stream.map([number(step)] * 20)][-1]

        assert await asyncio.gather(*map(last, range(10))) == [20 * step for step in range(10)]

    async def test_a_session_goes_on_where_it_was_left(self, client: Client):
        """Also in another process: whoever has the token. What was not taken comes again."""
        async with client.stream("accumulator") as stream:
            for value in (1, 2, 3):
                await stream.send(number(value))
            first = await anext(stream)
            token = stream.resume_token
        resumed = client.stream("accumulator", resume_token=token, acknowledged_item=first.id)
        async with resumed as stream:
            for value in (1, 2, 3, 4)[stream.applied_item :]:
                await stream.send(number(value))
            await stream.finish()
            assert [(result.id, y(result)) async for result in stream] == [(2, 3), (3, 6), (4, 10)]

    async def test_a_session_that_is_not_there_is_not_found(self, client: Client):
        """It is never begun again silently."""
        with pytest.raises(SessionNotFound):
            async with client.stream("accumulator", resume_token="0" * 32):
                pytest.fail("opened")

    async def test_a_stateful_model_answers_no_calls(self, client: Client):
        """A call has no before, so its answer would be wrong without saying so."""
        with pytest.raises(SessionRequired):
            await client.predict("accumulator", number(1))
