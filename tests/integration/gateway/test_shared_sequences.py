"""Two gateways at one Redis: a sequence's items may come to either."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio

from tests.integration.gateway.conftest import Bed
from tests.integration.gateway.test_sequences import INITIAL, NOT_STARTED, infer, refused
from tests.integration.gateway.test_shared_sessions import pair
from tests.testbed.redis_server import RedisServer

__all__ = ["pair"]
pytestmark = pytest.mark.redis


async def test_unary_items_go_round_the_gateways(pair: tuple[Bed, Bed, RedisServer]) -> None:
    """A balancer sends each call wherever it likes; each finds what the one before it left."""
    first, second, _ = pair
    values = np.random.default_rng(2).integers(0, 100, (20, 6)).astype(np.float32)

    async def drive(place: int, clients: list[triton_aio.InferenceServerClient]) -> list[float]:
        return [
            await infer(clients[(place + step) % 2], value, f"vehicle {place}", start=step == 0, end=step == 5)
            for step, value in enumerate(values[place])
        ]

    async with (
        triton_aio.InferenceServerClient(first.target) as one,
        triton_aio.InferenceServerClient(second.target) as other,
    ):
        got = await asyncio.gather(*(drive(place, [one, other]) for place in range(len(values))))
        late = await refused(infer(other, 1, "vehicle 3"))

    assert got == (INITIAL + np.cumsum(values, axis=1)).tolist()
    assert NOT_STARTED in late.message()


async def test_without_its_store_an_item_is_refused_and_not_applied(
    pair: tuple[Bed, Bed, RedisServer],
) -> None:
    """An answer leaves only after its state is safe; a store that comes back empty has forgotten the sequence."""
    first, _, redis = pair
    async with triton_aio.InferenceServerClient(first.target) as client:
        await infer(client, 1, 5, start=True)
        redis.kill()
        error = await refused(infer(client, 2, 5))
        redis.start()
        late = await refused(infer(client, 2, 5))
        begun = await infer(client, 3, 5, start=True)

    assert "UNAVAILABLE" in str(error.status())
    assert NOT_STARTED in late.message()
    assert begun == INITIAL + 3
