"""Replaces a model again and again beside a hot one, and looks at the hot one's latency and at the worker's memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
from google.protobuf.message import Message

from benchmarks import loadgen
from inferway.worker.v1 import worker_service_pb2 as pb
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

M = TypeVar("M", bound=Message)

INFER = "/inferway.worker.v1.WorkerService/Infer"

HOT, COLD = "medium", "tiny"
LOAD_SHARE = 0.4
CAPACITY_CALLERS, CAPACITY_SECONDS = 8, 3.0
STEADY_SECONDS = 15.0
LARGEST_WAIT_SECONDS = 120.0


class Swaps:
    """See the module."""

    def __init__(
        self, stack: Stack, models: Path, count: int, binary: Path, request: Callable[[str, str, int], Path]
    ) -> None:
        """The load generators are in `binary`; `request(model, version, rows)` makes an InferRequest's file."""
        self._stack, self._models, self._count, self._binary, self._request = stack, models, count, binary, request

    def run(self) -> dict[str, Any]:
        """Steady first, then swapping, then the memory."""
        hot = self._publish(HOT)
        self._publish(COLD)
        request = self._request(HOT, hot, 1)
        rate = LOAD_SHARE * self._capacity(request)
        steady = self._pace(request, rate)
        time.sleep(STEADY_SECONDS)
        calm = percentile(steady.stop())
        memory = self._settled_memory()
        swapping = self._pace(request, rate)
        for turn in range(self._count):
            self._publish(COLD)
            print(f"  swap {turn + 1} of {self._count}", flush=True)
        busy = percentile(swapping.stop())
        return {
            "swaps": self._count,
            "requests_per_second": rate,
            "p99_steady_ms": calm,
            "p99_swapping_ms": busy,
            "p99_ratio": busy / calm,
            "memory_growth": self._settled_memory() / memory - 1.0,
        }

    def _publish(self, model: str) -> str:
        """A new version, once it serves alone."""
        version = publish(self._stack.registry.target, model, self._models / "tensorflow" / model).name
        self._stack.gateway.wait_serving(f"model/{model}", timeout_seconds=LARGEST_WAIT_SECONDS)
        deadline = time.monotonic() + LARGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            states = {one.version: one.state for one in self._statuses() if one.version.startswith(f"models/{model}/")}
            held = [name for name, state in states.items() if state != pb.LOAD_STATE_UNLOADED]
            if held == [version] and states[version] == pb.LOAD_STATE_READY:
                return version
            time.sleep(0.2)
        raise RuntimeError(f"{version} did not become the only one of {model}")

    def _statuses(self) -> list[pb.VersionStatus]:
        target = self._stack.workers[0].target
        answer = ask(target, "GetWorkerStatus", pb.GetWorkerStatusRequest(), pb.GetWorkerStatusResponse)
        return list(answer.worker.versions)

    def _pace(self, request: Path, rate: float) -> loadgen.Paced:
        return loadgen.Paced(self._binary, self._stack.workers[0].target, INFER, request, rate)

    def _capacity(self, request: Path) -> float:
        """Requests per second of so many callers."""
        target = self._stack.workers[0].target
        found = loadgen.unary(self._binary, target, INFER, request, CAPACITY_CALLERS, CAPACITY_SECONDS)
        return float(found["rps"])

    def _settled_memory(self) -> float:
        """Bytes that the worker and its children have for themselves, when it does not change any more."""
        last, same = 0.0, 0
        while same < 3:
            family = [psutil.Process(self._stack.workers[0].pid), *self._stack.workers[0].children()]
            now = float(sum(process.memory_full_info().uss for process in family))
            same = same + 1 if abs(now - last) < 0.005 * now else 0
            last = now
            time.sleep(1.0)
        return last


def ask(target: str, method: str, request: Message, response: type[M]) -> M:
    """One call of the worker."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            f"/inferway.worker.v1.WorkerService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        answer: M = call(request, timeout=10)
    return answer


def percentile(milliseconds: list[float]) -> float:
    """The 99th."""
    return statistics.quantiles(milliseconds, n=100)[98]
