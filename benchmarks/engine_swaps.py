"""Replaces a model again and again beside a hot one, and looks at the hot one's latency and at the worker's memory."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
from google.protobuf.message import Message

from inferway.worker.v1 import worker_service_pb2 as pb
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

M = TypeVar("M", bound=Message)

HOT, COLD = "medium", "tiny"
LOAD_SHARE = 0.4
MOST_PER_SECOND = 300.0
"""Requests that this Python process sends: more would measure the sender."""
STEADY_SECONDS = 15.0
LARGEST_WAIT_SECONDS = 120.0


class Swaps:
    """See the module."""

    def __init__(self, stack: Stack, models: Path, count: int, request: Callable[[str, str, int], Path]) -> None:
        """`request(model, version, rows)` makes an InferRequest's file."""
        self._stack, self._models, self._count, self._request = stack, models, count, request

    def run(self) -> dict[str, Any]:
        """Steady first, then swapping, then the memory."""
        hot = self._publish(HOT)
        self._publish(COLD)
        payload = self._request(HOT, hot, 1).read_bytes()
        capacity = self._capacity(payload)
        rate = min(LOAD_SHARE * capacity, MOST_PER_SECOND)
        steady = Sender(self._stack.workers[0].target, payload, rate)
        time.sleep(STEADY_SECONDS)
        calm = steady.stop()
        memory = self._settled_memory()
        swapping = Sender(self._stack.workers[0].target, payload, rate)
        for turn in range(self._count):
            self._publish(COLD)
            print(f"  swap {turn + 1} of {self._count}", flush=True)
        busy = swapping.stop()
        return {
            "swaps": self._count,
            "requests_per_second": rate,
            "p99_steady_ms": percentile(calm),
            "p99_swapping_ms": percentile(busy),
            "p99_ratio": percentile(busy) / percentile(calm),
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
            time.sleep(0.05)
        raise RuntimeError(f"{version} did not become the only one of {model}")

    def _statuses(self) -> list[pb.VersionStatus]:
        target = self._stack.workers[0].target
        answer = ask(target, "GetWorkerStatus", pb.GetWorkerStatusRequest(), pb.GetWorkerStatusResponse)
        return list(answer.worker.versions)

    def _capacity(self, payload: bytes) -> float:
        """Requests per second of eight callers."""
        target, done = self._stack.workers[0].target, [0] * 8
        end = time.perf_counter() + 3.0

        def call(index: int) -> None:
            with grpc.insecure_channel(target) as channel:
                infer = raw_infer(channel)
                while time.perf_counter() < end:
                    infer(payload, timeout=10)
                    done[index] += 1

        threads = [threading.Thread(target=call, args=(index,)) for index in range(len(done))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / 3.0

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


class Sender:
    """Sends at a fixed rate, whatever comes back, and notes how long each answer took."""

    def __init__(self, target: str, payload: bytes, rate: float) -> None:
        """Begins at once."""
        self._seconds: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(target, payload, 1.0 / rate))
        self._thread.start()

    def stop(self) -> list[float]:
        """Seconds of every request; raises what the first failed call raised."""
        self._stopped.set()
        self._thread.join()
        return self._seconds

    def _send(self, target: str, payload: bytes, interval: float) -> None:
        with grpc.insecure_channel(target) as channel:
            infer, due, calls = raw_infer(channel), time.perf_counter(), []
            while not self._stopped.is_set():
                started = due  # a late start counts as waiting: no coordinated omission
                call = infer.future(payload, timeout=30)
                call.add_done_callback(partial(self._answered, started))
                calls.append(call)
                due += interval
                time.sleep(max(0.0, due - time.perf_counter()))
            for call in calls:
                call.result()

    def _answered(self, started: float, call: object) -> None:
        del call
        self._seconds.append(time.perf_counter() - started)


def raw_infer(channel: grpc.Channel) -> Any:
    """`Infer` of bytes as they are."""
    return channel.unary_unary("/inferway.worker.v1.WorkerService/Infer")


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


def percentile(seconds: list[float]) -> float:
    """The 99th, in milliseconds."""
    return 1e3 * statistics.quantiles(seconds, n=100)[98]
