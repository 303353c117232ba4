"""Measures inferway against its baselines in one interleaved run; see README.md beside this."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import loadgen  # noqa: E402 - the root is on the path only now
from inferway.foreign.inference import grpc_service_pb2 as oip  # noqa: E402
from inferway.registry.v1 import resources_pb2  # noqa: E402
from tests.testbed.ports import free_ports  # noqa: E402
from tests.testbed.processes import ServiceProcess  # noqa: E402
from tests.testbed.publishing import publish  # noqa: E402
from tests.testbed.stack import Stack  # noqa: E402

WIDTHS = {"tiny": 32, "medium": 784}
OUT = ROOT / ".bench"
SETTINGS = {"INFERWAY_GATEWAY_SAMPLING_RATIO": "0.01"}
SETTINGS_WORKER = {"INFERWAY_INFERENCE_SAMPLING_RATIO": "0.01"}
"""As shipped."""
BASELINE = "echo"
GRPCIO, NATIVE, INLINE = "inferway, grpcio", "inferway, native", "inferway, native, inline"


@dataclass(frozen=True, slots=True)
class Bar:
    """What one figure should reach, as a ratio to the echo's or, of `cpu`, in seconds per 1,000 requests."""

    load: str
    servers: tuple[str, ...]
    key: str
    least: float | None = None
    most: float | None = None

    def judged(self, row: dict[str, Any]) -> Iterator[str]:
        """A line for each server that `row` has figures of."""
        for server in self.servers:
            if server not in row["medians"]:
                continue
            reached = row["medians"][server]["cpu"] if self.key == "cpu" else row["ratios"][server][self.key]
            held = reached >= self.least if self.least is not None else reached <= (self.most or 0.0)
            bound = f"at least {self.least}" if self.least is not None else f"at most {self.most}"
            what = "CPU s per 1,000" if self.key == "cpu" else f"{self.key} / echo"
            verdict = "held  " if held else "MISSED"
            yield f"{verdict} {row['model']}, {self.load}, {server}: {what} {reached:.2f} ({bound})"


BARS = (
    Bar("unary 64", (GRPCIO,), "rate", least=0.65),
    Bar("unary 64", (NATIVE, INLINE), "rate", least=2.1),
    Bar("unary 64", (NATIVE, INLINE), "cpu", most=0.15),
    Bar("unary 8", (NATIVE, INLINE), "rate", least=0.8),
    Bar("unary 1", (GRPCIO,), "p50", most=3.0),
    Bar("unary 1", (NATIVE, INLINE), "p50", most=2.5),
)
"""Of the tiny model."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of the servers that are compared."""

    target: str
    cpu_seconds: Callable[[], float]
    model: str = ""
    """Empty: an echo."""

    def methods(self) -> tuple[str, str]:
        """Unary and streaming."""
        if not self.model:
            return "/echo.Echo/Unary", "/echo.Echo/Stream"
        service = "/inference.GRPCInferenceService/"
        return f"{service}ModelInfer", f"{service}ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load: unary at a concurrency, or so many streams."""

    kind: str
    count: int

    def run(self, binary: Path, server: Server, payload: Path, seconds: float) -> dict[str, Any]:
        """Runs it against `server`."""
        unary, stream = server.methods()
        if self.kind == "unary":
            return loadgen.unary(binary, server.target, unary, payload, self.count, seconds)
        return loadgen.streams(binary, server.target, stream, payload, self.count, seconds)

    def __str__(self) -> str:
        """For the table."""
        return f"{self.kind} {self.count}"


LOADS = (Load("unary", 1), Load("unary", 8), Load("unary", 64), Load("streams", 8))


def request(model: str, width: int) -> bytes:
    """A ModelInfer request of one row."""
    row = np.random.default_rng(0).normal(size=(1, width)).astype("<f4")
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, width])
    message = oip.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[row.tobytes()])
    return message.SerializeToString()


@contextmanager
def echo_server(directory: Path, *command: str) -> Iterator[Server]:
    """An echo, as a process."""
    target = f"127.0.0.1:{free_ports(1)[0]}"
    process = subprocess.Popen([*command, target], cwd=ROOT)
    server = ServiceProcess("echo", target, {}, directory / "echo.log", process)
    try:
        yield Server(target, server.cpu_seconds)
    finally:
        process.kill()
        process.wait()


def measure(load: Load, server: Server, payload: Path, seconds: float) -> dict[str, float]:
    """One run: rate, p50, p99 and server CPU seconds per 1,000 requests."""
    before = server.cpu_seconds()
    result = load.run(OUT / "bin", server, payload, seconds)
    spent = server.cpu_seconds() - before
    return {
        "rate": result["rps"],
        "p50": result["p50_us"],
        "p99": result["p99_us"],
        "cpu": 1000 * spent / result["total"],
    }


def compare(model: str, servers: dict[str, Server], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All loads on one model, all servers in turn, there and back; yields medians and ratios to the Python echo."""
    payloads = {}
    for name, server in servers.items():
        payloads[name] = OUT / f"{server.model or model}.bin"
        payloads[name].write_bytes(request(server.model or model, WIDTHS[model]))
    for load in LOADS:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for turn in range(options.rounds):
            for name in list(servers) if turn % 2 == 0 else reversed(servers):
                one = measure(load, servers[name], payloads[name], options.seconds)
                runs[name].append(one)
                print(f"  {model}, {load}, {name}: {one['rate']:.0f}/s", flush=True)
        medians = {
            name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()
        }
        ratios = {
            name: {key: figures[key] / medians[BASELINE][key] for key in figures} for name, figures in medians.items()
        }
        yield {"model": model, "load": str(load), "medians": medians, "ratios": ratios, "runs": runs}


def in_process(models: Path, model: str, seconds: float) -> dict[str, Any]:
    """Baseline (a)."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(models / model), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict[str, Any]]) -> Table:
    """The result for people."""
    view = Table(
        title="inferway (gateway, worker, runner) beside one-hop echoes; medians, and ratios to the Python echo"
    )
    for column in ("model", "load", "server", "rate/s", "ratio", "p50", "ratio", "p99", "CPU s/1000"):
        view.add_column(column, justify="right" if column not in {"model", "load", "server"} else "left")
    for row in rows:
        for number, (name, own) in enumerate(row["medians"].items()):
            ratio = row["ratios"][name]
            view.add_row(
                "" if number else row["model"],
                "" if number else row["load"],
                name,
                f"{own['rate']:.0f}",
                f"{ratio['rate']:.2f}",
                f"{own['p50']:.0f} µs",
                f"{ratio['p50']:.2f}",
                f"{own['p99']:.0f} µs",
                f"{own['cpu']:.3f}",
            )
    return view


def bars(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each bar with what was reached."""
    for bar in BARS:
        for row in rows:
            if (row["model"], row["load"]) == ("tiny", bar.load):
                yield from bar.judged(row)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, interleaved (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default 4)")
    parser.add_argument("--models", nargs="+", choices=tuple(WIDTHS), default=tuple(WIDTHS))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    try:
        loadgen.build(OUT / "bin")
    except loadgen.LoadgenMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        results = run_all(Path(name), options)
    (OUT / "results.json").write_text(json.dumps(results, indent=2))
    console = Console(width=120)
    console.print(table(results["comparison"]))
    for model, figures in results["in_process"].items():
        best = max(figures["rows_per_second"].values())
        console.print(
            f"in process, {model}: {figures['calls_per_second']['1']:.0f} calls/s at batch 1; {best:.0f} rows/s at best"
        )
    for line in bars(results["comparison"]):
        console.print(line)
    console.print(f"figures of every run: {(OUT / 'results.json').relative_to(ROOT)}")
    return 0


@contextmanager
def echoes(directory: Path) -> Iterator[dict[str, Server]]:
    """One hop in Python, which everything is compared with, and one in C++."""
    with (
        echo_server(directory, sys.executable, "-m", "benchmarks.echo_server") as python,
        echo_server(directory, str(OUT / "bin" / "grpcecho")) as native,
    ):
        yield {BASELINE: python, "echo in C++": native}


@contextmanager
def inferway(directory: Path, models: Path, names: Sequence[str]) -> Iterator[Callable[[str], dict[str, Server]]]:
    """A stack with a gateway of each transport; yields what lists its servers for a model."""
    inline = resources_pb2.VersionConfig(isolation=resources_pb2.ISOLATION_INLINE)
    with Stack(directory / "stack", settings={"gateway": SETTINGS, "inference": SETTINGS_WORKER}) as stack:
        native = stack.another_gateway("native", TRANSPORT="native", SAMPLING_RATIO="0.01")
        native.start()
        try:
            for name in names:
                publish(stack.registry.target, name, models / name)
                publish(stack.registry.target, f"{name}-inline", models / name, config=inline)
                for gateway in (stack.gateway, native):
                    gateway.wait_serving(f"model/{name}")
                    gateway.wait_serving(f"model/{name}-inline")

            def server(gateway: ServiceProcess, model: str) -> Server:
                parts = [stack.registry, *stack.workers, gateway]
                return Server(gateway.target, lambda: sum(part.cpu_seconds() for part in parts), model)

            yield lambda model: {
                GRPCIO: server(stack.gateway, model),
                NATIVE: server(native, model),
                INLINE: server(native, f"{model}-inline"),
            }
        finally:
            native.end()


def run_all(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the models, starts everything, measures."""
    models = directory / "models"
    print("making the models …", flush=True)
    subprocess.run(
        [sys.executable, "-m", "tests.testbed.savedmodels", str(models)],
        cwd=ROOT,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    alone = {model: in_process(models, model, options.seconds / 2) for model in options.models}
    print("starting inferway …", flush=True)
    comparison: list[dict[str, Any]] = []
    with inferway(directory, models, options.models) as servers_of, echoes(directory) as baselines:
        for model in options.models:
            comparison += compare(model, {**baselines, **servers_of(model)}, options)
    machine = {"cores": psutil.cpu_count(), "time": time.strftime("%Y-%m-%d %H:%M")}
    return {"machine": machine, "in_process": alone, "comparison": comparison}


if __name__ == "__main__":
    raise SystemExit(main())
