"""The client against the fake gateway: the suite, and what only a fake can be made to do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from inferway.datatypes import Datatype
from inferway.errors import DeadlineExceeded, ModelFailed, QueueFull, VersionNotReady
from inferway_client import Client, Criticality, RetryPolicy
from inferway_client.tensors import Arrays
from inferway_client.testing import FakeGateway, FakeModel, TensorSpec
from tests.unit.client.prediction_suite import ROWS, PredictionSuite, row

AFFINE = FakeModel(
    inputs={"x": TensorSpec(Datatype.FP32, (-1, 3))},
    output_names=("y",),
    compute=lambda inputs: {"y": (2 * inputs["x"] + 1).astype(np.float32)},
    aliases={"champion": 1},
)
ACCUMULATOR = FakeModel(
    inputs={"x": TensorSpec(Datatype.FP32, (-1, 1)), "state": TensorSpec(Datatype.FP32, (-1, 1))},
    output_names=("y", "next_state"),
    compute=lambda inputs: {"y": inputs["x"] + inputs["state"], "next_state": inputs["x"] + inputs["state"]},
    state={"next_state": "state"},
)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A fake gateway with the suite's models."""
    async with FakeGateway({"affine": AFFINE, "accumulator": ACCUMULATOR}) as gateway:
        yield gateway


@pytest.fixture
def target(gateway: FakeGateway) -> str:
    """Where the suite's client connects."""
    return gateway.target


class TestFakeGateway(PredictionSuite):
    """The double that users test with tells the truth."""


async def test_a_call_that_may_be_repeated_is(gateway: FakeGateway):
    """A worker that restarts is no error for the caller."""
    gateway.fail_next(VersionNotReady("loading", retry_after_seconds=0.0), QueueFull("full", retry_after_seconds=0.0))
    async with Client(gateway.target) as client:
        assert (await client.predict("affine", {"x": ROWS})).version == 1
    assert len(gateway.calls) == 3


async def test_a_call_that_may_not_be_repeated_is_not(gateway: FakeGateway):
    """A model that fails on an input fails again."""
    gateway.fail_next(ModelFailed("no", model="affine"))
    async with Client(gateway.target) as client:
        with pytest.raises(ModelFailed) as caught:
            await client.predict("affine", {"x": ROWS})
    assert caught.value.metadata == {"model": "affine"}
    assert len(gateway.calls) == 1


async def test_attempts_are_bounded(gateway: FakeGateway):
    """A server in trouble sees each call a few times, not forever."""
    gateway.fail_next(*[VersionNotReady("loading", retry_after_seconds=0.0)] * 5)
    async with Client(gateway.target, retries=RetryPolicy(max_attempts=2)) as client:
        with pytest.raises(VersionNotReady):
            await client.predict("affine", {"x": ROWS})
    assert len(gateway.calls) == 2


async def test_a_retry_that_would_be_too_late_is_not_waited_for(gateway: FakeGateway):
    """The caller's deadline is the work's timeout."""
    gateway.fail_next(VersionNotReady("loading", retry_after_seconds=60.0))
    async with Client(gateway.target, timeout=5.0) as client:
        with pytest.raises(VersionNotReady):
            await client.predict("affine", {"x": ROWS})
    assert len(gateway.calls) == 1


async def test_the_caller_is_named_in_the_metadata(gateway: FakeGateway):
    """Admission in the gateway acts on these."""
    async with Client(gateway.target, criticality=Criticality.SHEDDABLE, tenant="acme") as client:
        await client.predict("affine", {"x": ROWS})
    assert gateway.calls[0]["x-criticality"] == "sheddable"
    assert gateway.calls[0]["x-tenant"] == "acme"


async def test_an_unread_stream_refuses_instead_of_filling_memory(gateway: FakeGateway):
    """A program that sends without reading learns what it does wrong."""
    async with Client(gateway.target) as client, client.stream("affine", max_in_flight=2) as stream:
        await stream.send(row(0))
        await stream.send(row(1))
        with pytest.raises(DeadlineExceeded, match="no result was taken"):
            await stream.send(row(2), timeout=0.05)
        await stream.finish()
        assert [result.id async for result in stream] == [1, 2]


async def test_a_source_that_fails_ends_the_map_with_its_own_error(gateway: FakeGateway):
    """What the caller's generator raises is not swallowed."""

    async def broken() -> AsyncIterator[Arrays]:
        yield row(0)
        message = "the camera is gone"
        raise OSError(message)

    async with Client(gateway.target) as client, client.stream("affine") as stream:
        with pytest.raises(OSError, match="camera"):
            [result async for result in stream.map(broken())]
