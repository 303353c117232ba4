"""The explanation of one worker as lines of text. Pure: the worker's message in, lines out."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.serving_words import counted, duration, figure, plan_in_words, size, threads_in_words
from inferway_cli.why.advice import Explanation, rows_per_second
from inferway_cli.why.plot import chart, figures, thinned
from inferway_client.results import dispatch_reason_in_words

WIDTH = 80
SHOWN_CURVES = 2
SHOWN_DECISIONS = 6
LEGEND = (
    "A worker computes rows of several requests as one batch where that is faster.",
    "Below: how it runs the model, how long batches take, what waits, and why.",
)
REASONS = {
    tensor_pb2.DISPATCH_REASON_FULL: "as many rows were in the batch as fit or pay",
    tensor_pb2.DISPATCH_REASON_IDLE: "the model was free, and waiting for more rows would not have paid",
    tensor_pb2.DISPATCH_REASON_DEADLINE: "waiting longer would have made a request late",
    tensor_pb2.DISPATCH_REASON_DELAY_BOUND: "the batch had been held open as long as permitted",
    tensor_pb2.DISPATCH_REASON_UNBATCHED: "these requests cannot be computed together with others",
}
_INDENT = "  "
_SIZES = "rows in a batch"
_CELL_WIDTH = 8
_COUNTED = "Batches of about so many rows count, those of warm-up too."
_RECKONED = "~ was not measured: no batch of about that size was seen."


def explanation_lines(explained: Explanation, now_us: int, bounds: Sequence[str] = ()) -> list[str]:
    """All that a worker said of a version; `now_us` is the time in microseconds since 1970.

    `bounds` are the operator's, in words.
    """
    return [
        *_plan(explained.status, bounds),
        *_trials(explained.status.plan.trials),
        *_curves(explained.curves),
        *_queue(explained.queue),
        *_credits(explained.credits),
        *_decisions(explained.decisions, now_us),
    ]


def paragraph(text: str, indent: str = _INDENT) -> list[str]:
    """Text in lines that fit."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def fitted(line: str) -> list[str]:
    """A line that may be too long as lines that fit; what follows the first is indented further."""
    if len(line) <= WIDTH:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line.lstrip(), WIDTH, initial_indent=indent, subsequent_indent=indent + _INDENT)


def _plan(status: worker_service_pb2.VersionStatus, bounds: Sequence[str]) -> list[str]:
    if not status.HasField("plan"):
        return [f"{_INDENT}The worker has not said how it runs the model."]
    lines = paragraph(plan_in_words(status.plan))
    if status.memory_bytes:
        lines += paragraph(f"It takes {size(status.memory_bytes)} of memory.")
    if bounds:
        lines += paragraph(f"An operator set: {'; '.join(bounds)}.")
    return lines


def _trials(trials: Sequence[worker_service_pb2.PlanTrial]) -> list[str]:
    """A line for each way of running the model, a column for each size of batch."""
    if not trials:
        return []
    best = max(trials, key=lambda trial: trial.rows_per_second)
    paths = {trial.call_path for trial in trials}
    ways: dict[str, dict[int, str]] = defaultdict(dict)
    for trial in trials:
        way = _way(trial, trial.call_path if len(paths) > 1 else "")
        ways[way][trial.rows] = figure(trial.rows_per_second) + ("*" if trial == best else " ")
    width = max(map(len, (_SIZES, *ways)))
    sizes = thinned(sorted({trial.rows for trial in trials}), (WIDTH - 4 - width) // _CELL_WIDTH)
    return [
        "",
        f"{_INDENT}What the worker tried before it chose: rows a second (* is the fastest)",
        f"    {_SIZES:<{width}}{_cells(f'{size} ' for size in sizes)}".rstrip(),
        *(f"    {way:<{width}}{_cells(cells.get(size, '') for size in sizes)}".rstrip() for way, cells in ways.items()),
    ]


def _way(trial: worker_service_pb2.PlanTrial, call_path: str) -> str:
    side = f"{trial.callers} side by side" if trial.callers > 1 else "one at a time"
    return ", ".join(filter(None, (side, threads_in_words(trial.threads), call_path)))


def _cells(values: Iterable[str]) -> str:
    return "".join(f"{value:>{_CELL_WIDTH}}" for value in values)


def _curves(curves: Sequence[worker_service_pb2.LatencyCurve]) -> list[str]:
    """Those that saw the most batches."""
    measured = sorted(filter(lambda curve: curve.points, curves), key=_samples, reverse=True)
    lines = [line for curve in measured[:SHOWN_CURVES] for line in _curve(curve)]
    if (hidden := len(measured) - SHOWN_CURVES) > 0:
        lines += ["", f"{_INDENT}{counted(hidden, 'more curve was', 'more curves were')} learned; --json shows all."]
    return lines


def _samples(curve: worker_service_pb2.LatencyCurve) -> int:
    return sum(point.samples for point in curve.points)


def _curve(curve: worker_service_pb2.LatencyCurve) -> list[str]:
    points = thinned(curve.points)
    speeds = [rows_per_second(point) for point in points]
    milliseconds = [point.compute_us / 1e3 for point in points]
    rows = figures("rows", (figure(point.rows) for point in points))
    return [
        "",
        f"{_INDENT}Learned from batches: {curve.signature} {curve.shape}".rstrip(),
        *chart("milliseconds for a batch of so many rows", milliseconds),
        rows,
        *chart("rows a second in batches of so many rows", speeds),
        rows,
        figures("ms", (_measured(point, value) for point, value in zip(points, milliseconds, strict=True))),
        figures("rows/s", (_measured(point, value) for point, value in zip(points, speeds, strict=True))),
        figures("batches", (figure(point.samples) for point in points)),
        f"    {_COUNTED}",
        *([f"    {_RECKONED}"] if not all(point.samples for point in points) else []),
    ]


def _measured(point: worker_service_pb2.LatencyPoint, value: float) -> str:
    return figure(value) if point.samples else f"~{figure(value)}"


def _queue(queue: worker_service_pb2.QueueStatus) -> list[str]:
    if not queue.requests:
        return ["", f"{_INDENT}Nothing waits in this worker."]
    waiting = f"{counted(queue.requests, 'request')} of {counted(queue.rows, 'row')}, {size(queue.bytes)}"
    return ["", f"{_INDENT}In this worker wait {waiting}; the oldest for {duration(queue.oldest_us)}."]


def _credits(links: Sequence[worker_service_pb2.LinkCredits]) -> list[str]:
    if not links:
        return [f"{_INDENT}No gateway is connected that sends requests for it."]
    lines = paragraph("So many rows each gateway may have at this worker; whatever is more waits in the gateway:")
    return lines + [f"    {link.gateway}: {link.share_rows} rows, {link.open_rows} of them granted" for link in links]


def _decisions(decisions: Sequence[worker_service_pb2.BatchDecision], now_us: int) -> list[str]:
    if not decisions:
        return ["", f"{_INDENT}No batch was started yet."]
    counts = Counter(decision.reason for decision in decisions)
    lines = ["", f"{_INDENT}Why the last {counted(len(decisions), 'batch', 'batches')} were started when they were"]
    for reason, count in counts.most_common():
        lines.append(f"    {count:>4} {dispatch_reason_in_words(reason) or 'unknown'}: {REASONS.get(reason, '-')}")
    lines += ["", f"{_INDENT}The last of them, newest at the bottom"]
    return lines + [line for decision in decisions[-SHOWN_DECISIONS:] for line in _decision(decision, now_us)]


def _decision(decision: worker_service_pb2.BatchDecision, now_us: int) -> Iterable[str]:
    ago = duration(max(0, now_us - decision.dispatch_time_us))
    took = f"took {duration(decision.compute_us)}" if decision.compute_us else "still under way"
    expected = f" ({duration(decision.expected_us)} expected)" if decision.expected_us else ""
    rows = f"{counted(decision.rows, 'row')} of {counted(decision.requests, 'request')}"
    yield f"    {ago} ago: {rows}, waited {duration(decision.waited_us)}, {took}{expected}"
    if decision.explanation:
        yield from paragraph(decision.explanation, " " * 6)
