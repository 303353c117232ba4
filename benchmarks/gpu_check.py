"""Checks the runtimes on a GPU: `python -m benchmarks.gpu_check [--models DIR] [--device gpu:0] [--json FILE]`.

TensorFlow, with and without XLA, and ONNX Runtime compute the models of `benchmarks.models` on the CPU and on the
device, each in a process of its own. The answers must agree; the table has the rows per second of both. Exits with 1
if answers differ or a runtime that should use the device does not. Without a GPU it says so, and exits with 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import WIDTHS, inputs
from inferway.errors import InferwayError
from inferway_inference.runtimes import open_runtime
from inferway_inference.runtimes.base import Placement

RUNTIMES = ("tensorflow", "onnx")
ROWS = (1, 8, 32)
COMPARED_ROWS = 16
SECONDS = 1.0
TOLERANCE = 5e-3
"""Of the largest answer: GPUs multiply in TF32, with ten bits of mantissa."""
CHILD_SECONDS = 600


def has_gpu() -> bool:
    """Whether NVIDIA's driver knows of a GPU."""
    tool = shutil.which("nvidia-smi")
    return (
        tool is not None and "GPU" in subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout
    )


def compute(runtime: str, folder: Path, placement: Placement) -> dict[str, Any]:
    """Answers, and rows per second by batch size."""
    opened = open_runtime(runtime)
    started = time.perf_counter()
    [signature] = opened.load(folder, 0, placement)
    loaded = time.perf_counter() - started

    def call(rows: int) -> Any:
        return opened.call(signature.name, {"x": inputs(folder.name, rows, 1)}, ["y"])["y"]

    rates = {}
    for rows in ROWS:
        x = {"x": inputs(folder.name, rows, rows)}
        for _ in range(2):  # compiles and allocates
            opened.call(signature.name, x, ["y"])
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            opened.call(signature.name, x, ["y"])
            calls += 1
        rates[rows] = calls * rows / (time.perf_counter() - started)
    return {"load_seconds": loaded, "rows_per_second": rates, "answers": call(COMPARED_ROWS).tolist()}


def in_child(runtime: str, folder: Path, device: str, *, xla: bool = False) -> dict[str, Any]:
    """As `compute`, in a process of its own; an `error` instead if it failed."""
    order = json.dumps({"runtime": runtime, "folder": str(folder), "device": device, "xla": xla})
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--child", order]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CHILD_SECONDS)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def child(order: dict[str, Any]) -> int:
    """Prints what `compute` returns."""
    placement = Placement(order["device"], xla=order["xla"])
    try:
        result = compute(order["runtime"], Path(order["folder"]), placement)
    except InferwayError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


def compare(models: Path, device: str) -> list[dict[str, Any]]:
    """One line for each model, runtime and way."""
    lines = []
    for model in WIDTHS:
        for runtime in RUNTIMES:
            on_cpu = in_child(runtime, models / runtime / model, "cpu")
            for xla in (False, True) if runtime == "tensorflow" else (False,):
                on_gpu = in_child(runtime, models / runtime / model, device, xla=xla)
                lines.append({"model": model, "runtime": f"{runtime}{' + XLA' if xla else ''}"} | judge(on_cpu, on_gpu))
    return lines


def judge(on_cpu: dict[str, Any], on_gpu: dict[str, Any]) -> dict[str, Any]:
    """Figures of both, and whether they agree."""
    if "error" in on_cpu or "error" in on_gpu:
        return {"agree": False, "error": on_gpu.get("error") or on_cpu.get("error")}
    expected, got = np.array(on_cpu["answers"]), np.array(on_gpu["answers"])
    difference = float(np.abs(got - expected).max())
    agree = bool(np.isfinite(got).all()) and difference <= TOLERANCE * float(np.abs(expected).max())
    rates = {"cpu": on_cpu["rows_per_second"], "gpu": on_gpu["rows_per_second"]}
    return {"agree": agree, "difference": difference, "load_seconds": on_gpu["load_seconds"], "rows_per_second": rates}


def show(line: dict[str, Any]) -> str:
    """One line in words."""
    title = f"{line['model']:10} {line['runtime']:17}"
    if "error" in line:
        return f"{title} FAILED: {line['error']}"
    cpu, gpu = (line["rows_per_second"][device] for device in ("cpu", "gpu"))
    rates = "  ".join(f"{rows} rows: {cpu[rows]:,.0f} → {gpu[rows]:,.0f}/s" for rows in map(str, ROWS))
    verdict = "agrees" if line["agree"] else "DIFFERS"
    return f"{title} {verdict} ({line['difference']:.1e}), loaded in {line['load_seconds']:.1f} s; {rates}"


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="what benchmarks.models wrote; made if not given")
    parser.add_argument("--device", default="gpu:0", help="cpu compares the CPU with itself: it tries this script")
    parser.add_argument("--json", type=Path, help="where the figures go as well")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    if options.device != "cpu" and not has_gpu():
        print("untested: this machine has no GPU that NVIDIA's driver knows of")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary)
        if options.models is None:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.models", temporary], check=True, stderr=subprocess.DEVNULL
            )
        lines = compare(models, options.device)
    print(*map(show, lines), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(lines, indent=2) + "\n")
    return 0 if all(line["agree"] for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main())
