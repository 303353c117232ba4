"""Goodput under overload, in virtual time on recorded latencies: `python -m benchmarks.goodput [--quick] [MODEL...]`.

Open-loop Poisson arrivals of single rows with mixed deadlines, at 0.3 to 5 times what the model can compute. Goodput is
answers within their deadline per second, as a share of that capacity. The scheduler is the worker's own. It is compared
with the fixed-window batchers of TensorFlow Serving and Triton in every sensible setting: a batch goes to a free caller
when `max size` rows wait or the oldest has waited for `timeout`. They are given what they lack by default: what expired
is dropped before compute. Of each load the best setting counts, which nobody could know before.

All run as many callers side by side as compute the most rows a second, which is what warm-up finds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from inferway_inference.latency import CurveKey
from inferway_inference.scheduler import Scheduler, SchedulerOptions
from inferway_inference.work import Batch, Decision, DispatchReason, Part, Request
from tests.unit.inference.requests import admitted
from tests.unit.inference.simulator import Machine, Schedules, Simulation

RECORDED = Path(__file__).parent / "recorded"
LOADS = (0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
MAX_SIZES = (1, 2, 4, 8, 16, 32, 64)
TIMEOUTS = (0.0, 0.001, 0.002, 0.005, 0.010, 0.020)
DEADLINES = (5, 10, 20, 50)
"""In batches of a single row, of at least 0.3 ms; all equally often."""
KEY: CurveKey = ("serving_default", ())
NOISE = 0.05
WORKER_BATCH_SECONDS, WORKER_ROW_SECONDS = 0.0001, 0.00002
"""What the runner takes beside the model, for the hop and for copies; it matters for the tiny model alone."""
ALONE = 0.95
"""A caller of one thread that has the machine to itself takes so much of what it takes beside another."""
LEAST_REQUESTS, MOST_REQUESTS = 3_000, 30_000
LONGEST_DEADLINES = 4
"""A run lasts so many times as long as the longest deadline, within these numbers of requests;
the first of them does not count, in which queues fill up."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    model: str
    load: float
    policy: str
    goodput: float
    """Share of capacity."""
    late: float
    """Share of the admitted that were answered late, or not at all."""
    p99: float
    """Of the admitted: the 99th percentile of the time to the answer, as a share of the deadline."""


class Recorded:
    """Latencies of one model on the machine of the recording."""

    def __init__(self, model: str) -> None:
        """Reads the recording."""
        content: Any = json.loads((RECORDED / f"{model}.json").read_text())
        self.model = model
        self.medians: dict[int, dict[int, float]] = {
            int(callers): {int(rows): statistics.median(taken) for rows, taken in curve.items()}
            for callers, curve in content["seconds"].items()
        }

    def machine(self, callers: int) -> Machine:
        """As the simulator wants it; a caller that is alone has the machine to itself."""
        curves = self.medians

        def seconds(rows: int, at_once: int) -> float:
            share = ALONE if callers > at_once else 1.0
            return WORKER_BATCH_SECONDS + rows * WORKER_ROW_SECONDS + between(curves[callers], rows) * share

        return seconds

    def best_rate(self, callers: int) -> float:
        """Rows a second at the best size."""
        machine = self.machine(callers)
        return max(callers * rows / machine(rows, callers) for rows in MAX_SIZES)

    @property
    def callers(self) -> int:
        """As warm-up would choose."""
        return max(self.medians, key=self.best_rate)

    @property
    def unit_seconds(self) -> float:
        """Of deadlines."""
        return max(0.0003, self.medians[1][1])

    def requests(self, load: float, most: int) -> int:
        """How many come in one run."""
        lasts = LONGEST_DEADLINES * DEADLINES[-1] * self.unit_seconds
        return int(min(most, max(LEAST_REQUESTS, lasts * load * self.capacity)))

    @property
    def capacity(self) -> float:
        """Rows a second at most."""
        return max(self.best_rate(callers) for callers in self.medians)


def between(curve: dict[int, float], rows: int) -> float:
    """Straight between the recorded sizes, and beyond the last as before it."""
    sizes = sorted(curve)
    place = min(max(1, bisect_left(sizes, rows)), len(sizes) - 1)
    lower, upper = sizes[place - 1], sizes[place]
    return curve[lower] + (curve[upper] - curve[lower]) * (rows - lower) / (upper - lower)


class FixedWindow:
    """Batches of a fixed largest size, and a timeout for those that are not full; first come, first served."""

    def __init__(self, max_size: int, timeout_seconds: float, callers: int) -> None:
        """Nothing waits."""
        self.capacity = callers
        self._max_size, self._timeout = max_size, timeout_seconds
        self._waiting: deque[Part] = deque()
        self._running = 0

    def offer(self, request: Request) -> None:
        """Takes everybody in."""
        part = Part(request, request.deadline, request.rows)
        request.parts = (part,)
        self._waiting.append(part)

    def withdraw(self, request: Request) -> bool:
        """Its caller went away."""
        before = len(self._waiting)
        self._waiting = deque(part for part in self._waiting if part.payload is not request)
        return len(self._waiting) < before

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is computed."""
        return not self._waiting and not self._running

    def decide(self, now: float) -> Decision:
        """A full batch, or what there is after the timeout."""
        decision = Decision([], [])
        while self._waiting and self._running < self.capacity:
            due = self._waiting[0].payload.received_at + self._timeout
            if len(self._waiting) < self._max_size and due > now:
                decision.wake_at = due
                break
            taken = self._take(now, decision)
            if taken:
                batch = Batch(taken, DispatchReason.FULL)
                batch.dispatched_at = now
                self._running += 1
                decision.batches.append(batch)
        return decision

    def finished(self, batch: Batch, compute_seconds: float, now: float) -> bool:  # noqa: ARG002 - of the interface
        """A caller is free."""
        self._running -= 1
        return False

    def failed(self, batch: Batch, now: float) -> list[Request]:
        """Nothing fails here."""
        raise NotImplementedError

    def crashed(self, batch: Batch, now: float) -> list[Request]:
        """Nothing crashes here."""
        raise NotImplementedError

    def _take(self, now: float, decision: Decision) -> list[Part]:
        """The next ones that have not expired."""
        taken: list[Part] = []
        while self._waiting and len(taken) < self._max_size:
            part = self._waiting.popleft()
            if part.deadline > now:
                taken.append(part)
            else:
                decision.expired.append(part.payload)
        return taken


def own_scheduler(recorded: Recorded, capacity: int) -> Scheduler:
    """The worker's, with the samples that warm-up gives it."""
    scheduler = Scheduler(SchedulerOptions(max_batch_rows=MAX_SIZES[-1]), capacity)
    machine = recorded.machine(capacity)
    for rows in (1, 8, 32, 64):
        scheduler.latency.observe(KEY, rows, machine(rows, 1))
        if capacity > 1:
            scheduler.latency.observe(KEY, rows, machine(rows, capacity), crowded=True)
    return scheduler


def run(model: str, load: float, policy: tuple[int, float] | None, most: int, seed: int) -> Result:
    """One run of at most `most` requests; `policy` is max size and timeout, or None for the worker's scheduler."""
    recorded = Recorded(model)
    callers = recorded.callers
    scheduler: Schedules = own_scheduler(recorded, callers) if policy is None else FixedWindow(*policy, callers)
    simulation = Simulation(scheduler, recorded.machine(callers), seed, NOISE, front_seconds=0.0)
    source, now, unit = random.Random(seed), 0.0, recorded.unit_seconds  # noqa: S311 - seeded on purpose
    for number in range(recorded.requests(load, most)):
        now += source.expovariate(load * recorded.capacity)
        deadline = now + unit * source.choice(DEADLINES)
        simulation.arrives(admitted(number, received_at=now, deadline=deadline))
    simulation.run()
    name = "own" if policy is None else f"{policy[0]} rows, {policy[1] * 1e3:g} ms"
    return judged(simulation, (model, load, name), (DEADLINES[-1] * unit, now), recorded.capacity)


def judged(
    simulation: Simulation, named: tuple[str, float, str], window: tuple[float, float], capacity: float
) -> Result:
    """What a run was worth between two moments: while its queues are as full as they get."""
    (begins, ends), shares, good = window, [], 0
    for number, ending in simulation.endings.items():
        request = simulation.requests[number]
        if ending.how in ("answered", "expired"):
            share = (ending.at - request.received_at) / (request.deadline - request.received_at)
            shares.append(share if ending.how == "answered" else max(share, 1.01))
            good += shares[-1] <= 1 and begins <= ending.at <= ends
    late = sum(share > 1 for share in shares) / len(shares)
    p99 = sorted(shares)[int(len(shares) * 0.99)]
    return Result(*named, round(good / ((ends - begins) * capacity), 4), round(late, 4), round(p99, 3))


def _run(arguments: tuple[str, float, tuple[int, float] | None, int, int]) -> Result:
    return run(*arguments)


def best_by_load(results: list[Result]) -> dict[tuple[str, float], Result]:
    """The best fixed setting of each model and load."""
    best: dict[tuple[str, float], Result] = {}
    for result in results:
        place = result.model, result.load
        if result.policy != "own" and (place not in best or result.goodput > best[place].goodput):
            best[place] = result
    return best


def main() -> None:
    """Prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", nargs="*", default=["tiny", "medium", "mobilenet"])
    parser.add_argument("--quick", action="store_true", help="fewer loads and settings")
    parser.add_argument("--own", action="store_true", help="the worker's scheduler alone")
    parser.add_argument("--to", type=Path, default=Path(".bench/goodput.json"))
    options = parser.parse_args()
    loads = LOADS[::3] if options.quick else LOADS
    policies = [] if options.own else list(product(MAX_SIZES, TIMEOUTS[::3] if options.quick else TIMEOUTS))
    work = [
        (model, load, policy, MOST_REQUESTS, 1)
        for model in options.models
        for load in loads
        for policy in (None, *policies)
    ]
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(_run, work, chunksize=8))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(json.dumps([asdict(result) for result in results]) + "\n")
    sys.stdout.write("\n".join(table(results)) + "\n")


def table(results: list[Result]) -> Iterator[str]:
    """A line for each model and load."""
    best = best_by_load(results)
    names = f"{'own':>7} {'best fixed':>10} {'own/best':>8} {'late':>7} {'p99/deadline':>12}"
    yield f"{'model':10} {'load':>5} {names}  setting"
    for result in results:
        if result.policy == "own":
            other = best.get((result.model, result.load))
            versus = f"{other.goodput:10.3f} {result.goodput / other.goodput:8.3f}" if other else f"{'-':>10} {'-':>8}"
            setting = other.policy if other else ""
            yield (
                f"{result.model:10} {result.load:5.1f} {result.goodput:7.3f} {versus} {result.late:7.2%} "
                f"{result.p99:12.2f}  {setting}"
            )


if __name__ == "__main__":
    main()
