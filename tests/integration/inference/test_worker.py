"""A worker from the outside: over its sockets, with real runner processes and the fake runtime."""

from __future__ import annotations

import numpy as np

from inferway.worker.v1 import worker_service_pb2 as pb
from tests.integration.inference.conftest import Worker, fake_model
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of

V1 = "models/double/versions/1"


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Random rows of the fake model's width."""
    return np.random.default_rng(seed).random((count, 4), "f4")


async def test_a_published_version_is_loaded_and_answers(registry: FakeRegistry, worker: Worker):
    """The worker's whole purpose, over a link."""
    files = fake_model()
    await registry.put(model_version(V1, files), files)
    async with worker() as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(V1)
        x = rows(3)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", x)))

        assert np.array_equal(values_of(answer), x * 2)
        assert answer.timing.compute_us >= 0
        assert answer.timing.batch_rows == 3
        reported = await registry.reported(lambda one: one.versions[0].state == pb.LOAD_STATE_READY)
        assert reported.address == f"127.0.0.1:{server.port}"
