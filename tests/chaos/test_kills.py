"""Workers are killed under load, again and again; no caller notices."""

from __future__ import annotations

import asyncio

import pytest

from inferway_client import Client
from tests.chaos.acts import kill_and_start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import LONG, RATE, STREAMS, rounds
from tests.testbed.load import client_calls, plain_calls, steady, streams
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_one_of_three_workers_killed_again_and_again_costs_no_call(trio: Stack) -> None:
    """Every ten seconds for two minutes, or as fast as they come back: calls and items that were there go elsewhere."""
    async with (
        plain_calls(trio.gateway.target) as send,
        Client(trio.gateway.target) as client,
        steady(send, RATE) as calls,
        streams(client, STREAMS) as items,
    ):
        await calls.answers(RATE)
        for number in range(rounds(long=12, short=2)):
            victim = trio.workers[number % 3]
            await asyncio.to_thread(victim.kill)
            victim.start()
            await calls.answers(RATE * 10 if LONG else RATE // 2)
            await asyncio.to_thread(victim.wait_serving, VERSION)
        await calls.answers(RATE)

    calls.report("workers killed, unary")
    items.report("workers killed, stream items")
    assert calls.failures == items.failures == {}


async def test_a_killed_gateway_costs_our_client_no_call(trio: Stack, other_gateway: ServiceProcess) -> None:
    """Predictions are repeated at the other address, also those that were on the connection that broke."""
    async with (
        Client(f"{trio.gateway.target},{other_gateway.target}") as client,
        steady(client_calls(client), RATE) as calls,
    ):
        await calls.answers(RATE)
        for _ in range(rounds(long=6, short=1)):
            await kill_and_start(other_gateway, "model/tiny")
            await calls.answers(RATE)

    calls.report("one of two gateways killed, our client")
    assert calls.failures == {}
