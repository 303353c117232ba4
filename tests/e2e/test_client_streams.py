"""Sessions of the client over real sockets: the way breaks, gateways die and leave, and the sums are right."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest

from inferway_client import Client, PredictionStream
from inferway_client.carrier import IDLE_SECONDS
from inferway_client.tensors import Arrays
from tests.testbed import redis_server
from tests.testbed.fault_proxy import FaultProxy
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack
from tests.unit.client.prediction_suite import number, y

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

HEARTBEAT_SECONDS = 0.2
SILENCE_SECONDS = 5 * HEARTBEAT_SECONDS
"""Longer than a client's patience."""


@contextmanager
def gateways(stack: Stack, *names: str, **environment: str) -> Iterator[list[ServiceProcess]]:
    """Further gateways before the workers of `stack`."""
    environment["STREAM_HEARTBEAT_SECONDS"] = str(HEARTBEAT_SECONDS)
    made = [stack.another_gateway(name, **environment) for name in names]
    try:
        for gateway in made:
            gateway.start()
        for gateway in made:
            gateway.wait_serving("model/accumulator")
        yield made
    finally:
        for gateway in made:
            gateway.end()


class Session:
    """Items that never pause, and their sums."""

    def __init__(self, stream: PredictionStream) -> None:
        """`run` it once."""
        self._stream = stream
        self._changed = asyncio.Condition()
        self._over = False
        self.sums: list[float] = []

    async def run(self) -> None:
        """Until `finish`; every result is checked."""
        async for result in self._stream.map(self._values()):
            assert result.id == len(self.sums)
            self.sums.append(y(result))
            async with self._changed:
                self._changed.notify_all()
        assert self.sums == list(np.cumsum(np.arange(len(self.sums)) % 100))

    async def goes_on(self) -> None:
        """Returns when more items were answered."""
        goal = len(self.sums) + 30
        async with self._changed, asyncio.timeout(30.0):
            await self._changed.wait_for(lambda: len(self.sums) >= goal)

    def finish(self) -> None:
        """Sends no more."""
        self._over = True

    async def _values(self) -> AsyncIterator[Arrays]:
        for value in itertools.count():
            if self._over:
                return
            yield number(value % 100)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def session(target: str) -> AsyncIterator[Session]:
    """A session that goes on while the body runs."""
    async with Client(target) as client, client.stream("accumulator", max_in_flight=8, timeout=30.0) as stream:
        running = Session(stream)
        task = asyncio.create_task(running.run())
        try:
            await running.goes_on()
            yield running
            running.finish()
            await task
        finally:
            task.cancel()


async def test_a_session_survives_every_way_in_which_its_connection_breaks(stack: Stack) -> None:
    """Resets, refused connections and a black hole cost time, and no item is applied twice or left out."""
    with gateways(stack, "lonely") as [gateway]:
        async with FaultProxy(gateway.target) as proxy, session(proxy.address) as items:
            for _ in range(3):
                proxy.cut()
                await items.goes_on()
            for break_it in (proxy.refuse, proxy.hold):
                break_it()
                await asyncio.sleep(SILENCE_SECONDS)
                proxy.restore()
                await items.goes_on()
            assert proxy.connections >= 4


async def test_a_session_survives_its_gateways(stack: Stack) -> None:
    """One is killed, the other asked to leave: with a store that they share, the client only needs both addresses."""
    with (
        redis_server.running() as store,
        gateways(stack, "first", "second", SESSION_STORE=store.url) as [first, second],
    ):
        async with session(f"{first.target},{second.target}") as items:
            first.kill()
            await items.goes_on()
            first.start()
            await asyncio.to_thread(first.wait_serving, "model/accumulator")
            second.terminate()
            await items.goes_on()
            first.terminate()
            await asyncio.to_thread(second.wait)
            second.start()
            await items.goes_on()


async def test_a_session_at_rest_survives_too(stack: Stack) -> None:
    """When all is acknowledged, a connection that is cut looks much like a client that has finished."""
    async with (
        FaultProxy(stack.gateway.target) as proxy,
        Client(proxy.address) as client,
        client.stream("accumulator") as stream,
    ):
        for value in range(1, 11):
            await stream.send(number(1))
            assert y(await anext(stream)) == value
            await asyncio.sleep(2 * IDLE_SECONDS)  # acknowledged by now
            proxy.cut()
