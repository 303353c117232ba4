"""Hops are slowed, choked, cut, refused and black-holed under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.acts import start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import RATE, rounds, seconds
from tests.testbed.fault_proxy import FaultProxy
from tests.testbed.load import Figures, plain_calls, steady
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(600)]

DELAY_SECONDS = 0.02
THROTTLED_BYTES_PER_SECOND = 100_000
CALLS_FOR_EACH = int(RATE * seconds(long=2.0, short=0.5))


@asynccontextmanager
async def proxied(stack: Stack) -> AsyncIterator[tuple[FaultProxy, FaultProxy]]:
    """Puts a proxy between the gateway and one worker, and one between that worker and the registry."""
    worker, before = stack.workers[0], stack.workers[0].environment
    async with FaultProxy(worker.target) as to_worker, FaultProxy(stack.registry.target) as to_registry:
        own = {"ADVERTISED_ADDRESS": to_worker.address, "REGISTRY_TARGET": to_registry.address}
        proxied_environment = {**before, **{f"INFERWAY_INFERENCE_{name}": value for name, value in own.items()}}
        await asyncio.to_thread(worker.kill)
        await start(worker, VERSION, proxied_environment)
        try:
            yield to_worker, to_registry
        finally:
            await asyncio.to_thread(worker.kill)
            await start(worker, VERSION, before)


async def break_and_mend(proxy: FaultProxy, calls: Figures) -> None:
    """Each fault for a while, and a while without any."""
    proxy.delay_seconds = DELAY_SECONDS
    await calls.answers(CALLS_FOR_EACH)
    proxy.restore()
    proxy.bytes_per_second = THROTTLED_BYTES_PER_SECOND
    await calls.answers(CALLS_FOR_EACH)
    proxy.restore()
    proxy.cut()
    await calls.answers(CALLS_FOR_EACH)
    proxy.refuse()
    await calls.answers(CALLS_FOR_EACH)
    proxy.restore()
    await calls.answers(CALLS_FOR_EACH)


async def test_faults_on_the_hops_of_a_worker_cost_no_call(trio: Stack) -> None:
    """What was on a connection that broke is asked elsewhere; what is slow is slow; the registry is not in the path."""
    async with (
        proxied(trio) as (to_worker, to_registry),
        plain_calls(trio.gateway.target) as send,
        steady(send, RATE) as calls,
    ):
        await calls.answers(CALLS_FOR_EACH)
        for _ in range(rounds(long=5, short=1)):
            await break_and_mend(to_worker, calls)
            await break_and_mend(to_registry, calls)
            to_registry.hold()
            await calls.answers(CALLS_FOR_EACH)
            to_registry.restore()

    calls.report("faults between gateway and worker, worker and registry")
    assert min(to_worker.connections, to_registry.connections) > 1
    assert calls.failures == {}
