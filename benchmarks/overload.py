"""Overload in full length, with its figures: `make overload`, or `python -m benchmarks.overload [--seconds 60]`.

Everything runs over sockets, on this machine: one worker, one gateway, and an open loop of callers in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.testbed.overload import ROW_SECONDS, capacity, flood, two_classes, two_tenants, workers_away
from tests.testbed.slow_model import WORKER_SETTINGS, serve_slow_model
from tests.testbed.stack import Stack


async def measure(stack: Stack, seconds: float, away_seconds: float) -> None:
    """Runs every scenario and prints its figures."""
    peak_rate = await capacity(stack)
    say(*(await flood(stack, peak_rate, seconds)).lines())
    classes = await two_classes(stack, peak_rate, seconds)
    say("1.8 x capacity, two classes", *(classes.of(name).line(f"  {name}") for name in ("critical", "sheddable")))
    tenants = await two_tenants(stack, peak_rate, seconds)
    say("5.4 x capacity, two tenants", *(tenants.of(name).line(f"  {name}") for name in ("greedy", "modest")))
    say((await workers_away(stack, away_seconds)).line())


def say(*lines: str) -> None:
    """Prints at once."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs on a stack of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each overload")
    parser.add_argument("--away-seconds", type=float, default=30.0, help="without a worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory), settings={"inference": WORKER_SETTINGS})
        with stack:
            serve_slow_model(stack, ROW_SECONDS)
            asyncio.run(measure(stack, options.seconds, options.away_seconds))


if __name__ == "__main__":
    main()
