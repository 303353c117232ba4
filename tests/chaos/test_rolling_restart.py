"""Every process is replaced under load, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from inferway_client import Client
from tests.chaos.acts import drain, drain_and_start, http_ready
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import RATE, STREAMS, rounds
from tests.testbed.load import client_calls, plain_calls, steady, streams
from tests.testbed.ports import free_ports
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(1200)]

FOLLOW_HEALTH = '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}'
"""What gRPC itself can do for clients of several addresses, in any language."""
PLAIN_RATE = 50
MIN_READY_SECONDS = 2.5
"""Between one process and the next: longer than the two seconds that a client waits before it dials again."""
REFUSING_SECONDS = 0.5
"""A leaving gateway refuses what still comes for a fifth of a second; the rest is for a slow machine."""


async def test_a_rolling_restart_of_everything_costs_no_call(trio: Stack, other_gateway: ServiceProcess) -> None:
    """Our client knows both gateways, and one of them is always there; so do stubs that follow their health."""
    workers = trio.workers[: rounds(long=3, short=1)]
    names = {trio.registry.target: "", **{worker.target: VERSION for worker in trio.workers}}
    async with AsyncExitStack() as open_things:
        enter = open_things.enter_async_context
        client = await enter(Client(f"{trio.gateway.target},{other_gateway.target}"))
        calls = await enter(steady(client_calls(client), RATE))
        items = await enter(streams(client, STREAMS))
        both = f"ipv4:{trio.gateway.target},{other_gateway.target}"
        plain = await enter(steady(await enter(plain_calls(both, service_config=FOLLOW_HEALTH)), PLAIN_RATE))
        await calls.answers(RATE)
        for _ in range(rounds(long=10, short=1)):
            for process in (trio.registry, *workers, trio.gateway, other_gateway):
                await drain_and_start(process, names.get(process.target, "model/tiny"))
                await calls.answers(int(RATE * MIN_READY_SECONDS))

    calls.report("rolling restart, unary")
    items.report("rolling restart, stream items")
    plain.report("rolling restart, a plain channel that follows health")
    assert calls.failures == items.failures == plain.failures == {}


async def test_a_lone_address_is_handed_from_gateway_to_gateway(trio: Stack) -> None:
    """The successor listens on the same port before the other leaves: our client loses nothing.

    A channel that repeats nothing loses what it sends while the old process refuses and closes its connection.
    """
    with lone_address(trio) as gateways:
        async with AsyncExitStack() as open_things:
            enter = open_things.enter_async_context
            old = next(gateways)
            await http_ready(old)
            calls = await enter(steady(client_calls(await enter(Client(old.target))), RATE))
            plain = await enter(steady(await enter(plain_calls(old.target)), RATE))
            for _ in range(rounds(long=10, short=1)):
                await calls.answers(RATE // 2)
                new = next(gateways)
                await http_ready(new)
                await drain(old)
                old = new
            await calls.answers(RATE)

    calls.report("a lone address handed on, our client")
    plain.report("a lone address handed on, plain channel")
    assert calls.failures == {}
    assert all(is_of_a_closing_connection(cause) for cause in plain.failures), plain.failures
    assert plain.failures.total() <= RATE * REFUSING_SECONDS * rounds(long=10, short=1)


async def test_what_a_lone_gateway_without_a_successor_loses_is_known(trio: Stack) -> None:
    """Nobody else listens there while its process is replaced: the calls of that time are lost, and no others."""
    async with plain_calls(trio.gateway.target) as send, steady(send, RATE) as calls:
        await calls.answers(RATE)
        for _ in range(rounds(long=5, short=1)):
            await drain_and_start(trio.gateway, "model/tiny")
            await calls.answers(RATE)

    calls.report("a lone gateway restarted in its place, plain channel")
    assert all(is_of_a_closing_connection(cause) for cause in calls.failures), calls.failures


def is_of_a_closing_connection(cause: str) -> bool:
    """Whether a call failed because a server left, and for nothing else."""
    return cause == "DRAINING" or cause.startswith(("grpc UNAVAILABLE", "grpc CANCELLED"))


@contextmanager
def lone_address(stack: Stack) -> Iterator[Iterator[ServiceProcess]]:
    """Gateways that share one port, each started when it is asked for."""
    started: list[ServiceProcess] = []

    def start_next() -> Iterator[ServiceProcess]:
        address = ""
        while True:
            own = {"SHARE_PORT": "true", "HTTP_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "DRAIN_SECONDS": "1"}
            gateway = stack.another_gateway(f"shared-{len(started)}", **own)
            address = address or gateway.target
            gateway.target = address
            gateway.environment = {**gateway.environment, "INFERWAY_GATEWAY_GRPC_ADDRESS": address}
            gateway.start()
            started.append(gateway)
            yield gateway

    try:
        yield start_next()
    finally:
        for gateway in started:
            gateway.end()
