"""A real stack with stateless models and a stateful one, and the loads that the measures of streams put on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import loadgen
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1 import resources_pb2
from inferway.type.v1.tensor_pb2 import DATA_TYPE_FP32, Tensor
from tests.testbed.processes import ServiceProcess
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / ".bench"
BINARIES = OUT / "bin"
STATELESS, STATEFUL, WIDE = "tiny", "recurrent", "affine"
WIDTHS = {STATELESS: 32, STATEFUL: 6, WIDE: 3}
"""Of the models' inputs. An answer of WIDE is as large as its input, and costs next to nothing."""
PLACEHOLDER_ID = (1 << 35) - 1
"""Of items in the files that the load generator reads."""
SETTINGS = {
    "gateway": {"INFERWAY_GATEWAY_SAMPLING_RATIO": "0.01", "INFERWAY_GATEWAY_MAX_SESSIONS": "20000"},
    "inference": {"INFERWAY_INFERENCE_SAMPLING_RATIO": "0.01"},
}
"""As shipped, but for the sessions."""

Figures = dict[str, float]
"""rate (per second), p50, p99 (µs), cpu (seconds of all servers per 1,000)."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """Files for the load generators."""

    directory: Path
    model: str

    def unary(self) -> Path:
        """A PredictRequest of one row."""
        target = pb.Target(endpoint=self.model)
        return self._file("unary", pb.PredictRequest(target=target, inputs=[self._input(1)]).SerializeToString())

    def opening(self, **fields: Any) -> Path:
        """The first message of every stream."""
        opening = pb.StreamOpen(target=pb.Target(endpoint=self.model), **fields)
        name = "-".join(["opening", *fields])
        return self._file(name, pb.StreamPredictRequest(open=opening).SerializeToString())

    def message(self, rows: int, items: int = 1) -> Path:
        """A message of so many items, each of so many rows."""
        item = pb.StreamItem(id=PLACEHOLDER_ID, inputs=[self._input(rows)])
        if items == 1:
            request = pb.StreamPredictRequest(item=item)
        else:
            request = pb.StreamPredictRequest(items=pb.StreamItems(items=[item] * items))
        return self._file(f"{items}-items-{rows}-rows", request.SerializeToString())

    def _input(self, rows: int) -> Tensor:
        width = WIDTHS[self.model]
        values = np.random.default_rng(0).normal(size=(rows, width)).astype("<f4")
        return Tensor(name="x", datatype=DATA_TYPE_FP32, shape=[rows, width], raw=values.tobytes())

    def _file(self, name: str, data: bytes) -> Path:
        path = self.directory / f"{self.model}-{name}.bin"
        path.write_bytes(data)
        return path


@dataclass(frozen=True, slots=True)
class Bed:
    """A running stack, and a folder for what the load generators read."""

    stack: Stack
    gateway: ServiceProcess
    directory: Path

    @contextmanager
    def fresh(self) -> Iterator[Bed]:
        """The same with a new gateway, whose memory is only that of what it does now."""
        gateway = self.stack.another_gateway("fresh")
        gateway.environment = {**gateway.environment, **SETTINGS["gateway"]}
        gateway.start()
        try:
            for model in WIDTHS:
                gateway.wait_serving(f"model/{model}")
            yield Bed(self.stack, gateway, self.directory)
        finally:
            gateway.end()

    def payloads(self, model: str) -> Payloads:
        """Of one of the models."""
        return Payloads(self.directory, model)

    def unary(self, payload: Path, concurrency: int, seconds: float) -> Figures:
        """A closed loop of unary calls."""
        method, target = "/inferway.prediction.v1.PredictionService/Predict", self.gateway.target
        before = self._cpu_seconds()
        return self._figures(loadgen.unary(BINARIES, target, method, payload, concurrency, seconds), before)

    def streams(self, opening: Path, message: Path, **options: float) -> Figures:
        """A closed loop of items."""
        before = self._cpu_seconds()
        result = loadgen.predict_streams(BINARIES, self.gateway.target, opening, message, **options)
        return self._figures(result, before)

    def held(
        self, opening: Path, message: Path, ready_seconds: float, **options: float
    ) -> AbstractContextManager[None]:
        """Streams at rest."""
        return loadgen.held_streams(BINARIES, self.gateway.target, opening, message, ready_seconds, **options)

    def gateway_cpu_seconds(self) -> float:
        """Since its start."""
        return self.gateway.cpu_seconds()

    def gateway_bytes(self) -> int:
        """Resident memory of the gateway."""
        return int(psutil.Process(self.gateway.pid).memory_info().rss)

    def _cpu_seconds(self) -> float:
        return sum(process.cpu_seconds() for process in (self.stack.registry, *self.stack.workers, self.gateway))

    def _figures(self, result: dict[str, Any], cpu_before: float) -> Figures:
        spent = self._cpu_seconds() - cpu_before
        return {
            "rate": result["rps"],
            "p50": result["p50_us"],
            "p99": result["p99_us"],
            "cpu": 1000 * spent / result["total"],
        }


@contextmanager
def bed(directory: Path) -> Iterator[Bed]:
    """Starts everything, with the models served by the worker itself."""
    print("making the models …", flush=True)
    _run("tests.testbed.savedmodels", str(directory / "models"))
    _run("examples.eta.train", str(directory / "eta"), "--days", "2", "--epochs", "1")
    print("starting inferway …", flush=True)
    inline = resources_pb2.ISOLATION_INLINE
    state = [resources_pb2.StateBinding(input="state", output="next_state")]
    stateful = resources_pb2.VersionConfig(isolation=inline, state=state)
    stateless = resources_pb2.VersionConfig(isolation=inline)
    with Stack(directory / "stack", settings=SETTINGS) as stack:
        publish(stack.registry.target, STATEFUL, directory / "eta" / "model", config=stateful)
        for model in (STATELESS, WIDE):
            publish(stack.registry.target, model, directory / "models" / model, config=stateless)
        for model in WIDTHS:
            stack.gateway.wait_serving(f"model/{model}")
        yield Bed(stack, stack.gateway, directory)


def _run(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
