"""Goodput over sockets: the worker under open-loop Poisson load with mixed deadlines, against fixed-window workers.

What computes is a stand-in that sleeps for as long as a batch of so many rows would take: the callers, the worker's
front and the load are all real, and the two cores of a small machine are theirs. Rates are shares of the most rows a
second that the stand-in computes with two callers.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from grpc import aio

from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2 as pb
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

LOADS = (0.3, 0.7, 1.0, 2.0, 5.0)
WINDOWS = {"8 rows, no wait": "8 0", "32 rows, 10 ms": "32 0.01", "64 rows, no wait": "64 0"}
OWN = "inferway"
BATCH_SECONDS, ROW_SECONDS, MOST_ROWS, CALLERS = 0.020, 0.012, 64, 2
CAPACITY = CALLERS * MOST_ROWS / (BATCH_SECONDS + MOST_ROWS * ROW_SECONDS)
DEADLINES = tuple(times * (BATCH_SECONDS + ROW_SECONDS) for times in (5, 10, 20, 50))
"""In times that a single row takes; all equally often."""
LATE_SECONDS = 0.25
"""So much longer than its deadline a caller waits here, to see how late answers are."""
BLOCK_SECONDS = 0.5
CHANNELS = 4
INPUT_WIDTH = 32
_INFER = "/inferway.worker.v1.WorkerService/Infer"
_REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@dataclass(slots=True)
class Run:
    """One policy under one load."""

    policy: str
    load: float
    good: list[float] = field(default_factory=list)
    """Answers in time per second, as a share of capacity, in blocks of BLOCK_SECONDS."""
    shares: list[float] = field(default_factory=list)
    """Of the admitted: time to the answer as a share of the deadline; infinite without an answer."""

    def told(self) -> dict[str, object]:
        """For the table: mean and half of its 95 % interval."""
        half = 1.96 * statistics.stdev(self.good) / math.sqrt(len(self.good))
        p99 = sorted(self.shares)[int(len(self.shares) * 0.99)]
        named = {"policy": self.policy, "load": self.load}
        return {**named, "goodput": statistics.mean(self.good), "interval": half, "p99": min(p99, 9.99)}


@dataclass(slots=True)
class _Call:
    due: float
    """Since the run began."""
    deadline: float
    ended: float = math.inf
    refused: bool = False


class Goodput:
    """Starts a worker for each policy and loads them in turn."""

    def __init__(self, directory: Path, models: Path, rounds: int, seconds: float) -> None:
        """`models` has the tiny model, whose files the stand-in is published with."""
        self._directory, self._models, self._rounds, self._seconds = directory, models, rounds, seconds

    def run(self) -> list[dict[str, object]]:
        """Every load with every policy, interleaved."""
        runs = {(policy, load): Run(policy, load) for load in LOADS for policy in (OWN, *WINDOWS)}
        with ExitStack() as stacks:
            targets = {policy: self._serve(stacks, policy) for policy in (OWN, *WINDOWS)}
            for turn in range(self._rounds):
                for (policy, load), run in runs.items():
                    asyncio.run(measure(run, *targets[policy], self._seconds, seed=turn))
                    print(f"  {load} times capacity, {policy}: {statistics.mean(run.good):.3f}", flush=True)
        return [run.told() for run in runs.values()]

    def _serve(self, stacks: ExitStack, policy: str) -> tuple[str, str]:
        """Address of a worker of this policy, and the version there."""
        own = {"INFERWAY_INFERENCE_RUNTIMES": '{"tensorflow": "fake"}'}
        folder = self._directory / policy.replace(" ", "-").replace(",", "")
        stack = Stack(folder, settings={"inference": {**own, "FIXED_WINDOW": WINDOWS.get(policy, "")}})
        if policy != OWN:
            stack.workers[0].module = "benchmarks.fixed_window_worker"
        stacks.enter_context(stack)
        version = publish(stack.registry.target, "timer", self._stand_in(folder / "model"))
        stack.gateway.wait_serving("model/timer", timeout_seconds=60)
        return stack.workers[0].target, version.name

    def _stand_in(self, folder: Path) -> Path:
        shutil.copytree(self._models / "tensorflow" / "tiny", folder)
        signature = {
            "inputs": {"x": ["FP32", [-1, INPUT_WIDTH]]},
            "outputs": {"y": ["FP32", [-1, INPUT_WIDTH]]},
            "operation": "identity",
            "batch_seconds": BATCH_SECONDS,
            "row_seconds": ROW_SECONDS,
        }
        (folder / "assets.extra").mkdir(exist_ok=True)
        content = json.dumps({"signatures": {"serving_default": signature}})
        (folder / "assets.extra" / "fake_model.json").write_text(content)
        return folder


async def measure(run: Run, target: str, version: str, seconds: float, seed: int) -> None:
    """Adds one run; its first part does not count, in which queues fill up."""
    settle = DEADLINES[-1]
    calls = list(arrivals(run.load * CAPACITY, settle + seconds, seed))
    async with Caller(target, version) as caller:
        await caller.send(calls)
    for start in (settle + index * BLOCK_SECONDS for index in range(int(seconds / BLOCK_SECONDS))):
        good = sum(start <= one.ended < start + BLOCK_SECONDS and one.ended - one.due <= one.deadline for one in calls)
        run.good.append(good / BLOCK_SECONDS / CAPACITY)
    run.shares += [(one.ended - one.due) / one.deadline for one in calls if one.due >= settle and not one.refused]


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[_Call]:
    """Poisson, with deadlines."""
    source, now = random.Random(seed), 0.0  # noqa: S311 - seeded on purpose
    while (now := now + source.expovariate(rate)) < seconds:
        yield _Call(now, source.choice(DEADLINES))


class Caller:
    """Sends each request when it is due, whatever comes back."""

    def __init__(self, target: str, version: str) -> None:
        """Nothing is sent."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [aio.insecure_channel(target, options) for _ in range(CHANNELS)]
        self._infer: list[Any] = [channel.unary_unary(_INFER) for channel in self._channels]
        self._version = version

    async def __aenter__(self) -> Self:
        """Connects."""
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnects."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def send(self, calls: list[_Call]) -> None:
        """Returns when all have ended."""
        began, under_way = time.perf_counter(), []
        for number, call in enumerate(calls):
            await asyncio.sleep(max(0.0, began + call.due - time.perf_counter()))
            under_way.append(asyncio.create_task(self._one(call, number, began)))
        await asyncio.gather(*under_way)

    async def _one(self, call: _Call, number: int, began: float) -> None:
        left = max(0.001, call.deadline - (time.perf_counter() - began - call.due))
        try:
            await self._infer[number % CHANNELS](payload(self._version, left), timeout=left + LATE_SECONDS)
        except aio.AioRpcError as error:
            call.refused = error.code() in _REFUSED
            if not call.refused and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        else:
            call.ended = time.perf_counter() - began


def payload(version: str, seconds_left: float) -> bytes:
    """A request of one row that has so much time."""
    shape = (1, INPUT_WIDTH)
    tensor = tensor_pb2.Tensor(name="x", datatype=tensor_pb2.DATA_TYPE_FP32, shape=shape, raw=bytes(4 * INPUT_WIDTH))
    envelope = pb.Envelope(
        id=1,
        version=version,
        signature="serving_default",
        inputs=[tensor],
        rows=1,
        remaining_us=int(seconds_left * 1e6),
    )
    return pb.InferRequest(envelope=envelope).SerializeToString()
