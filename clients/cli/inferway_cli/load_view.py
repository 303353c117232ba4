"""Shows traffic while it runs: a live table on a terminal, a line a second elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inferway_cli.histogram import LatencyHistogram
from inferway_cli.load import Load

LIVE_SECONDS = 0.5
LINE_SECONDS = 1.0


async def watch(load: Load, running: asyncio.Task[None], console: Console, clock: Callable[[], float]) -> None:
    """Shows `load` on `console` until `running` ends; raises nothing of it."""
    if not console.is_terminal:
        await _every(LINE_SECONDS, running, clock, lambda seconds: console.print(_line(load, seconds)))
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        await _every(LIVE_SECONDS, running, clock, lambda seconds: live.update(_table(load, seconds), refresh=True))


def summary_table(load: Load) -> Table:
    """The whole run, as figures."""
    figures = load.summary()
    table = _grid()
    table.add_row("requests", f"{figures['requests']:,} in {figures['seconds']:g} s")
    table.add_row("rate", f"{figures['requests_per_second']:,} requests/s, {figures['rows_per_second']:,} rows/s")
    latencies = load.tally.latencies
    table.add_row("latency", f"{_percentiles(latencies)}, max {_milliseconds(latencies.max_seconds)}")
    table.add_row("versions", _counts(figures["versions"]))
    table.add_row("errors", _counts(figures["errors"]) or "none")
    if figures["not_sent"]:
        table.add_row("not sent", f"{figures['not_sent']:,} (too many outstanding: the server is slower than the rate)")
    return table


async def _every(
    seconds: float, running: asyncio.Task[None], clock: Callable[[], float], show: Callable[[float], object]
) -> None:
    last = clock()
    while not running.done():
        await asyncio.wait([running], timeout=seconds)
        now = clock()
        show(max(now - last, 1e-9))
        last = now


def _line(load: Load, seconds: float) -> Text:
    window = load.take_window()
    rate = f"{window.count / seconds:,.0f}/s"
    return Text(f"{rate:>9}  {_percentiles(window)}  errors {_counts(load.tally.errors) or 0}")


def _table(load: Load, seconds: float) -> Table:
    window, tally = load.take_window(), load.tally
    table = _grid()
    table.add_row("rate", f"{window.count / seconds:,.0f} requests/s")
    table.add_row("latency", _percentiles(window))
    table.add_row("answers", f"{tally.latencies.count:,} of {tally.sent:,}")
    table.add_row("versions", _counts(tally.versions) or "-")
    table.add_row("errors", _counts(tally.errors) or "none")
    table.add_row("", Text("Ctrl-C stops", style="dim"))
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def _percentiles(latencies: LatencyHistogram) -> str:
    return ", ".join(f"p{percent} {_milliseconds(latencies.percentile(percent))}" for percent in (50, 95, 99))


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.1f} ms"


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
