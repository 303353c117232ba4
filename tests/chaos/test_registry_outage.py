"""The registry is away for minutes; everything else goes on, and even starts."""

from __future__ import annotations

import asyncio

import pytest

from inferway_client import Client
from tests.chaos.acts import kill_and_start, start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import seconds
from tests.testbed.load import client_calls, plain_calls, steady
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(1200)]

AWAY_SECONDS = seconds(long=600, short=1)
RATE = 50
"""Calls a second: here it is time that may break something."""


async def test_a_registry_that_is_away_costs_no_prediction_even_where_others_restart(
    trio: Stack, other_gateway: ServiceProcess
) -> None:
    """The control plane is not in the path; who was there before starts from its disk."""
    async with (
        Client(f"{trio.gateway.target},{other_gateway.target}") as client,
        steady(client_calls(client), RATE) as calls,
    ):
        await calls.answers(RATE)
        await asyncio.to_thread(trio.registry.kill)
        try:
            worker_seconds, gateway_seconds = await asyncio.gather(
                kill_and_start(trio.workers[0], VERSION), kill_and_start(other_gateway, "model/tiny")
            )
            await calls.answers(int(RATE * AWAY_SECONDS), timeout_seconds=AWAY_SECONDS + 60)
            async with plain_calls(other_gateway.target) as send, steady(send, RATE) as at_the_new_one:
                await at_the_new_one.answers(RATE)
        finally:
            await start(trio.registry, "")
        await calls.answers(RATE)

    calls.report("registry away", worker_started_in=f"{worker_seconds:.1f} s", gateway_in=f"{gateway_seconds:.1f} s")
    at_the_new_one.report("the gateway that started meanwhile")
    assert calls.failures == at_the_new_one.failures == {}
