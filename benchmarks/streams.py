"""Measures streams against unary calls of the same run, and streams at rest; see README.md beside this."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import loadgen, streams_at_rest  # noqa: E402 - the root is on the path only now
from benchmarks.streams_bed import BINARIES, OUT, STATEFUL, STATELESS, Bed, Figures, bed  # noqa: E402

MIN_ROWS_PER_SECOND = 100_000
MIN_ITEMS_TO_UNARY = 1.5
MAX_LATENCY_TO_UNARY = 1.0
FRAME_ROWS = 32
BATCH, FRAMES = 8, 4
"""Items of a message, where a message has several: of one row, and of FRAME_ROWS. Our client does that by itself."""
SESSIONS = 64


def interleaved(loads: dict[str, Callable[[], Figures]], rounds: int) -> dict[str, Figures]:
    """Every load in turn, there and back; medians."""
    runs: dict[str, list[Figures]] = {name: [] for name in loads}
    for turn in range(rounds):
        for name in list(loads) if turn % 2 == 0 else reversed(loads):
            runs[name].append(loads[name]())
            print(f"  {name}: {runs[name][-1]['rate']:.0f}/s, p50 {runs[name][-1]['p50']:.0f} µs", flush=True)
    return {name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()}


def throughput(here: Bed, options: argparse.Namespace) -> Iterator[str]:
    """Eight streams of eight items in flight beside 64 unary calls in flight, and sessions of one item each."""
    plain, session, span = here.payloads(STATELESS), here.payloads(STATEFUL), _span(options)
    one, batch = plain.message(1), plain.message(1, items=BATCH)
    frame, frames = plain.message(FRAME_ROWS), plain.message(FRAME_ROWS, items=FRAMES)
    opening, batched = plain.opening(), plain.opening(max_results_per_message=4 * BATCH)
    resumable = session.opening(acknowledges_results=True)
    step = {"streams": SESSIONS, "window": 1, "acknowledge": 1}
    loads = {
        "unary, 64 in flight": lambda: here.unary(plain.unary(), 64, options.seconds),
        "8 streams of 8, one row an item": lambda: here.streams(opening, one, window=8, **span),
        "8 streams of 16, one row an item, 8 to a message": lambda: here.streams(batched, batch, window=16, **span),
        "8 streams of 8, 32 rows an item": lambda: here.streams(batched, frame, window=8, **span),
        "8 streams of 8, 32 rows an item, 4 to a message": lambda: here.streams(batched, frames, window=8, **span),
        f"{SESSIONS} sessions of 1, acknowledged": lambda: here.streams(resumable, session.message(1), **step, **span),
    }
    medians = interleaved(loads, options.rounds)
    for name, own in medians.items():
        yield f"{name}: {own['rate']:,.0f}/s, p99 {own['p99'] / 1e3:.1f} ms, {own['cpu']:.3f} CPU s per 1,000"
    unary, alone, several, wide, wide_several, _ = (own["rate"] for own in medians.values())
    yield judged("rows a second, 32 an item", wide * FRAME_ROWS, least=MIN_ROWS_PER_SECOND)
    yield judged("the same, 4 to a message", wide_several * FRAME_ROWS, least=MIN_ROWS_PER_SECOND)
    yield judged("one-row items to unary calls", alone / unary, least=MIN_ITEMS_TO_UNARY)
    yield judged("the same, 8 to a message", several / unary, least=MIN_ITEMS_TO_UNARY)


def latency(here: Bed, options: argparse.Namespace) -> Iterator[str]:
    """One item at a time on an idle stream, beside one unary call at a time."""
    plain = here.payloads(STATELESS)
    opening, one = plain.opening(), plain.message(1)
    loads = {
        "unary, one at a time": lambda: here.unary(plain.unary(), 1, options.seconds),
        "an item at a time": lambda: here.streams(opening, one, streams=1, window=1, **_span(options)),
    }
    unary, item = interleaved(loads, options.rounds).values()
    yield f"unary p50 {unary['p50']:.0f} µs, p99 {unary['p99']:.0f} µs"
    yield f"item p50 {item['p50']:.0f} µs, p99 {item['p99']:.0f} µs"
    yield judged("p50 of an item to that of a unary call", item["p50"] / unary["p50"], most=MAX_LATENCY_TO_UNARY)


def idle(here: Bed, options: argparse.Namespace) -> Iterator[str]:
    """Streams on which nothing happens."""
    return streams_at_rest.idle_streams(here, options.idle_streams)


def stalled(here: Bed, options: argparse.Namespace) -> Iterator[str]:
    """Streams whose clients do not read."""
    return streams_at_rest.stalled_readers(here, options.stalled_streams, options.rounds)


MEASURES = {"throughput": throughput, "latency": latency, "idle": idle, "stalled": stalled}


def judged(what: str, reached: float, *, least: float | None = None, most: float | None = None) -> str:
    """A bar with what was reached."""
    held = reached >= least if least is not None else reached <= (most or 0.0)
    bound = f"at least {least:,g}" if least is not None else f"at most {most:,g}"
    return f"{'held  ' if held else 'MISSED'} {what}: {reached:,.2f} ({bound})"


def _span(options: argparse.Namespace) -> dict[str, float]:
    return {"warm": options.seconds / 4, "seconds": options.seconds}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(MEASURES)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, interleaved (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default 4)")
    parser.add_argument("--idle-streams", type=int, default=10_000)
    parser.add_argument("--stalled-streams", type=int, default=1_000)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.idle_streams, options.stalled_streams = 1, 1.0, 500, 50
    try:
        loadgen.build(BINARIES)
    except loadgen.LoadgenMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    results: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name, bed(Path(name)) as here:
        for measure in options.measures or MEASURES:
            results[measure] = list(_told(measure, MEASURES[measure](here, options)))
    machine = {"cores": psutil.cpu_count(), "time": time.strftime("%Y-%m-%d %H:%M")}
    (OUT / "streams.json").write_text(json.dumps({"machine": machine, **results}, indent=2))
    return 0


def _told(measure: str, lines: Iterator[str]) -> Iterator[str]:
    print(measure, flush=True)
    for line in lines:
        print(f"  {line}", flush=True)
        yield line


if __name__ == "__main__":
    raise SystemExit(main())
