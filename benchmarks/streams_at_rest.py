"""What streams cost that do nothing, and what those cost others whose clients read nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.streams_bed import STATEFUL, STATELESS, WIDE, Bed, Figures

READY_SECONDS = 150.0
REST_SECONDS = 10.0
"""Over which the CPU time of doing nothing is counted."""
SETTLE_SECONDS = 3.0
GIVEN_BACK_SECONDS = 10.0
STREAMS_PER_CONNECTION = 100
WAVE_STREAMS = 2_000
"""Opened at once. Each sends an item, and what a queue has no room for is refused."""
STALLED_ROWS = 256
"""Of an item whose answer nobody reads: 3 kB."""
MAX_WORSE, MAX_WORSE_SECONDS = 0.10, 0.5e-3
OTHERS_SECONDS = 4.0
MIB = 1 << 20


def idle_streams(bed: Bed, count: int) -> Iterator[str]:
    """Streams that answered one item and wait: stateless ones, sessions, and sessions that outlive their stream."""
    kinds: dict[str, tuple[str, dict[str, bool]]] = {
        "streams": (STATELESS, {}),
        "streams with sessions": (STATEFUL, {}),
        "streams with sessions that can be resumed": (STATEFUL, {"acknowledges_results": True}),
    }
    for name, (model, fields) in kinds.items():
        with bed.fresh() as fresh:
            yield f"{count:,} {name}: {_idle(fresh, model, fields, count)}"


def _idle(bed: Bed, model: str, fields: dict[str, bool], count: int) -> str:
    payloads, before, began = bed.payloads(model), bed.gateway_bytes(), time.monotonic()
    rest = {"items": 1, "acknowledge": int(bool(fields))}
    with _in_waves(bed, payloads.opening(**fields), payloads.message(rows=1), count, **rest):
        opened_in = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        each = (bed.gateway_bytes() - before) / count
        spent = bed.gateway_cpu_seconds()
        time.sleep(REST_SECONDS)
        cpu = (bed.gateway_cpu_seconds() - spent) / REST_SECONDS
    time.sleep(SETTLE_SECONDS)
    left = (bed.gateway_bytes() - before) / MIB
    return f"{each / 1024:.1f} KiB each, {cpu:.1%} of a CPU, open in {opened_in:.0f} s; {left:.0f} MiB stay afterwards"


@contextmanager
def _in_waves(bed: Bed, opening: Path, message: Path, count: int, **rest: float) -> Iterator[None]:
    with ExitStack() as held:
        for first in range(0, count, WAVE_STREAMS):
            wave = min(WAVE_STREAMS, count - first)
            options = {**rest, "streams": wave, "channels": _connections(wave)}
            held.enter_context(bed.held(opening, message, READY_SECONDS, **options))
        yield


def stalled_readers(bed: Bed, count: int, rounds: int) -> Iterator[str]:
    """Other streams, without and with clients that send what they can and read nothing."""
    with bed.fresh() as fresh:
        payloads, before = bed.payloads(WIDE), fresh.gateway_bytes()
        rest = {"streams": count, "read": 0, "window": 1e9, "channels": _connections(count)}
        alone = [_others(fresh) for _ in range(rounds)]
        with fresh.held(payloads.opening(), payloads.message(STALLED_ROWS), READY_SECONDS, **rest):
            most = fresh.gateway_bytes()
            beside = [_others(fresh) for _ in range(2 * rounds)]
        time.sleep(GIVEN_BACK_SECONDS)
        left = fresh.gateway_bytes()
        alone += [_others(fresh) for _ in range(rounds)]
    sizes = f"{before / MIB:.0f} MiB before, {most / MIB:.0f} MiB with them, {left / MIB:.0f} MiB after them"
    yield f"{count:,} stalled readers: gateway {sizes}"
    yield _verdict(_p99(alone), _p99(beside))


def _connections(streams: int) -> int:
    return max(1, streams // STREAMS_PER_CONNECTION)


def _others(bed: Bed) -> Figures:
    """Four streams with one item in flight on each: a load that leaves room."""
    payloads = bed.payloads(STATELESS)
    one = {"streams": 4, "window": 1, "warm": 1, "seconds": OTHERS_SECONDS}
    return bed.streams(payloads.opening(), payloads.message(rows=1), **one)


def _p99(runs: list[Figures]) -> float:
    return statistics.median(run["p99"] for run in runs) / 1e6


def _verdict(alone: float, beside: float) -> str:
    most = max(alone * (1 + MAX_WORSE), alone + MAX_WORSE_SECONDS)
    held = "held  " if beside <= most else "MISSED"
    return f"{held} p99 of others: {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms beside (at most {most * 1e3:.2f})"
