"""Measures the inference engine: `make bench-engine`. Every figure stands beside its baseline of the same run.

    throughput  rows/s of a worker at concurrency 32, against the best in process of batches 1, 8, 32 and callers 1, 2;
                of the medium model with requests of one row, which measure the transport, and of 32 rows
    latency     p50 with one caller, against the same version that may not batch at all
    overhead    the worker's CPU beyond the model's own, for each request, by process and inline
    swaps       a second model is replaced 20 times beside a hot one: the hot one's p99, and the memory afterwards
    goodput     answers in time under open-loop load of 0.3 to 5 times capacity, against fixed-window workers

Loads come from `loadgen/`, straight to the worker. See README.md beside this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import loadgen  # noqa: E402 - the root is on the path only now
from benchmarks.engine_goodput import OWN, Goodput  # noqa: E402
from benchmarks.engine_swaps import INFER, Swaps, ask  # noqa: E402
from benchmarks.inputs import inputs  # noqa: E402
from inferway.foreign.inference import grpc_service_pb2 as oip  # noqa: E402
from inferway.registry.v1 import resources_pb2  # noqa: E402
from inferway.type.v1 import tensor_pb2  # noqa: E402
from inferway.worker.v1 import worker_service_pb2 as pb  # noqa: E402
from tests.testbed.publishing import publish  # noqa: E402
from tests.testbed.stack import Stack  # noqa: E402

OUT = ROOT / ".bench"
WAYS = tuple((rows, callers) for rows in (1, 8, 32) for callers in (1, 2))
AS_SHIPPED = {"INFERWAY_INFERENCE_WARMUP_SECONDS": "2"}
"""Stacks of tests take less time to compare ways of running a version."""
THROUGHPUT_BAR, LATENCY_BAR, SWAP_BAR, MEMORY_BAR = 0.95, 1.10, 1.3, 0.05
GOODPUT_BAR, PEAK_BAR = 0.9, 0.9
OVERHEAD_BUDGET_US = {"process": 180.0, "inline": 150.0}
"""For a request of one row of the tiny model at concurrency 64: a quarter above what was measured first."""


def request(model: str, version: str, rows: int) -> Path:
    """A file with an InferRequest of `rows` rows."""
    batch = inputs(model, rows, seed=rows)
    tensor = tensor_pb2.Tensor(name="x", datatype=tensor_pb2.DATA_TYPE_FP32, shape=batch.shape, raw=batch.tobytes())
    envelope = pb.Envelope(
        id=1, version=version, signature="serving_default", inputs=[tensor], rows=rows, remaining_us=30_000_000
    )
    path = OUT / f"{version.replace('/', '-')}-{rows}.bin"
    path.write_bytes(pb.InferRequest(envelope=envelope).SerializeToString())
    return path


class InProcess:
    """A process that computes the model by itself."""

    def __init__(self, models: Path, model: str) -> None:
        """Returns when it is warm."""
        command = [sys.executable, "-m", "benchmarks.engine_baseline", str(models / "tensorflow" / model), model]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._line()

    def cpu_us_per_row(self, rows: int, seconds: float) -> float:
        """CPU time that a row costs in batches of `rows`, with one caller, in microseconds."""
        process = psutil.Process(self._process.pid)
        before = sum(process.cpu_times()[:2])
        rate = self.rate(rows, 1, seconds)
        return 1e6 * (sum(process.cpu_times()[:2]) - before) / (rate * seconds)

    def rate(self, rows: int, callers: int, seconds: float) -> float:
        """Rows per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rows} {callers} {seconds}\n")
        self._process.stdin.flush()
        return float(self._line())

    def end(self) -> None:
        """Stops it."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the baseline ended")
        return "1" if line.startswith("ready") else line


class Engine:
    """A stack with its models, and loads on its worker."""

    def __init__(self, stack: Stack, models: Path, options: argparse.Namespace) -> None:
        """`stack` runs."""
        self.stack, self.models, self.options = stack, models, options

    def serve(self, name: str, model: str, config: resources_pb2.VersionConfig | None = None) -> str:
        """Publishes `model` as `name` and returns its version once it is ready."""
        version = publish(self.stack.registry.target, name, self.models / "tensorflow" / model, config=config)
        self.stack.gateway.wait_serving(f"model/{name}", timeout_seconds=300)
        return version.name

    def load(self, payload: Path, concurrency: int, seconds: float) -> dict[str, Any]:
        """Closed loop on the worker."""
        return loadgen.unary(OUT / "bin", self.target, INFER, payload, concurrency, seconds)

    def load_gateway(self, payload: Path, concurrency: int, seconds: float) -> dict[str, Any]:
        """Closed loop on the gateway."""
        method = "/inference.GRPCInferenceService/ModelInfer"
        return loadgen.unary(OUT / "bin", self.stack.gateway.target, method, payload, concurrency, seconds)

    def plan(self, name: str) -> str:
        """How the worker runs it, in a line."""
        asked = pb.ExplainVersionRequest(version=f"models/{name}/versions/1")
        plan = ask(self.target, "ExplainVersion", asked, pb.ExplainVersionResponse).status.plan
        return f"{plan.instances} x {plan.callers} callers, {plan.threads} threads, {plan.max_batch_rows} rows at most"

    def worker_cpu(self) -> float:
        """Seconds of the worker and its runners."""
        return self.stack.workers[0].cpu_seconds()

    @property
    def target(self) -> str:
        """The worker's address."""
        return self.stack.workers[0].target


def throughput(engine: Engine, model: str, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure 1, with requests of each of `sizes` rows."""
    version = engine.serve(model, model)
    payloads = {rows: request(model, version, rows) for rows in sizes}
    alone = InProcess(engine.models, model)
    seconds = engine.options.seconds
    own: dict[int, list[float]] = {rows: [] for rows in sizes}
    best: dict[tuple[int, int], list[float]] = {way: [] for way in WAYS}
    try:
        for turn in range(engine.options.rounds):
            for rows, payload in payloads.items():
                own[rows].append(rows * engine.load(payload, 32, seconds)["rps"])
                print(f"  {model} x {rows}: inferway {own[rows][-1]:.0f} rows/s", flush=True)
            for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
                best[way].append(alone.rate(*way, seconds / 4))
    finally:
        alone.end()
    medians = {f"{rows} x {callers}": statistics.median(rates) for (rows, callers), rates in best.items()}
    winner = max(medians, key=lambda way: medians[way])
    common = {"model": model, "in_process": medians, "best_way": winner, "plan": engine.plan(model)}
    reached = {rows: statistics.median(rates) for rows, rates in own.items()}
    return [
        {**common, "rows": rows, "rows_per_second": rate, "ratio": rate / medians[winner]}
        for rows, rate in reached.items()
    ]


def latency(engine: Engine, model: str) -> dict[str, Any]:
    """Measure 3."""
    versions = {
        "batching": engine.serve(f"{model}-free", model),
        "alone": engine.serve(f"{model}-alone", model, resources_pb2.VersionConfig(max_batch_rows=1)),
    }
    p50: dict[str, list[float]] = {name: [] for name in versions}
    for turn in range(engine.options.rounds + 2):
        for name in versions if turn % 2 == 0 else reversed(versions):
            p50[name].append(engine.load(request(model, versions[name], 1), 1, engine.options.seconds / 2)["p50_us"])
    medians = {name: statistics.median(values) for name, values in p50.items()}
    return {"model": model, "p50_us": medians, "ratio": medians["batching"] / medians["alone"]}


def overhead(engine: Engine, isolation: str, model: str, rows: int, concurrency: int) -> dict[str, Any]:
    """Measure 5: CPU of the worker's front for each request that comes by a gateway, and of all of the worker.

    From the latter the model's own is taken, as it costs in process in batches of 8 rows. Of pictures that is a
    thousand times what is looked for, so only the front counts there.
    """
    kind = {"process": resources_pb2.ISOLATION_PROCESS, "inline": resources_pb2.ISOLATION_INLINE}[isolation]
    name = f"{model}-{isolation}-{rows}"
    engine.serve(name, model, resources_pb2.VersionConfig(isolation=kind))
    payload, seconds, front = through_gateway(name, model, rows), engine.options.seconds, engine.stack.workers[0].pid
    alone, spent = InProcess(engine.models, model), dict[str, list[float]](front=[], worker=[])
    try:
        for _ in range(engine.options.rounds):
            own_us = rows * alone.cpu_us_per_row(8, seconds / 2)
            before, front_before = engine.worker_cpu(), sum(psutil.Process(front).cpu_times()[:2])
            total = engine.load_gateway(payload, concurrency, seconds)["total"]
            spent["front"].append(1e6 * (sum(psutil.Process(front).cpu_times()[:2]) - front_before) / total)
            spent["worker"].append(1e6 * (engine.worker_cpu() - before) / total - own_us)
    finally:
        alone.end()
    counted = "front" if model == "mobilenet" else "worker"
    return {"isolation": isolation, "model": model, "rows": rows, "us_per_request": statistics.median(spent[counted])}


def through_gateway(name: str, model: str, rows: int) -> Path:
    """A file with a ModelInfer request."""
    batch = inputs(model, rows, seed=rows)
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=batch.shape)
    message = oip.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[batch.tobytes()])
    path = OUT / f"{name}.bin"
    path.write_bytes(message.SerializeToString())
    return path


def run(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the models, starts everything, measures what was asked for."""
    models = OUT / "models"
    if not (models / "tensorflow" / "mobilenet").exists():
        print("making the models (about a minute) …", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.models", str(models)], cwd=ROOT, check=True)
    found: dict[str, Any] = {}
    parts: dict[str, Callable[[Engine], Any]] = {
        "throughput": lambda engine: [
            *throughput(engine, "medium", (1, 32)),
            *throughput(engine, "mobilenet", (1,)),
        ],
        "latency": lambda engine: [latency(engine, model) for model in ("tiny", "medium")],
        "overhead": lambda engine: [
            overhead(engine, isolation, model, rows, concurrency)
            for isolation, model, rows, concurrency in (
                ("process", "tiny", 1, 64),
                ("inline", "tiny", 1, 64),
                ("process", "mobilenet", 32, 2),
            )
        ],
        "swaps": lambda engine: Swaps(engine.stack, models, options.swaps, OUT / "bin", request).run(),
    }
    for name in options.measures:
        print(f"{name} …", flush=True)
        if name == "goodput":
            found[name] = Goodput(directory / name, models, options.rounds, options.seconds).run()
            continue
        with Stack(directory / name, settings={"inference": AS_SHIPPED}) as stack:
            found[name] = parts[name](Engine(stack, models, options))
    return found


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What was measured, the figure, and whether its bar was held."""
    for row in found.get("throughput", ()):
        text = f"{row['rows_per_second']:.0f} rows/s; best in process {row['in_process'][row['best_way']]:.0f}"
        name = f"{row['model']} x {row['rows']} at 32"
        yield name, f"{text} ({row['best_way']})", verdict(row["ratio"], THROUGHPUT_BAR, low=True)
    for row in found.get("latency", ()):
        text = f"p50 {row['p50_us']['batching']:.0f} µs; never batching {row['p50_us']['alone']:.0f} µs"
        yield f"{row['model']} at 1", text, verdict(row["ratio"], LATENCY_BAR, low=False)
    for row in found.get("overhead", ()):
        name = f"{row['model']} x {row['rows']}, {row['isolation']}"
        budget = OVERHEAD_BUDGET_US[row["isolation"]] if row["rows"] == 1 else None
        held = "" if budget is None else verdict(row["us_per_request"], budget, low=False)
        what = "beyond the model" if budget is not None else "in the front"
        yield name, f"{row['us_per_request']:.0f} µs a request {what}", held
    if "swaps" in found:
        row = found["swaps"]
        text = f"p99 {row['p99_swapping_ms']:.2f} ms while swapping; steady {row['p99_steady_ms']:.2f} ms"
        yield f"{row['swaps']} swaps", text, verdict(row["p99_ratio"], SWAP_BAR, low=False)
        yield "memory after them", f"{row['memory_growth']:+.1%}", verdict(row["memory_growth"], MEMORY_BAR, low=False)
    yield from goodput_lines(found.get("goodput", []))


def goodput_lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Each load beside the best fixed window, and what overload leaves of the peak."""
    own = {row["load"]: row for row in rows if row["policy"] == OWN}
    for load, row in own.items():
        best = max((one for one in rows if one["load"] == load and one is not row), key=lambda one: one["goodput"])
        told = f"{row['goodput']:.3f} ± {row['interval']:.3f}, p99 {row['p99']:.2f} of the deadline"
        text = f"{told}; {best['policy']} {best['goodput']:.3f} ± {best['interval']:.3f}"
        yield f"goodput at {load:g} x", text, verdict(row["goodput"] / best["goodput"], GOODPUT_BAR, low=True)
    if own:
        last, peak = own[max(own)], max(row["goodput"] for row in own.values())
        yield (
            f"of the peak, at {max(own):g} x",
            f"{last['goodput']:.3f} of {peak:.3f}",
            verdict(last["goodput"] / peak, PEAK_BAR, low=True),
        )


def verdict(reached: float, bar: float, *, low: bool) -> str:
    """Whether the bar was held."""
    held = reached >= bar if low else reached <= bar
    return f"{'held' if held else 'MISSED'}: {reached:.2f} ({'at least' if low else 'at most'} {bar})"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = ("throughput", "latency", "overhead", "swaps", "goodput")
    parser.add_argument("measures", nargs="*", default=measures, help=f"some of {', '.join(measures)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, interleaved (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default 4)")
    parser.add_argument("--swaps", type=int, default=20, help="of the second model (default 20)")
    options = parser.parse_args()
    try:
        loadgen.build(OUT / "bin")
    except loadgen.LoadgenMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), options)
    results = OUT / "engine.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(json.dumps({**known, **found}, indent=2))
    table = Table(title="the inference engine beside its baselines; medians")
    for column in ("what", "figure", "bar"):
        table.add_column(column)
    for line in lines(found):
        table.add_row(*line)
    Console(width=140).print(table)
    print(f"figures of every run: {(OUT / 'engine.json').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
