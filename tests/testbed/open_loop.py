"""Callers that do not slow down when the server does, and what became of each of their calls.

Calls begin when a Poisson process says so, and their clock runs from that moment: a generator that lags behind must
not hide it. Nothing is repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from grpc import aio

from inferway.errors import InferwayError
from inferway.foreign.inference import grpc_service_pb2 as oip
from tests.testbed.calls import decoded, model_infer
from tests.testbed.slow_model import MODEL, WIDTH

REFUSALS = frozenset({"WOULD_BE_LATE", "QUEUE_FULL", "MEMORY_PRESSURE", "TOO_MANY_CONCURRENT"})
_OPTIONS = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True, slots=True)
class Source:
    """Callers of one kind."""

    name: str
    rate: float
    """Calls a second."""
    deadline_seconds: float = 0.5
    criticality: str = "critical"
    tenant: str = ""


class Ended(NamedTuple):
    """One call. Times are on the loop's clock."""

    source: str
    due: float
    ended: float
    reason: str
    """Of the error; empty if it was answered."""
    has_pushback: bool
    """It was told when to come back, as RetryInfo and in grpc's own header."""

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


@dataclass(slots=True)
class Record:
    """All calls of one run."""

    began: float
    ended: float = 0.0
    calls: list[Ended] = field(default_factory=list)

    def of(self, source: str) -> Record:
        """Those of one source."""
        return Record(self.began, self.ended, [call for call in self.calls if call.source == source])

    @property
    def answered(self) -> list[Ended]:
        """Within their deadlines; what comes later grpc throws away."""
        return [call for call in self.calls if not call.reason]

    @property
    def refused(self) -> list[Ended]:
        """By somebody who had to choose."""
        return [call for call in self.calls if call.reason in REFUSALS]

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return len(self.answered) / (self.ended - self.began)

    @property
    def success(self) -> float:
        """Share of the calls that were answered."""
        return len(self.answered) / max(1, len(self.calls))

    @property
    def admitted_p99(self) -> float:
        """Of the seconds that everything took that was not refused; what was late took as long as its deadline."""
        return percentile([call.seconds for call in self.calls if call.reason not in REFUSALS], 0.99)

    def refusal_seconds(self, share: float) -> float:
        """Within which that share of the refusals came."""
        return percentile([call.seconds for call in self.refused], share)

    @property
    def reasons(self) -> dict[str, int]:
        """How often each error came."""
        return dict(Counter(call.reason for call in self.calls if call.reason))

    def normal_after(self) -> float:
        """Seconds from the beginning until the last failure."""
        return max((call.ended - self.began for call in self.calls if call.reason), default=0.0)

    def line(self, name: str) -> str:
        """The figures."""
        refused = [f"{self.refusal_seconds(share) * 1e3:.1f}" for share in (0.5, 0.95, 0.99)]
        return (
            f"{name}: {len(self.calls)} calls, goodput {self.goodput:.1f}/s, success {self.success:.2%}, "
            f"p99 of admitted {self.admitted_p99 * 1e3:.0f} ms, "
            f"p50, p95, p99 of refusals {' '.join(refused)} ms, {self.reasons or 'no errors'}"
        )


def percentile(values: list[float], share: float) -> float:
    """0 if there are none."""
    ranked = sorted(values) or [0.0]
    return ranked[min(int(len(ranked) * share), len(ranked) - 1)]


def slow_request(model: str = MODEL, width: int = WIDTH) -> oip.ModelInferRequest:
    """A request of one row for the slow model."""
    values = np.ones((1, width), "<f4")
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=list(values.shape))
    return oip.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[values.tobytes()])


async def open_loop(target: str, sources: Iterable[Source], seconds: float, model: str = MODEL) -> Record:
    """Calls for so long, and returns when every call has ended."""
    loop = asyncio.get_running_loop()
    async with aio.insecure_channel(target, options=_OPTIONS) as channel:
        await channel.channel_ready()
        caller = _Caller(model_infer(channel), slow_request(model), Record(loop.time()))
        await asyncio.gather(*(caller.keep_calling(source, seconds) for source in sources))
        caller.record.ended = caller.record.began + seconds
        await asyncio.gather(*caller.under_way)
        return caller.record


async def peak(target: str, callers: int, seconds: float, model: str = MODEL) -> float:
    """Answers a second if so many callers wait for each of theirs."""
    loop = asyncio.get_running_loop()
    async with aio.insecure_channel(target, options=_OPTIONS) as channel:
        call, request = model_infer(channel), slow_request(model)
        answered, began = 0, loop.time()

        async def keep_calling() -> None:
            nonlocal answered
            while loop.time() < began + seconds:
                await call(request, timeout=30.0)
                answered += 1

        await asyncio.gather(*(keep_calling() for _ in range(callers)))
        return answered / (loop.time() - began)


class _Caller:
    def __init__(self, call: Callable[..., Any], request: oip.ModelInferRequest, record: Record) -> None:
        self._call, self._request, self.record = call, request, record
        self.under_way = set[asyncio.Task[None]]()

    async def keep_calling(self, source: Source, seconds: float) -> None:
        """Begins calls, whatever becomes of them."""
        chance, loop = random.Random(source.name), asyncio.get_running_loop()
        metadata = (("x-criticality", source.criticality), ("x-tenant", source.tenant))
        due = self.record.began
        while (due := due + chance.expovariate(source.rate)) < self.record.began + seconds:
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = loop.create_task(self._one(source, due, metadata))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def _one(self, source: Source, due: float, metadata: tuple[tuple[str, str], ...]) -> None:
        reason, has_pushback = "", False
        try:
            await self._call(self._request, timeout=source.deadline_seconds, metadata=metadata)
        except aio.AioRpcError as failed:
            error = decoded(failed)
            reason = error.reason if isinstance(error, InferwayError) else failed.code().name
            told = any(key == "grpc-retry-pushback-ms" for key, _ in failed.trailing_metadata() or ())
            has_pushback = told and isinstance(error, InferwayError) and error.retryable
        ended = asyncio.get_running_loop().time()
        self.record.calls.append(Ended(source.name, due, ended, reason, has_pushback))
