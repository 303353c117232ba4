"""How a version is served and why, gathered for people: what was learned, what waits, and the last decisions. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from inferway_inference.decision_log import Dispatch, in_words
from inferway_inference.executor import Executor
from inferway_inference.latency import CurveKey, Knot, Latency
from inferway_inference.signatures import Signature
from inferway_inference.versions import VersionStatus


@dataclass(frozen=True, slots=True)
class ExplainedCurve:
    """Latency by rows, of one signature and shape."""

    signature: str
    shape: str
    """For example `x[32]`; ends in ` beside others` where that was learned apart."""
    knots: tuple[Knot, ...]


@dataclass(frozen=True, slots=True)
class ExplainedQueue:
    """What waits in the worker."""

    requests: int
    rows: int
    byte_count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class ExplainedCredits:
    """One link's part of the window."""

    gateway: str
    open_rows: int
    share_rows: int


@dataclass(frozen=True, slots=True)
class ExplainedDecision:
    """A batch, when it was dispatched on the clock of the wall, and why in words."""

    dispatch_time_us: int
    dispatch: Dispatch
    words: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one version on one worker."""

    status: VersionStatus
    curves: tuple[ExplainedCurve, ...]
    queue: ExplainedQueue
    credits: tuple[ExplainedCredits, ...]
    decisions: tuple[ExplainedDecision, ...]


def explain(status: VersionStatus, executor: Executor, now: float) -> Explanation:
    """What there is to say at `now`, on the worker's clock."""
    scheduler = executor.scheduler
    queue = ExplainedQueue(
        scheduler.waiting_items, scheduler.waiting_rows, scheduler.waiting_bytes, scheduler.oldest_seconds(now)
    )
    signatures = executor.signatures
    curves = [curve for key, latency in scheduler.latency for curve in _curves(key, latency, signatures)]
    links = [
        ExplainedCredits(str(getattr(link, "gateway", "")), opened, share)
        for link, opened, share in executor.credits.shares()
    ]
    began = time.time() - now
    decisions = [
        ExplainedDecision(int((began + dispatch.at) * 1e6), dispatch, in_words(dispatch)) for dispatch in scheduler.log
    ]
    return Explanation(status, tuple(curves), queue, tuple(links), tuple(decisions))


def _curves(key: CurveKey, latency: Latency, signatures: dict[str, Signature]) -> Iterator[ExplainedCurve]:
    name, shapes = key
    inputs = signatures[name].inputs if name in signatures else ()
    shape = ", ".join(f"{spec.name}{list(trailing)}" for spec, trailing in zip(inputs, shapes, strict=False))
    for curve, suffix in ((latency.alone, ""), (latency.crowded, " beside others")):
        if curve.knots:
            yield ExplainedCurve(name, shape + suffix, tuple(curve.knots))
