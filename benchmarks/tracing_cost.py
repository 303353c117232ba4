"""What tracing costs: the same load with tracing off, sampled at 1 %, and on for every request, interleaved.

python benchmarks/tracing_cost.py        about 2 minutes; prints server CPU seconds per 1,000 requests and the rate
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import loadgen  # noqa: E402 - the root is on the path only now
from benchmarks.run import OUT, Load, Server, measure, request  # noqa: E402
from tests.testbed.otlp_receiver import OtlpReceiver  # noqa: E402
from tests.testbed.publishing import publish  # noqa: E402
from tests.testbed.stack import Stack  # noqa: E402

RATIOS = {"off": "0", "1 %": "0.01", "all": "1"}
ROUNDS = 3
SECONDS = 4.0


def traced_stack(directory: Path, receiver: str, ratio: str) -> Stack:
    """A stack that samples `ratio` of the requests; without a receiver if that is none."""
    settings = {
        service: {
            f"INFERWAY_{service.upper()}_SAMPLING_RATIO": ratio,
            f"INFERWAY_{service.upper()}_OTLP_ENDPOINT": "" if ratio == "0" else receiver,
        }
        for service in ("gateway", "inference")
    }
    return Stack(directory, settings=settings)


def server_of(stack: Stack) -> Server:
    """Its gateway, with the CPU time of all its processes."""
    return Server(stack.gateway.target, lambda: sum(process.cpu_seconds() for process in stack.processes), "tiny")


def main() -> int:
    """Entry point."""
    loadgen.build(OUT / "bin")
    payload = OUT / "tiny.bin"
    payload.write_bytes(request("tiny", 32))
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in RATIOS}
    with tempfile.TemporaryDirectory() as name, ExitStack() as cleanup:
        directory = Path(name)
        command = [sys.executable, "-m", "tests.testbed.savedmodels", str(directory / "models")]
        subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        receiver = cleanup.enter_context(OtlpReceiver())
        stacks = {}
        for label, ratio in RATIOS.items():
            stack = cleanup.enter_context(traced_stack(directory / label, receiver.target, ratio))
            publish(stack.registry.target, "tiny", directory / "models" / "tiny")
            stack.gateway.wait_serving("model/tiny")
            stacks[label] = stack
        for turn in range(ROUNDS):
            for label in RATIOS if turn % 2 == 0 else reversed(RATIOS):
                runs[label].append(measure(Load("unary", 64), server_of(stacks[label]), payload, SECONDS))
    off = statistics.median(run["cpu"] for run in runs["off"])
    for label, each in runs.items():
        cpu_seconds, rate = (statistics.median(run[key] for run in each) for key in ("cpu", "rate"))
        print(f"tracing {label:4} {rate:6.0f}/s  {cpu_seconds:.3f} CPU s per 1,000  {cpu_seconds / off - 1:+.1%} CPU")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
