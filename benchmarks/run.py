"""Measures inferway against its baselines in one interleaved run; see README.md beside this."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from tests.testbed.ports import free_ports  # noqa: E402
from tests.testbed.processes import ServiceProcess  # noqa: E402
from tests.testbed.publishing import publish  # noqa: E402
from tests.testbed.stack import Stack  # noqa: E402

WIDTHS = {"tiny": 32, "medium": 784}
OUT = ROOT / ".bench"
BARS = {
    "tiny unary at 64, rate / echo": ("tiny", "unary 64", "rate", 0.6, "at least"),
    "tiny unary at 1, p50 / echo": ("tiny", "unary 1", "p50", 3.0, "at most"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load: unary at a concurrency, or so many streams."""

    kind: str
    count: int

    def run(self, binary: Path, target: str, service: str, payload: Path, seconds: float) -> dict[str, Any]:
        """Runs it against the echo or inferway."""
        method = {"echo": "/echo.Echo/", "inferway": "/inference.GRPCInferenceService/"}[service]
        if self.kind == "unary":
            name = "Unary" if service == "echo" else "ModelInfer"
            return loadgen.unary(binary, target, method + name, payload, self.count, seconds)
        name = "Stream" if service == "echo" else "ModelStreamInfer"
        return loadgen.streams(binary, target, method + name, payload, self.count, seconds)

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
def echo_server(directory: Path) -> Iterator[ServiceProcess]:
    """The echo, as a process."""
    target = f"127.0.0.1:{free_ports(1)[0]}"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo_server", target], cwd=ROOT)
    server = ServiceProcess("benchmarks.echo_server", target, {}, directory / "echo.log", process)
    try:
        yield server
    finally:
        process.kill()
        process.wait()


def measure(
    load: Load, service: str, target: str, payload: Path, seconds: float, cpu: Callable[[], float]
) -> dict[str, float]:
    """One run: rate, p50, p99 and server CPU seconds per 1,000 requests."""
    before = cpu()
    result = load.run(OUT / "bin", target, service, payload, seconds)
    spent = cpu() - before
    return {
        "rate": result["rps"],
        "p50": result["p50_us"],
        "p99": result["p99_us"],
        "cpu": 1000 * spent / result["total"],
    }


def compare(model: str, stack: Stack, echo: ServiceProcess, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All loads on one model, echo and inferway in turn: A B B A A B …; yields medians and ratios."""
    payload = OUT / f"{model}.bin"
    payload.write_bytes(request(model, WIDTHS[model]))
    cpus: dict[str, Callable[[], float]] = {
        "echo": echo.cpu_seconds,
        "inferway": lambda: sum(process.cpu_seconds() for process in stack.processes),
    }
    targets = {"echo": echo.target, "inferway": stack.gateway.target}
    for load in LOADS:
        runs: dict[str, list[dict[str, float]]] = {"echo": [], "inferway": []}
        for turn in range(options.rounds):
            for service in ("echo", "inferway") if turn % 2 == 0 else ("inferway", "echo"):
                one = measure(load, service, targets[service], payload, options.seconds, cpus[service])
                runs[service].append(one)
                print(f"  {model} {load} {service}: {one['rate']:.0f}/s", flush=True)
        medians = {
            service: {key: statistics.median(run[key] for run in each) for key in each[0]}
            for service, each in runs.items()
        }
        ratios = {key: medians["inferway"][key] / medians["echo"][key] for key in medians["echo"]}
        yield {"model": model, "load": str(load), "medians": medians, "ratios": ratios, "runs": runs}


def in_process(models: Path, model: str, seconds: float) -> dict[str, Any]:
    """Baseline (a)."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(models / model), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict[str, Any]]) -> Table:
    """The result for people."""
    view = Table(title="inferway (gateway + worker + runner) beside a one-hop grpc.aio echo; medians")
    for column in ("model", "load", "echo/s", "inferway/s", "ratio", "echo p50", "p50", "ratio", "p99", "CPU s/1000"):
        view.add_column(column, justify="right" if column not in {"model", "load"} else "left")
    for row in rows:
        echo, own, ratio = row["medians"]["echo"], row["medians"]["inferway"], row["ratios"]
        view.add_row(
            row["model"],
            row["load"],
            f"{echo['rate']:.0f}",
            f"{own['rate']:.0f}",
            f"{ratio['rate']:.2f}",
            f"{echo['p50']:.0f} µs",
            f"{own['p50']:.0f} µs",
            f"{ratio['p50']:.2f}",
            f"{own['p99']:.0f} µs",
            f"{own['cpu']:.2f}",
        )
    return view


def bars(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each bar with what was reached."""
    for name, (model, load, key, bar, sense) in BARS.items():
        for row in rows:
            if (row["model"], row["load"]) == (model, load):
                reached = row["ratios"][key]
                held = reached >= bar if sense == "at least" else reached <= bar
                yield f"{'held  ' if held else 'MISSED'} {name}: {reached:.2f} ({sense} {bar})"


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
    with Stack(directory / "stack") as stack, echo_server(directory) as echo:
        for model in options.models:
            publish(stack.registry.target, model, models / model)
            stack.gateway.wait_serving(f"model/{model}")
        comparison = [row for model in options.models for row in compare(model, stack, echo, options)]
    machine = {"cores": psutil.cpu_count(), "time": time.strftime("%Y-%m-%d %H:%M")}
    return {"machine": machine, "in_process": alone, "comparison": comparison}


if __name__ == "__main__":
    raise SystemExit(main())
