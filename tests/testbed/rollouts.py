"""A rollout under load, over sockets: what callers met, and when the candidate was given nothing any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from inferway.prediction.v1 import prediction_service_pb2 as predict_pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.registry.v1 import (
    endpoint_service_pb2,
    resources_pb2,
    rollout_service_pb2,
    rollouts_pb2,
    watch_service_pb2,
)
from inferway.registry.v1.endpoint_service_pb2_grpc import EndpointServiceStub
from inferway.registry.v1.rollout_service_pb2_grpc import RolloutServiceStub
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceStub
from inferway_client.tensors import encode_all
from tests.testbed.calls import decoded

State = rollouts_pb2.Rollout
STOPS = frozenset({State.STATE_SUCCEEDED, State.STATE_ROLLED_BACK, State.STATE_FAILED, State.STATE_PAUSED})
BACK = frozenset({State.STATE_ROLLING_BACK, State.STATE_ROLLED_BACK})
CALL_SECONDS = 10.0
WIDTH = 3


def seconds(value: float) -> Duration:
    """As protobuf has it."""
    whole = Duration()
    whole.FromMicroseconds(int(value * 1e6))
    return whole


def canary(version: str, steps: Iterable[tuple[int, float]], **judging: float) -> rollouts_pb2.RolloutSpec:
    """A spec with so short a baseline and bake that a test can wait for them; `steps` are weight and seconds."""
    return rollouts_pb2.RolloutSpec(
        candidate_version=version,
        canary=rollouts_pb2.CanaryStrategy(
            steps=[rollouts_pb2.CanaryStep(weight_basis_points=w, hold=seconds(s)) for w, s in steps]
        ),
        judging=rollouts_pb2.JudgingSpec(**judging),  # type: ignore[arg-type]
        baseline=seconds(1.0),
        bake=seconds(1.0),
    )


def shadow(version: str, pairs: int = 1_000_000) -> rollouts_pb2.RolloutSpec:
    """Copies of everything, until so many were compared."""
    return rollouts_pb2.RolloutSpec(
        candidate_version=version, shadow=rollouts_pb2.ShadowStrategy(min_pairs=pairs), baseline=seconds(1.0)
    )


@dataclass(frozen=True, slots=True)
class Met:
    """One call, on the loop's clock."""

    begun: float
    ended: float
    arm: str
    """Empty if it failed."""
    failure: str = ""


@dataclass(slots=True)
class Callers:
    """What callers of an endpoint met, one entry for each call in the order of their ends."""

    met: list[Met] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self, met: Met) -> None:
        """A call has ended."""
        self.met.append(met)
        async with self._changed:
            self._changed.notify_all()

    async def ends(self, more: int, timeout_seconds: float = 30.0) -> None:
        """Returns after `more` further calls have ended: at a steady rate, a measure of time."""
        wanted = len(self.met) + more
        await self._until(lambda: len(self.met) >= wanted, timeout_seconds)

    async def until_arm(self, arm: str, timeout_seconds: float = 30.0) -> None:
        """Returns when an arm has answered."""
        await self._until(lambda: any(met.arm == arm for met in self.met), timeout_seconds)

    async def _until(self, done: Callable[[], bool], timeout_seconds: float) -> None:
        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(done)

    def now(self) -> float:
        """On the clock of what was met."""
        return asyncio.get_running_loop().time()

    def span(self, arm: str) -> tuple[float, float]:
        """When the first call ended, and the last began, that went to `arm` or failed, as calls to it may."""
        those = [met for met in self.met if met.failure or met.arm == arm]
        return min(met.ended for met in those), max(met.begun for met in those)

    def percentile(self, share: float) -> float:
        """Seconds within which `share` of the answers came."""
        ranked = sorted(met.ended - met.begun for met in self.met if met.arm)
        return ranked[min(int(len(ranked) * share), len(ranked) - 1)]

    @property
    def failures(self) -> Counter[str]:
        """By reason."""
        return Counter(met.failure for met in self.met if met.failure)

    def arms(self) -> Counter[str]:
        """Answers by arm."""
        return Counter(met.arm for met in self.met if met.arm)


@asynccontextmanager
async def calling(target: str, endpoint: str, rate: float, seed: int = 7) -> AsyncIterator[Callers]:
    """Calls `endpoint` with rows of two to three at `rate` a second while the body runs, as plain stubs do."""
    random, callers, under_way = np.random.default_rng(seed), Callers(), set[asyncio.Task[None]]()
    async with aio.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
        stub = PredictionServiceStub(channel)
        pacer = asyncio.create_task(_pace(stub, endpoint, rate, random, callers, under_way))
        try:
            yield callers
        finally:
            pacer.cancel()
            await asyncio.gather(pacer, *under_way, return_exceptions=True)


async def _pace(
    stub: Any, endpoint: str, rate: float, random: np.random.Generator, callers: Callers, tasks: set[asyncio.Task[None]]
) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.create_task(_call(stub, endpoint, random.uniform(2, 3, (1, WIDTH)).astype("f4"), due, callers))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate


async def _call(stub: Any, endpoint: str, rows: np.ndarray, due: float, callers: Callers) -> None:
    loop = asyncio.get_running_loop()
    request = predict_pb.PredictRequest(target=predict_pb.Target(endpoint=endpoint), inputs=encode_all({"x": rows}))
    try:
        response = await stub.Predict(request, timeout=CALL_SECONDS)
    except aio.AioRpcError as error:
        typed = decoded(error)
        await callers.note(Met(due, loop.time(), "", getattr(typed, "reason", error.code().name)))
    else:
        await callers.note(Met(due, loop.time(), response.arm))


class Control:
    """The registry's rollouts, by generated stubs."""

    def __init__(self, channel: aio.Channel) -> None:
        """Through `channel` to a registry."""
        self._rollouts, self._endpoints = RolloutServiceStub(channel), EndpointServiceStub(channel)
        self._watch = WatchServiceStub(channel)

    async def hold(self, endpoint: str, version: str) -> None:
        """Gives `version` all traffic, whatever is published."""
        arm = resources_pb2.Arm(arm="v1", version=version, weight_basis_points=10_000)
        wanted = resources_pb2.Endpoint(name=f"endpoints/{endpoint}", arms=[arm])
        await self._endpoints.UpdateEndpoint(endpoint_service_pb2.UpdateEndpointRequest(endpoint=wanted), timeout=10)

    async def start(self, endpoint: str, spec: rollouts_pb2.RolloutSpec) -> str:
        """Its name."""
        request = rollout_service_pb2.CreateRolloutRequest(
            parent=f"endpoints/{endpoint}", rollout=rollouts_pb2.Rollout(spec=spec)
        )
        return (await self._rollouts.CreateRollout(request, timeout=10)).rollout.name

    async def get(self, name: str) -> rollouts_pb2.Rollout:
        """As it stands."""
        request = rollout_service_pb2.GetRolloutRequest(name=name)
        return (await self._rollouts.GetRollout(request, timeout=10)).rollout

    async def act(self, method: str, name: str, **more: Any) -> rollouts_pb2.Rollout:
        """`Abort`, `Promote` and so on."""
        request = getattr(rollout_service_pb2, f"{method}RolloutRequest")(name=name, **more)
        response: Any = await getattr(self._rollouts, f"{method}Rollout")(request, timeout=10)
        return response.rollout  # type: ignore[no-any-return]

    async def until(self, name: str, states: Iterable[int], timeout_seconds: float = 60.0) -> rollouts_pb2.Rollout:
        """Follows the registry's events until the rollout is in one of `states`; fails if it stops elsewhere."""
        wanted = frozenset(states)
        call = self._watch.WatchEvents(watch_service_pb2.WatchEventsRequest(after_sequence=0))
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    rollout = await self.get(name)
                    if rollout.state in wanted:
                        return rollout
                    assert rollout.state not in STOPS, (State.State.Name(rollout.state), rollout.reason)
                    await _next_of(call, name)
        except TimeoutError:
            rollout = await self.get(name)
            raise AssertionError(f"{State.State.Name(rollout.state)}: {rollout.reason} {rollout.next}") from None
        finally:
            call.cancel()


async def _next_of(call: Any, name: str) -> None:
    while True:
        response = await call.read()
        assert response is not aio.EOF
        if response.event.resource == name:
            return


@asynccontextmanager
async def control(target: str) -> AsyncIterator[Control]:
    """Of the registry at `target`."""
    async with aio.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        yield Control(channel)
