"""Nobody can answer: what the gateway does then must not make it worse, and must end when it ends."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from inferway.errors import RunnerCrashed
from inferway.type.v1.tensor_pb2 import Tensor
from inferway.worker.v1 import worker_service_pb2 as pb
from tests.chaos.acts import start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import RATE, seconds
from tests.integration.gateway.conftest import gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import predict_request, tensor
from tests.testbed.load import plain_calls, steady
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

AWAY_SECONDS = seconds(long=30, short=0.5)
MAX_RETRIES_SHARE = 0.2
MAX_RETRIES_PER_SECOND = 3
BUDGET_WINDOW_SECONDS = 10
RECOVERY_SECONDS = 2.0


async def test_when_all_workers_come_back_so_do_the_answers(trio: Stack) -> None:
    """Whoever came while they were away waited for them for a while, or was told; nobody is told so afterwards."""
    async with plain_calls(trio.gateway.target) as send, steady(send, RATE) as calls:
        await calls.answers(RATE)
        for worker in trio.workers:
            await asyncio.to_thread(worker.kill)
        await calls.arrivals(int(RATE * AWAY_SECONDS), timeout_seconds=AWAY_SECONDS + 30)
        await asyncio.gather(*(start(worker, VERSION) for worker in trio.workers))
        await calls.arrivals(int(RATE * RECOVERY_SECONDS))
        before = calls.failures.copy()
        await calls.answers(RATE)

    calls.report("all workers killed and started again")
    assert calls.failures - before == {}
    assert calls.failures.keys() <= {"NO_WORKER", "WORKER_LOST", "VERSION_NOT_READY"}


class Failing:
    """Computes nothing, and counts how often it was asked: a fault of the workers, since every request is another."""

    def __init__(self) -> None:
        self.attempts = 0

    def __call__(self, envelope: pb.Envelope) -> Sequence[Tensor]:
        self.attempts += 1
        raise RunnerCrashed("gone")


async def test_retries_stay_within_their_budget_when_every_attempt_fails(tmp_path: Path) -> None:
    """Three attempts for every request of an outage are an outage three times as long."""
    registry, failing = FakeRegistry(), Failing()
    requests = (predict_request(inputs=[tensor(raw=struct.pack("<4f", n, 0, 0, 0))]) for n in itertools.count())
    workers = [FakeWorker(f"w{number}") for number in range(3)]
    await registry.start()
    for worker in workers:
        await worker.start()
    try:
        async with gateway(settings_for(tmp_path, registry.target), registry, workers[0]) as bed:
            await bed.publish(workers=workers)
            await bed.until_health_is("model/echo", serving=True)
            for worker in workers:
                worker.compute = failing
            async with steady(lambda: bed.stub.Predict(next(requests), timeout=5), RATE) as calls:
                await calls.ends(int(RATE * AWAY_SECONDS * 2), timeout_seconds=AWAY_SECONDS * 2 + 30)
    finally:
        for worker in workers:
            await worker.stop()
        await registry.stop()

    calls.report("every attempt fails", attempts=failing.attempts)
    floor = MAX_RETRIES_PER_SECOND * max(BUDGET_WINDOW_SECONDS, AWAY_SECONDS * 2)
    assert calls.latencies == []
    assert failing.attempts <= calls.calls * (1 + MAX_RETRIES_SHARE) + floor
