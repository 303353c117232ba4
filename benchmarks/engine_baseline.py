"""The best that the model does in process, on demand: `python -m benchmarks.engine_baseline SAVED_MODEL MODEL`.

Loads the model once for each thread setting, prints `ready`, and then answers each line `ROWS CALLERS SECONDS` on its
input with the rows per second that so many callers reach, side by side, with batches of so many rows. The model is
called as inferway's own runner calls it, which is the quickest way there is: a bar that is harder than
`tf.saved_model.load`.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.inputs import inputs
from inferway_inference.runtimes.tensorflow import open_runtime


def rate(runtime: Any, name: str, batch: Any, callers: int, seconds: float) -> float:
    """Calls per second of `callers` threads together."""
    counts, end = [0] * callers, time.perf_counter() + seconds

    def call(index: int) -> None:
        while time.perf_counter() < end:
            runtime.call(name, {"x": batch}, ["y"])
            counts[index] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def main(path: str, model: str) -> None:
    """Serves stdin until it ends."""
    runtimes = {}
    for callers, threads in ((1, 0), (2, 1)):
        runtimes[callers] = open_runtime()
        [signature] = [one for one in runtimes[callers].load(Path(path), threads) if one.name == "serving_default"]
    batches = {rows: inputs(model, rows, seed=rows) for rows in (1, 8, 32)}
    for runtime in runtimes.values():
        for batch in batches.values():
            runtime.call(signature.name, {"x": batch}, ["y"])
    print("ready", flush=True)
    for line in sys.stdin:
        rows, callers, seconds = int(line.split()[0]), int(line.split()[1]), float(line.split()[2])
        print(rows * rate(runtimes[callers], signature.name, batches[rows], callers, seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
