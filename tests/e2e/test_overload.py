"""More than can be served, over sockets: what is admitted is answered in time, and the rest hears of it at once.

Short forms of `make overload`; all print their figures. Bounds are those of docs/reliability.md where a run this
short can tell; times are compared with those of calls that ask for nothing, since others use the same processors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from grpc import aio

from inferway.errors import InferwayError, MemoryPressure
from inferway_client import Client, RetryPolicy
from tests.testbed.calls import decoded, model_infer
from tests.testbed.open_loop import slow_request
from tests.testbed.overload import (
    DEADLINE_SECONDS,
    ROW_SECONDS,
    all_pushed_back,
    capacity,
    flood,
    replaced_under_load,
    two_classes,
    two_tenants,
    workers_away,
)
from tests.testbed.processes import ServiceProcess
from tests.testbed.slow_model import MODEL, WIDTH, WORKER_SETTINGS, serve_slow_model
from tests.testbed.stack import Stack

pytestmark = pytest.mark.alone

REFUSAL_SECONDS = 0.02
X = {"x": np.ones((1, WIDTH), np.float32)}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose one worker computes some hundred rows a second."""
    with Stack(tmp_path_factory.mktemp("slow"), settings={"inference": WORKER_SETTINGS}) as running:
        serve_slow_model(running, ROW_SECONDS)
        yield running


@pytest.fixture(scope="module")
def peak_rate(slow: Stack) -> float:
    """Answers a second when nobody asks for more."""
    return asyncio.run(capacity(slow))


@pytest.mark.chaos
async def test_five_times_the_capacity_costs_nothing_but_refusals(slow: Stack, peak_rate: float):
    """A server that collapses under too much load serves nobody, and stays down when the load goes."""
    result = await flood(slow, peak_rate, 4.0)

    print("", *result.lines(), sep="\n")
    record = result.record
    assert record.goodput >= 0.9 * result.peak
    assert record.admitted_p99 <= DEADLINE_SECONDS + 3 * result.idle_p95
    assert record.refusal_seconds(0.95) <= REFUSAL_SECONDS + 3 * result.idle_p95
    assert all_pushed_back(record)
    assert result.after.normal_after() <= 3.0


async def test_what_can_be_shed_is_shed_before_what_is_critical(slow: Stack, peak_rate: float):
    """That is what the classes are for."""
    record = await two_classes(slow, peak_rate, 4.0)

    critical, sheddable = record.of("critical"), record.of("sheddable")
    print("", critical.line("critical"), sheddable.line("sheddable"), sep="\n")
    assert critical.success >= 0.99
    assert sheddable.refused


async def test_a_greedy_tenant_takes_nothing_from_a_modest_one(slow: Stack, peak_rate: float):
    """Who stays within his share must not feel that others do not."""
    record = await two_tenants(slow, peak_rate, 4.0)

    greedy, modest = record.of("greedy"), record.of("modest")
    print("", greedy.line("greedy"), modest.line("modest"), sep="\n")
    assert modest.success >= 0.99
    assert greedy.goodput + modest.goodput >= 0.9 * peak_rate


async def test_while_all_workers_are_away_retries_make_little_more_of_the_calls(slow: Stack):
    """Whoever comes back first must not meet three times the traffic."""
    absence = await workers_away(slow, 5.0)

    print("", absence.line(), sep="\n")
    assert absence.attempts <= absence.permitted
    assert absence.seconds_to_recover <= 4.0


async def test_two_gateways_are_replaced_and_our_client_notices_nothing(slow: Stack):
    """A client that knows both addresses goes round the one that is leaving."""
    second = slow.another_gateway("second")
    second.start()
    try:
        second.wait_serving(f"model/{MODEL}")
        failures = await replaced_under_load([slow.gateway, second], rounds=1, rate=40.0)
    finally:
        second.end()

    assert failures == {}


async def test_our_client_goes_to_the_other_gateway_when_one_is_killed(slow: Stack):
    """What the dead one held is asked again elsewhere."""
    second = slow.another_gateway("killed")
    second.start()
    try:
        second.wait_serving(f"model/{MODEL}")
        async with Client(f"{second.target},{slow.gateway.target}") as client:
            await client.predict(MODEL, X)
            second.kill()
            for _ in range(10):
                assert (await client.predict(MODEL, X)).version == 1
    finally:
        second.end()


@pytest.fixture
async def starved(slow: Stack) -> AsyncIterator[ServiceProcess]:
    """A gateway with a limit that it is beyond from its start."""
    gateway = slow.another_gateway("starved", MEMORY_LIMIT_BYTES="1000000")
    gateway.start()
    try:
        gateway.wait_serving()
        yield gateway
    finally:
        gateway.end()


async def test_a_gateway_without_memory_refuses_everything_but_health(starved: ServiceProcess):
    """To be killed for its memory would cost the calls that it has."""
    async with Client(starved.target, retries=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(MemoryPressure) as caught:
            await client.predict(MODEL, X)
        assert caught.value.retry_after_seconds == 1.0
        with pytest.raises(MemoryPressure):
            async with client.stream(MODEL):
                pytest.fail("opened")
    starved.wait_serving()


async def test_large_requests_are_held_one_by_one_where_the_operator_permits_no_more(slow: Stack):
    """Bytes that wait are memory, whatever their number."""
    width, count = 100_000, 8
    serve_slow_model(slow, 0.05, name="wide", width=width)
    gateway = slow.another_gateway("narrow", MAX_HELD_BYTES="1")
    gateway.start()
    try:
        gateway.wait_serving("model/wide")
        reasons = await asked_at_once(gateway.target, width, count)
        assert reasons.count("") >= 1
        assert set(reasons) == {"", "MEMORY_PRESSURE"}
        assert await asked_at_once(gateway.target, width, 1) == [""]
    finally:
        gateway.end()


async def asked_at_once(target: str, width: int, count: int) -> list[str]:
    """The reasons of so many calls, empty for answers."""
    request = slow_request("wide", width)
    async with aio.insecure_channel(target) as channel:
        calls = [model_infer(channel)(request, timeout=20.0) for _ in range(count)]
        return [await _reason(call) for call in calls]


async def _reason(call: aio.UnaryUnaryCall) -> str:  # type: ignore[type-arg] # whatever it calls
    try:
        await call
    except aio.AioRpcError as failed:
        error = decoded(failed)
        assert isinstance(error, InferwayError)
        return error.reason
    return ""
