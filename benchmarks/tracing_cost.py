"""What tracing costs: the same load with tracing off, sampled at 1 %, and on for every request, interleaved.

python benchmarks/tracing_cost.py        about 2 minutes; prints server CPU seconds per 1,000 requests and the rate

Many short rounds rather than few long ones, since the machine's speed moves more within a minute than 1 % of tracing
costs. Each run is compared with the one without tracing of its own round; printed are the median of these ratios and
the range of their middle half.
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
ROUNDS = 10
SECONDS = 2.0


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


def line(label: str, runs: list[dict[str, float]], off: list[dict[str, float]]) -> str:
    """One line of the result: `runs` beside those `off` of the same rounds."""
    cpu_seconds, rate = (statistics.median(run[key] for run in runs) for key in ("cpu", "rate"))
    ratios = [run["cpu"] / without["cpu"] - 1 for run, without in zip(runs, off, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    spread = f"{middle:+.1%} CPU ({low:+.1%} to {high:+.1%})"
    return f"tracing {label:4} {rate:6.0f}/s  {cpu_seconds:.3f} CPU s per 1,000  {spread}"


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
    for label, each in runs.items():
        print(line(label, each, runs["off"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
