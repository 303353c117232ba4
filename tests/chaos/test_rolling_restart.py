"""Every process is replaced under load, one after the other."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from inferway_client import Client
from tests.chaos.acts import drain_and_start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import RATE, STREAMS, rounds
from tests.testbed.load import client_calls, plain_calls, steady, streams
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(1200)]

MIN_READY_SECONDS = 2.5
"""Between one process and the next: longer than the two seconds that a client waits before it dials again."""


async def test_a_rolling_restart_of_everything_costs_no_call(trio: Stack, other_gateway: ServiceProcess) -> None:
    """Our client knows both gateways, and one of them is always there."""
    workers = trio.workers[: rounds(long=3, short=1)]
    names = {trio.registry.target: "", **{worker.target: VERSION for worker in trio.workers}}
    async with AsyncExitStack() as open_things:
        enter = open_things.enter_async_context
        client = await enter(Client(f"{trio.gateway.target},{other_gateway.target}"))
        calls = await enter(steady(client_calls(client), RATE))
        items = await enter(streams(client, STREAMS))
        await calls.answers(RATE)
        for _ in range(rounds(long=10, short=1)):
            for process in (trio.registry, *workers, trio.gateway, other_gateway):
                await drain_and_start(process, names.get(process.target, "model/tiny"))
                await calls.answers(RATE // 2)

    calls.report("rolling restart, unary")
    items.report("rolling restart, stream items")
    assert calls.failures == items.failures == {}


async def test_what_a_lone_address_with_a_plain_channel_can_lose_is_known(trio: Stack) -> None:
    """Nobody else listens there while its process is replaced: the calls of that time, and no others, are lost."""
    async with plain_calls(trio.gateway.target) as send, steady(send, RATE) as calls:
        await calls.answers(RATE)
        for _ in range(rounds(long=5, short=1)):
            await drain_and_start(trio.gateway, "model/tiny")
            await calls.answers(RATE)

    calls.report("a lone gateway restarted, plain channel")
    assert all(cause == "DRAINING" or cause.startswith("grpc UNAVAILABLE") for cause in calls.failures), calls.failures
