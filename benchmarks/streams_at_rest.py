"""What streams cost that do nothing, and what those cost others whose clients read nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.streams_bed import STATEFUL, STATELESS, Bed, Figures, Payloads

READY_SECONDS = 120.0
REST_SECONDS = 10.0
"""Over which the CPU time of doing nothing is counted."""
SETTLE_SECONDS = 3.0
GIVEN_BACK_SECONDS = 20.0
STREAMS_PER_CONNECTION = 100
STALLED_ROWS = 128
MAX_WORSE, MAX_WORSE_SECONDS = 0.10, 0.5e-3
OTHERS_SECONDS = 4.0
MIB = 1 << 20


def idle_streams(bed: Bed, count: int) -> Iterator[str]:
    """Streams that answered one item and wait: stateless ones, sessions, and sessions that outlive their stream."""
    plain, sessions = bed.payloads(STATELESS), bed.payloads(STATEFUL)
    kinds: dict[str, tuple[Payloads, dict[str, bool]]] = {
        "streams": (plain, {}),
        "streams with sessions": (sessions, {}),
        "streams with sessions that can be resumed": (sessions, {"acknowledges_results": True}),
    }
    yield f"{bed.gateway_bytes() / MIB:.0f} MiB before any stream"
    for name, (payloads, fields) in kinds.items():
        yield _idle(bed, name, payloads, fields, count)
        yield f"{bed.gateway_bytes() / MIB:.0f} MiB once they are gone"


def _idle(bed: Bed, name: str, payloads: Payloads, fields: dict[str, bool], count: int) -> str:
    before = bed.gateway_bytes()
    rest = {
        "streams": count,
        "items": 1,
        "acknowledge": int(bool(fields)),
        "channels": max(1, count // STREAMS_PER_CONNECTION),
    }
    began = time.monotonic()
    with bed.held(payloads.opening(**fields), payloads.message(rows=1), READY_SECONDS, **rest):
        opened_in = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        each = (bed.gateway_bytes() - before) / count
        spent = bed.gateway_cpu_seconds()
        time.sleep(REST_SECONDS)
        spent = bed.gateway_cpu_seconds() - spent
    time.sleep(SETTLE_SECONDS)
    cpu = spent / REST_SECONDS
    return f"{count:,} {name}: {each / 1024:.1f} KiB each, {cpu:.1%} of a CPU at rest, open in {opened_in:.0f} s"


def stalled_readers(bed: Bed, count: int, rounds: int) -> Iterator[str]:
    """Other streams, without and with clients that send what they can and read nothing."""
    payloads = bed.payloads(STATELESS)
    opening, message = payloads.opening(), payloads.message(STALLED_ROWS)
    alone: list[Figures] = []
    beside: list[Figures] = []
    most = before = bed.gateway_bytes()
    for _ in range(rounds):
        alone.append(_others(bed, payloads))
        rest = {"streams": count, "read": 0, "window": 1e9, "channels": max(1, count // STREAMS_PER_CONNECTION)}
        with bed.held(opening, message, READY_SECONDS, **rest):
            beside.append(_others(bed, payloads))
            beside.append(_others(bed, payloads))
            most = max(most, bed.gateway_bytes())
        time.sleep(SETTLE_SECONDS)
        alone.append(_others(bed, payloads))
    yield f"gateway {before / MIB:.0f} MiB before, {most / MIB:.0f} MiB with {count:,} stalled readers"
    time.sleep(GIVEN_BACK_SECONDS)
    yield f"{bed.gateway_bytes() / MIB:.0f} MiB {GIVEN_BACK_SECONDS:g} s after they went"
    yield _verdict(_p99(alone), _p99(beside))


def _others(bed: Bed, payloads: Payloads) -> Figures:
    """Four streams with one item in flight on each: a load that leaves room."""
    one = {"streams": 4, "window": 1, "warm": 1, "seconds": OTHERS_SECONDS}
    return bed.streams(payloads.opening(), payloads.message(rows=1), **one)


def _p99(runs: list[Figures]) -> float:
    return statistics.median(run["p99"] for run in runs) / 1e6


def _verdict(alone: float, beside: float) -> str:
    most = max(alone * (1 + MAX_WORSE), alone + MAX_WORSE_SECONDS)
    held = "held  " if beside <= most else "MISSED"
    return f"{held} p99 of others: {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms beside (at most {most * 1e3:.2f})"
