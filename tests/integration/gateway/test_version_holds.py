"""The gateway tells workers which versions its streams go on with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from inferway_chassis.request_queue import QueueLimits
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.fleet import Fleet
from inferway_gateway.link import LinkOptions
from inferway_gateway.outcomes import Outcomes
from tests.integration.gateway.fake_worker import FakeWorker

V1, V2 = "models/echo/versions/1", "models/echo/versions/2"


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Of two links for each worker."""
    dispatcher = Dispatcher(asyncio.get_running_loop(), time.monotonic, QueueLimits(), Outcomes([1.0]))
    fleet = Fleet(dispatcher, time.monotonic, LinkOptions("g", links_per_worker=2))
    yield fleet
    await fleet.close()


async def test_every_link_of_every_worker_is_told_also_of_those_that_come_later(
    fleet: Fleet, worker: FakeWorker
) -> None:
    """A version is kept by each worker for itself."""
    later = FakeWorker("later")
    await later.start()
    fleet.apply({worker.address})
    await worker.until(lambda w: w.links == 2)
    fleet.hold(frozenset({V2, V1}))
    await worker.until(lambda w: len(w.holds) == 2)
    fleet.apply({worker.address, later.address})
    await later.until(lambda w: len(w.holds) == 2)
    fleet.hold(frozenset({V2, V1}))
    fleet.hold(frozenset())
    await later.until(lambda w: len(w.holds) == 4)
    await worker.until(lambda w: len(w.holds) == 4)
    await later.stop()

    assert worker.holds == later.holds == [[V1, V2], [V1, V2], [], []]


async def test_a_worker_that_was_started_again_is_told_again(fleet: Fleet, worker: FakeWorker) -> None:
    """It knows nothing of what was said before."""
    fleet.hold(frozenset({V1}))
    fleet.apply({worker.address})
    await worker.until(lambda w: len(w.holds) == 2)
    await worker.stop()
    successor = FakeWorker("w0")
    await successor.start(int(worker.address.rpartition(":")[2]))
    await successor.until(lambda w: len(w.holds) == 2)
    await successor.stop()

    assert successor.holds == [[V1], [V1]]
