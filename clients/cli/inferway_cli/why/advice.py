"""What the figures of a version come to, in a sentence. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.serving_words import counted, duration, figure

PAYS = 1.1
"""How many times faster a batch must be than single rows to be worth a mention."""
SLOWER = 4.0
"""How many times longer than in the trials a batch must take to be worth a mention."""
HANGS = 20
"""How many times longer than expected a batch must be under way to be taken for stuck."""
HANGS_FOR_US = (1_000_000, 120_000_000)
"""Less is a hiccup; after more the worker has long ended the call, and the batch has failed."""
BESIDE_OTHERS = " beside others"
"""The end of the shape of a curve of batches that ran while another did."""
NOTHING_LEARNED = "nothing is known yet: no batch was measured since the version was loaded."

Explanation = worker_service_pb2.ExplainVersionResponse
Trial = worker_service_pb2.PlanTrial


def advice(explained: Explanation, options: resources_pb2.ServingOptions, named: str, now_us: int) -> str:
    """One or two sentences: whether batching pays here, and whether a bound of the operator costs something.

    If a batch is stuck, only that. `named` is the version as arguments of a command, for example `digits --version 3`;
    `now_us` is the time in microseconds since 1970.
    """
    plan = explained.status.plan
    if stuck := _of_stuck(explained, now_us):
        return stuck
    verdict = (
        _of_trials(plan.trials) if len({trial.rows for trial in plan.trials}) > 1 else _of_curves(explained.curves)
    )
    remarks = (verdict or NOTHING_LEARNED, _of_bounds(explained, options, named), _of_drift(explained))
    return " ".join(filter(None, remarks))


def _of_stuck(explained: Explanation, now_us: int) -> str:
    """Of a batch that has no result yet; one that failed has none, either."""
    plan = explained.status.plan
    for decision in explained.decisions[-max(1, plan.instances * plan.callers) :]:
        age_us = now_us - decision.dispatch_time_us
        slow = 0 < HANGS * decision.expected_us < age_us and HANGS_FOR_US[0] <= age_us <= HANGS_FOR_US[1]
        if slow and not decision.compute_us:
            return (
                f"the model hangs on a request, or failed on it: a batch of {counted(decision.rows, 'row')} was "
                f"started {duration(age_us)} ago and has no result yet; {duration(decision.expected_us)} were expected."
            )
    return ""


def _of_trials(trials: Sequence[Trial]) -> str:
    fewest, most = min(trial.rows for trial in trials), max(trial.rows for trial in trials)
    single = max((trial for trial in trials if trial.rows == fewest), key=_speed)
    batched = max((trial for trial in trials if trial.rows > fewest), key=_speed)
    if batched.rows_per_second > PAYS * single.rows_per_second:
        return f"batching pays for this model on this machine: {_ways(batched)}, {_ways(single)}."
    if single.rows_per_second > PAYS * batched.rows_per_second:
        full = max((trial for trial in trials if trial.rows == most), key=_speed)
        return f"batching does not pay for this model on this machine: {_ways(single)}, {_ways(full)}."
    return f"batching makes little difference for this model on this machine: {_ways(batched)}, {_ways(single)}."


def _of_curves(curves: Sequence[worker_service_pb2.LatencyCurve]) -> str:
    """By what real batches showed, of the curve that saw the most of them."""
    points = max((_seen(curve) for curve in curves), key=lambda seen: sum(point.samples for point in seen), default=[])
    if len(points) <= 1:
        return ""
    single = points[0]
    best = max(points, key=rows_per_second)
    if rows_per_second(best) <= PAYS * rows_per_second(single):
        return f"batching does not pay for this model on this machine: {_reaches(single)}, {_reaches(points[-1])}."
    return f"batching pays for this model on this machine: {_reaches(best)}, {_reaches(single)}."


def _of_bounds(explained: Explanation, options: resources_pb2.ServingOptions, named: str) -> str:
    """Of a bound on rows below what was fastest."""
    reached = [(point.rows, rows_per_second(point)) for curve in explained.curves for point in _seen(curve)]
    reached += [(trial.rows, trial.rows_per_second) for trial in explained.status.plan.trials]
    bound = options.max_batch_rows
    within = max((speed for rows, speed in reached if rows <= bound), default=0.0)
    beyond = max(((speed, rows) for rows, speed in reached if rows > bound), default=(0.0, 0))
    if not bound or not within or beyond[0] <= PAYS * within:
        return ""
    return (
        f"The bound of {counted(bound, 'row')} costs speed: {beyond[1]} rows reached {figure(beyond[0])} rows/s, "
        f"within the bound it is {figure(within)}; `inferway tune {named} --max-batch-rows auto` lifts it."
    )


def _of_drift(explained: Explanation) -> str:
    """Of batches that take far longer than in the trials of the plan in use."""
    plan = explained.status.plan
    tried: dict[int, float] = {}
    for trial in plan.trials:
        if (trial.callers, trial.threads) != (plan.callers, plan.threads):
            continue
        us = trial.callers * trial.rows * 1e6 / trial.rows_per_second if trial.rows_per_second else math.inf
        tried[trial.rows] = min(us, tried.get(trial.rows, math.inf))
    curves = [curve for curve in explained.curves if plan.callers > 1 or not curve.shape.endswith(BESIDE_OTHERS)]
    learned = [point for curve in curves for point in _seen(curve) if point.rows in tried]
    worst = max(learned, key=lambda point: point.compute_us / tried[point.rows], default=None)
    if worst is None or worst.compute_us < SLOWER * tried[worst.rows]:
        return ""
    return (
        f"Batches of {counted(worst.rows, 'row')} took {duration(worst.compute_us)} of late, and "
        f"{duration(tried[worst.rows])} in the trials: either their shape is dearer, or the machine was busy."
    )


def rows_per_second(point: worker_service_pb2.LatencyPoint) -> float:
    """What batches of this size reach, one after the other; 0 if their time is unknown."""
    return point.rows * 1e6 / point.compute_us if point.compute_us > 0 else 0.0


def _seen(curve: worker_service_pb2.LatencyCurve) -> list[worker_service_pb2.LatencyPoint]:
    """The points that batches were seen of; the others are reckoned."""
    return [point for point in curve.points if point.samples]


def _speed(trial: Trial) -> float:
    return trial.rows_per_second


def _ways(trial: Trial) -> str:
    speed = figure(trial.rows_per_second)
    if trial.callers == 1:
        return f"one batch of {counted(trial.rows, 'row')} at a time does {speed} rows/s"
    return f"{trial.callers} batches of {counted(trial.rows, 'row')} side by side do {speed} rows/s"


def _reaches(point: worker_service_pb2.LatencyPoint) -> str:
    return f"batches of {counted(point.rows, 'row')} do {figure(rows_per_second(point))} rows/s"
