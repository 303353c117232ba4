"""Records how long batches take on this machine, for the simulator: `python -m benchmarks.record_latencies MODELS TO`.

MODELS is a folder that benchmarks.models made. For each model, with one caller that uses all cores and with two callers
of one thread each, every batch size is computed again and again in rounds, so that a busy moment of the machine falls
on all sizes. TO/NAME.json has all durations, by callers and rows.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.inputs import inputs
from inferway_inference.runtimes.tensorflow import open_runtime

MODELS = ("tiny", "medium", "mobilenet")
ROWS = (1, 2, 4, 8, 16, 32)
CALLERS = (1, 2)
ROUNDS = 8
SLICE_SECONDS = 0.15
"""For each size in each round, or one call if that takes longer."""
MOST_SAMPLES = 50
"""In each round: more of a tiny model say no more."""


def durations(call: object, seconds: float) -> list[float]:
    """Seconds of each call of `call`, one after the other, for so many seconds."""
    assert callable(call)
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while not taken or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken[:: max(1, len(taken) // MOST_SAMPLES)]


def record(path: Path, model: str, callers: int) -> dict[int, list[float]]:
    """Seconds of batches by rows, with so many callers all the time."""
    runtime = open_runtime()
    [signature] = [one for one in runtime.load(path, 0 if callers == 1 else 1) if one.name == "serving_default"]
    outputs = [spec.name for spec in signature.outputs]
    found: dict[int, list[float]] = {rows: [] for rows in ROWS}
    batches = {rows: {signature.inputs[0].name: inputs(model, rows, seed=rows)} for rows in ROWS}
    with ThreadPoolExecutor(callers) as pool:
        for turn in range(-1, ROUNDS):
            for rows in ROWS:
                one = [
                    pool.submit(
                        durations, lambda rows=rows: runtime.call(signature.name, batches[rows], outputs), SLICE_SECONDS
                    )
                    for _ in range(callers)
                ]
                taken = [seconds for each in one for seconds in each.result()]
                found[rows] += taken if turn >= 0 else []  # the first round pays for what is made on first use
    return found


def main(models: str, to: str) -> None:
    """Writes a file for each model."""
    for model in MODELS:
        curves = {callers: record(Path(models) / "tensorflow" / model, model, callers) for callers in CALLERS}
        rounded = {
            callers: {rows: [float(f"{seconds:.4g}") for seconds in taken] for rows, taken in curve.items()}
            for callers, curve in curves.items()
        }
        (Path(to) / f"{model}.json").write_text(json.dumps({"model": model, "seconds": rounded}) + "\n")
        for callers, curve in curves.items():
            told = {rows: f"{sorted(taken)[len(taken) // 2] * 1e3:.3g} ms" for rows, taken in curve.items()}
            print(f"{model}, {callers} callers: {told}")


if __name__ == "__main__":
    main(*sys.argv[1:])
