"""How often rollouts are rolled back for nothing, and how soon for harm: `make stats`, half an hour on two cores.

Thousands of rollouts on a virtual clock go through the registry's own state machine and judge, which look every second.
The same traffic is judged by what is used instead: a gate ("success >= 99 %, p99 <= 1.25 times the p99 before", in
windows of a minute, five failed checks) and a z-test of both arms that is repeated every second at the same alphas.

    python -m benchmarks.judge_stats                        everything
    python -m benchmarks.judge_stats --runs 50 alarms       fewer runs; alarms, delays or splits alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil, comb, exp, log
from statistics import median

import numpy as np

from benchmarks.judge_rollout import drive
from benchmarks.judge_traffic import FIRST_BIN, NO_EFFECT, Effect, Series, Tape, Traffic
from inferway_registry.rollouts.spec import Judging

SECONDS = 1200
CONSTANT, RAMP, HALF = (500,), (100, 500, 1000, 2500, 5000), (5000,)
"""Weights of the canary's steps, in basis points."""
TRAFFIC = (
    Traffic("flat"),
    Traffic("diurnal", swing=0.3),
    Traffic("bursty", bursts=4.0),
    Traffic("outage of both arms", outage=True),
    Traffic("sticky Zipf", users=2000),
)
BY_REQUEST = Traffic("the same, by request", users=2000, by_request=True)
EFFECTS = (
    Effect("errors 0.5 -> 2 %", error_share=0.02),
    Effect("latency x 1.2", latency_factor=1.2),
    Effect("outputs + 0.3 sd", output_shift=0.3),
)
LOSSES = (Effect("canary loses 5 %", dropped=0.05), Effect("canary loses 10 %", dropped=0.10))
Z_AT_LEAST = 100
"""The z-test waits for so many requests of the canary."""
Z_LIMITS = ((2, 2.054), (3, 2.326), (4, 2.326))
"""Columns (errors, p95, p99), and what z may be at their alphas, one-sided."""
Z_BIN_LIMIT = 2.807
"""For the mean bin of outputs, at .005, two-sided."""
GATE_SECONDS, GATE_CHECKS = 60, 5
GATE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Alarms:
    """When one rollout was stopped, and when each other judge would have stopped it: the second, or None."""

    rolled_back: int | None
    mismatch: int | None
    gate: int | None
    z_test: int | None
    canary: tuple[tuple[int, int], ...]
    """Requests of the canary until the end of each second, and those of them that failed."""


def run(traffic: Traffic, effect: Effect, weights: tuple[int, ...], seed: int, seconds: int = SECONDS) -> Alarms:
    """One rollout whose canary has steps of the same length."""
    driven = drive(traffic, effect, weights, seed, seconds)
    canary = tuple((asked, failed) for asked, failed in driven.tape.requests[1:, 1, (0, 2)].tolist())
    return Alarms(driven.rolled_back, driven.mismatch, gate(driven.tape), z_test(driven.tape), canary)


def gate(tape: Tape) -> int | None:
    """The second of the fifth failed check of the canary alone."""
    windows = np.diff(tape.requests[::GATE_SECONDS, 1], axis=0)
    asked = np.maximum(windows[:, 0], 1)
    failed = (windows[:, 2] / asked > GATE_SHARE) | (windows[:, -1] / asked > GATE_SHARE)
    checks = np.flatnonzero(failed)
    return int((checks[GATE_CHECKS - 1] + 1) * GATE_SECONDS - 1) if len(checks) >= GATE_CHECKS else None


def z_test(tape: Tape) -> int | None:
    """The first second in which one of the cumulative z-tests finds a difference."""
    stable, canary = tape.requests[1:, 0].astype(np.float64), tape.requests[1:, 1].astype(np.float64)
    ready = canary[:, 0] >= Z_AT_LEAST
    found = np.zeros(len(ready), dtype=np.bool_)
    for column, limit in Z_LIMITS:
        ones, twos = stable[:, column], canary[:, column]
        pooled = (ones + twos) / np.maximum(stable[:, 0] + canary[:, 0], 1)
        found |= _z(ones, twos, stable[:, 0], canary[:, 0], pooled * (1 - pooled)) > limit
    numbers = np.arange(stable.shape[1] - FIRST_BIN - 1)
    sums = [arm[:, FIRST_BIN:-1] @ numbers for arm in (stable, canary)]
    variance = np.full(len(ready), (len(numbers) ** 2 - 1) / 12)
    found |= np.abs(_z(sums[0], sums[1], stable[:, 0], canary[:, 0], variance)) > Z_BIN_LIMIT
    seconds = np.flatnonzero(found & ready)
    return int(seconds[0]) if len(seconds) else None


def _z(stable: Series, canary: Series, stable_count: Series, canary_count: Series, variance: Series) -> Series:
    """The difference of two means in standard errors; 0 where there is nothing."""
    one, other = np.maximum(stable_count, 1), np.maximum(canary_count, 1)
    error = np.sqrt(variance * (1 / one + 1 / other))
    difference: Series = np.where(error > 0, (canary / other - stable / one) / np.where(error > 0, error, 1), 0.0)
    return difference


def upper_bound(hits: int, runs: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound (Biometrika 1934) of the probability that made `hits` of `runs`."""
    low, high = hits / runs, 1.0
    if hits == runs:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(hits, runs, middle) > 1 - confidence else (low, middle)
    return high


def _at_most(hits: int, runs: int, probability: float) -> float:
    """The binomial probability of at most `hits`."""
    chances = (log(comb(runs, n)) + n * log(probability) + (runs - n) * log(1 - probability) for n in range(hits + 1))
    return sum(map(exp, chances))


Start = Callable[[Traffic, Effect, tuple[int, ...], int], list[Alarms]]


def alarms(start: Start, runs: int) -> Iterator[str]:
    """False alarms: arms that do not differ. Half of the runs at 5 %, half of them on the ramp."""
    yield f"rolled back for nothing, of {runs} rollouts of {SECONDS // 60} minutes (upper bound, 95 %)"
    yield f"alpha is {Judging().alpha:.0%}; the last row is no traffic of ours"
    yield f"{'traffic':24}{'rolled back':>18}{'split':>8}{'gate':>8}{'z-test':>8}"
    all_units: list[Alarms] = []
    for traffic in TRAFFIC:
        got = [*start(traffic, NO_EFFECT, CONSTANT, ceil(runs / 2)), *start(traffic, NO_EFFECT, RAMP, runs // 2)]
        all_units += got
        yield _alarms_row(traffic.name, got)
    yield _alarms_row(f"all {len(all_units):,}", all_units)
    got = [*start(BY_REQUEST, NO_EFFECT, CONSTANT, ceil(runs / 2)), *start(BY_REQUEST, NO_EFFECT, RAMP, runs // 2)]
    yield _alarms_row(BY_REQUEST.name, got)


def _alarms_row(name: str, got: Sequence[Alarms]) -> str:
    hits = sum(each.rolled_back is not None for each in got)
    others = ([each.mismatch for each in got], [each.gate for each in got], [each.z_test for each in got])
    own = f"{hits / len(got):.1%} (<= {upper_bound(hits, len(got)):.1%})"
    return f"{name:24}{own:>18}" + "".join(f"{_share(seconds):>8.1%}" for seconds in others)


def delays(start: Start, runs: int) -> Iterator[str]:
    """How soon harm is found, on a canary with 5 % of flat traffic, and on the ramp."""
    yield f"{runs} rollouts each of 200 requests/s: found, seconds (median, 95 %), canary requests until then (failed)"
    yield f"{'harm':26}{'rolled back':>36}{'gate':>36}{'z-test':>36}"
    for effect in EFFECTS:
        for name, weights in (("5 %", CONSTANT), ("ramp", RAMP)):
            got = start(TRAFFIC[0], effect, weights, runs)
            columns = (
                [(each.rolled_back, each) for each in got],
                [(each.gate, each) for each in got],
                [(each.z_test, each) for each in got],
            )
            yield f"{f'{effect.name}, {name}':26}" + "".join(f"{_delay(column):>36}" for column in columns)


def splits(start: Start, runs: int) -> Iterator[str]:
    """How soon a wrong split is found, at half of the traffic."""
    yield f"{runs} rollouts each at 50 %: wrong split found, seconds (median, 95 %), canary requests until then"
    for effect in LOSSES:
        got = start(TRAFFIC[0], effect, HALF, runs)
        rolled_back = _share([each.rolled_back for each in got])
        yield f"{effect.name:20}{_delay([(each.mismatch, each) for each in got]):>36}   rolled back {rolled_back:.1%}"


def _share(seconds: Sequence[int | None]) -> float:
    return sum(second is not None for second in seconds) / len(seconds)


def _delay(column: Sequence[tuple[int | None, Alarms]]) -> str:
    found = sorted((second, *run_.canary[second]) for second, run_ in column if second is not None)
    if not found:
        return "0 %"
    late = found[ceil(0.95 * len(found)) - 1][0] + 1
    second, asked, failed = (median(each[part] for each in found) for part in range(3))
    return f"{len(found) / len(column):.0%} {second + 1:.0f} s, {late} s, {asked:,.0f} ({failed:,.0f})"


SECTIONS = {"alarms": (alarms, 1.0), "delays": (delays, 0.5), "splits": (splits, 0.1)}
"""With the share of the runs that each needs."""


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=400, help="rollouts for each kind of traffic")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:

        def start(traffic: Traffic, effect: Effect, weights: tuple[int, ...], runs: int) -> list[Alarms]:
            seeds = range(options.seed * 1_000_000, options.seed * 1_000_000 + runs)
            return list(pool.map(partial(run, traffic, effect, weights), seeds, chunksize=4))

        for name in options.sections or SECTIONS:
            section, part = SECTIONS[name]
            for line in section(start, max(2, int(options.runs * part))):
                print(line, flush=True)
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
