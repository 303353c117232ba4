"""Hundreds of sessions of a recurrent model while everything under them dies: nothing is lost, doubled or out of order.

The model is that of `examples/eta` in TensorFlow. Two gateways share a session store, so that at the end each session's
state can be read there, and compared with what NumPy makes of the same items.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from grpc import aio

from examples.eta import numpy_model
from inferway.registry.v1 import endpoint_service_pb2_grpc, resources_pb2
from inferway.registry.v1.endpoint_service_pb2 import UpdateEndpointRequest
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_FINISH, STREAM_POLICY_MIGRATE
from inferway_client import Client
from tests.chaos.acts import drain, kill_and_start, start
from tests.chaos.lengths import LONG, rounds, seconds
from tests.testbed import redis_server
from tests.testbed.eta import EtaModel
from tests.testbed.processes import ServiceProcess
from tests.testbed.publishing import publish
from tests.testbed.session_load import GROUPS, SessionFigures, close, item_of, sessions, share, wrong_states
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(600)]

SESSIONS = rounds(long=500, short=50)
TURN_SECONDS = seconds(long=4.0, short=0.5)
CAUGHT = SESSIONS // GROUPS
"""Sessions that a crash finds with items under way."""
KILL_EVERY_SECONDS = 10.0
CRASH_SECONDS = 5.0
"""So long after a crash waits are counted as its own."""
MAX_GAP_SECONDS = 2.0
VERSION = "model/eta@1"
CONFIG = resources_pb2.VersionConfig(
    isolation=resources_pb2.ISOLATION_INLINE,
    state=[resources_pb2.StateBinding(input="state", output="next_state")],
)


@dataclass(frozen=True, slots=True)
class Bed:
    """Registry, three workers, two gateways with one session store."""

    stack: Stack
    other_gateway: ServiceProcess
    store_url: str
    eta: EtaModel

    @property
    def gateways(self) -> tuple[ServiceProcess, ServiceProcess]:
        """Both."""
        return self.stack.gateway, self.other_gateway

    def publish(self, endpoint: str) -> None:
        """The model, once more."""
        publish(self.stack.registry.target, endpoint, self.eta.saved_model, config=CONFIG)

    def wait_serving(self, endpoint: str) -> None:
        """Returns when both gateways can answer."""
        for gateway in self.gateways:
            gateway.wait_serving(f"model/{endpoint}")

    @asynccontextmanager
    async def sessions(self, endpoint: str = "eta") -> AsyncIterator[SessionFigures]:
        """SESSIONS of them, for as long as the body runs, and then the states that they left."""
        async with (
            Client(",".join(gateway.target for gateway in self.gateways)) as client,
            sessions(client, endpoint, self.eta.weights, SESSIONS, TURN_SECONDS) as figures,
        ):
            await figures.more_turns(2 * SESSIONS)
            yield figures
            await figures.more_turns(SESSIONS)
        assert figures.failures == {}
        assert len(figures.ended) == SESSIONS
        assert await wrong_states(self.store_url, figures.ended) == []


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, eta: EtaModel) -> Iterator[Bed]:
    """Everything up, and the model ready on all workers."""
    directory = tmp_path_factory.mktemp("sessions")
    with redis_server.running() as redis:
        store = {"INFERWAY_GATEWAY_SESSION_STORE": redis.url}
        with Stack(directory / "stack", workers_count=3, settings={"gateway": store}) as stack:
            bed = Bed(stack, stack.another_gateway("other-gateway"), redis.url, eta)
            bed.other_gateway.start()
            try:
                bed.publish("eta")
                for worker in stack.workers:
                    worker.wait_serving(VERSION)
                bed.wait_serving("eta")
                yield bed
            finally:
                bed.other_gateway.end()


def test_a_lost_a_doubled_and_a_swapped_item_would_be_seen(bed: Bed) -> None:
    """Or the comparison with NumPy would prove nothing."""
    items = list(range(1, 41))
    for spoilt in (items[:19] + items[20:], items[:20] + items[19:], [*items[:19], 21, 20, *items[21:]]):
        assert not close(state_after(bed, spoilt[:22]), state_after(bed, items[: len(spoilt[:22])]))


def state_after(bed: Bed, items: list[int]) -> np.ndarray:
    """Of a session that got these items."""
    state = numpy_model.initial_state(bed.eta.weights, len(item_of(0, 1)))
    for number in items:
        _, state = numpy_model.step(bed.eta.weights, item_of(0, number), state)
    return state


async def test_sessions_outlive_workers_that_are_killed_again_and_again(bed: Bed) -> None:
    """Every ten seconds for two minutes, or twice; what was under way goes to another worker, with its state."""
    clock, kills = asyncio.get_running_loop().time, list[float]()
    async with bed.sessions() as figures:
        for number in range(rounds(long=12, short=2)):
            await figures.under_way(CAUGHT)
            kills.append(clock())
            await kill_and_start(bed.stack.workers[number % 3], VERSION)
            if LONG:
                left = kills[-1] + KILL_EVERY_SECONDS - clock()
                await figures.more_turns(int(max(0.0, left) * SESSIONS / TURN_SECONDS))

    gap = share(figures.gaps(kills, CRASH_SECONDS), 0.99)
    figures.report("workers killed", kills=len(kills), p99_gap_at_a_crash=f"{gap:.2f} s")
    assert gap < MAX_GAP_SECONDS


async def test_sessions_outlive_a_gateway_that_is_killed(bed: Bed) -> None:
    """They go on at the other one, which shares its store: what was answered is in there, and nothing else."""
    clock, kills = asyncio.get_running_loop().time, list[float]()
    async with bed.sessions() as figures:
        for number in range(rounds(long=6, short=2)):
            await figures.under_way(CAUGHT)
            kills.append(clock())
            await kill_and_start(bed.gateways[number % 2], "model/eta")
            await figures.more_turns(SESSIONS)

    gap = share(figures.gaps(kills, CRASH_SECONDS), 0.99)
    figures.report("gateways killed", kills=len(kills), p99_gap_at_a_crash=f"{gap:.2f} s")
    assert gap < MAX_GAP_SECONDS


async def test_sessions_outlive_workers_that_drain(bed: Bed) -> None:
    """A deploy of the workers: each is asked to leave, and comes back."""
    async with bed.sessions() as figures:
        for worker in bed.stack.workers[: rounds(long=3, short=1)]:
            await figures.under_way(CAUGHT)
            await drain(worker)
            await figures.more_turns(SESSIONS)
            await start(worker, VERSION)

    figures.report("workers drained")


@pytest.mark.parametrize("policy", [STREAM_POLICY_FINISH, STREAM_POLICY_MIGRATE])
async def test_sessions_outlive_a_new_version(bed: Bed, policy: resources_pb2.StreamPolicy.ValueType) -> None:
    """They stay where they began, or take their state along, as the endpoint says; new ones begin with the new one."""
    endpoint = f"eta-{policy}"
    bed.publish(endpoint)
    bed.wait_serving(endpoint)
    await tell(bed, endpoint, policy)
    async with bed.sessions(endpoint) as figures:
        await asyncio.to_thread(bed.publish, endpoint)
        await begins_with_the_second(bed, endpoint)
        await figures.more_turns(3 * SESSIONS)

    stay = policy == STREAM_POLICY_FINISH
    figures.report("a new version", policy="finish" if stay else "migrate", by=dict(figures.versions))
    assert set(figures.versions) == {f"models/{endpoint}/versions/{number}" for number in ([1] if stay else [1, 2])}
    assert {ended.version for ended in figures.ended} == {max(figures.versions)}


async def tell(bed: Bed, endpoint: str, policy: resources_pb2.StreamPolicy.ValueType) -> None:
    """Says what sessions do when the endpoint gets another version."""
    wanted = resources_pb2.Endpoint(name=f"endpoints/{endpoint}", automatic=True, stream_policy=policy)
    async with aio.insecure_channel(bed.stack.registry.target) as channel:
        stub = endpoint_service_pb2_grpc.EndpointServiceStub(channel)
        await stub.UpdateEndpoint(UpdateEndpointRequest(endpoint=wanted), timeout=10)


async def begins_with_the_second(bed: Bed, endpoint: str) -> None:
    """Returns when new sessions begin with version 2 at either gateway."""
    for gateway in bed.gateways:
        async with Client(gateway.target) as client, asyncio.timeout(60):
            while await first_version(client, endpoint) != 2:
                pass


async def first_version(client: Client, endpoint: str) -> int:
    """Which version answers a new session."""
    async with client.stream(endpoint) as stream:
        await stream.send({"x": item_of(0, 1)})
        await stream.finish()
        return (await anext(stream)).unwrap().version
