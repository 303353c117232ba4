"""The three runtimes on the same weights: `python -m benchmarks.runtimes [NAME...] [--models DIR] [--json FILE]`.

Each runtime computes in this process, called as a runner calls it. For every batch size and way of using the cores
(one caller with one thread, one caller with all threads, as many single-threaded callers as cores) the runtimes take
turns, and the median of their turns counts. The table has the best rows per second of every batch size, and how far
the answers are from TensorFlow's. MODELS is what `benchmarks.models` writes; made in a temporary folder if not given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import WIDTHS, inputs
from inferway_inference.runtimes import open_runtime

RUNTIMES = ("tensorflow", "onnx", "litert")
ROWS = (1, 8, 32)
TURNS = 3
COMPARED_ROWS = 16

Call = Callable[[NDArray[np.float32]], NDArray[Any]]


def ways() -> dict[str, tuple[int, int]]:
    """Threads an operation and callers, by name."""
    cores = len(os.sched_getaffinity(0))
    return {"1 thread": (1, 1), f"{cores} threads": (cores, 1), f"{cores} callers": (1, cores)}


def load(runtime: str, folder: Path, threads: int) -> Call:
    """The model's one signature, x to y."""
    opened = open_runtime(runtime)
    [signature] = opened.load(folder, threads)
    return lambda x: opened.call(signature.name, {"x": x}, ["y"])["y"]


def rate(call: Call, x: NDArray[np.float32], callers: int, seconds: float) -> float:
    """Rows per second of that many callers."""

    def ask(_: int) -> int:
        calls = 0
        while time.perf_counter() < end:
            call(x)
            calls += 1
        return calls

    started = time.perf_counter()
    end = started + seconds
    with ThreadPoolExecutor(callers) as pool:
        calls = sum(pool.map(ask, range(callers)))
    return calls * len(x) / (time.perf_counter() - started)


def measure(model: str, models: Path, seconds: float) -> list[dict[str, Any]]:
    """One row of the table for each runtime and batch size."""
    loaded = {
        (runtime, threads): load(runtime, models / runtime / model, threads)
        for runtime in RUNTIMES
        for threads in {threads for threads, _ in ways().values()}
    }
    expected = loaded[RUNTIMES[0], 1](inputs(model, COMPARED_ROWS, 1))
    answers = {runtime: loaded[runtime, 1](inputs(model, COMPARED_ROWS, 1)) for runtime in RUNTIMES}
    table = []
    for rows in ROWS:
        rates = _take_turns(loaded, inputs(model, rows, rows), seconds)
        for runtime in RUNTIMES:
            medians = {way: statistics.median(rates[runtime, way]) for way in ways()}
            best = max(medians, key=lambda way: medians[way])
            difference = float(np.abs(answers[runtime] - expected).max())
            table.append({"model": model, "runtime": runtime, "rows": rows, "best": best, "difference": difference})
            table[-1] |= {"rows_per_second": medians[best], "all": medians}
    return table


def _take_turns(
    loaded: dict[tuple[str, int], Call], x: NDArray[np.float32], seconds: float
) -> dict[tuple[str, str], list[float]]:
    """Rates of every turn, by runtime and way; what disturbs the machine disturbs all alike."""
    rates = defaultdict(list)
    for turn in range(TURNS + 1):
        for way, (threads, callers) in ways().items():
            for runtime in RUNTIMES:
                measured = rate(loaded[runtime, threads], x, callers, seconds if turn else 0.0)
                if turn:  # the first one warms up
                    rates[runtime, way].append(measured)
    return rates


def main() -> None:
    """Prints the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*WIDTHS], metavar="NAME", help=f"of {', '.join(WIDTHS)}")
    parser.add_argument("--models", type=Path, help="what benchmarks.models wrote")
    parser.add_argument("--seconds", type=float, default=0.4, help="of every turn")
    parser.add_argument("--json", type=Path, help="where the figures go as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary)
        if options.models is None:  # in a process of its own: this one has a TensorFlow without its converters
            subprocess.run(
                [sys.executable, "-m", "benchmarks.models", temporary], check=True, stderr=subprocess.DEVNULL
            )
        table = [row for model in options.names for row in measure(model, models, options.seconds)]
    print("| model | rows | runtime | rows/s | best with | largest difference |\n|---|---|---|---|---|---|")
    for row in table:
        figures = f"{row['rows_per_second']:,.0f} | {row['best']} | {row['difference']:.1e}"
        print(f"| {row['model']} | {row['rows']} | {row['runtime']} | {figures} |")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
