"""Makes traffic: closed loop by default, open loop at a given rate.

In the closed loop each of `concurrency` callers sends when its last answer came. In the open loop requests start on
schedule whatever the answers do, and a latency counts from the scheduled start, so that a slow server cannot hide its
queue. Requests that the limit of outstanding ones keeps from starting are counted as `not_sent`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from inferway.errors import InferwayError
from inferway_cli.histogram import LatencyHistogram
from inferway_client import Client, PredictionStream, Version
from inferway_client.tensors import Array

Inputs = dict[str, Array]
MAX_OUTSTANDING = 2_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, how fast, for how long."""

    endpoint: str
    version: Version
    inputs: Sequence[Inputs]
    """Used in turn; all have `rows` rows."""
    rows: int
    rate: float
    """Requests a second; 0 for the closed loop."""
    seconds: float
    """0 for no end."""
    concurrency: int
    """Callers of the closed loop; of a stream, items in flight."""
    streamed: bool
    """One bidirectional stream instead of calls."""
    timeout_seconds: float


@dataclass(slots=True)
class Tally:
    """What came back so far."""

    started_at: float
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    errors: Counter[str] = field(default_factory=Counter)
    """By reason."""
    versions: Counter[str] = field(default_factory=Counter)
    """Answers by the version that gave them."""
    sent: int = 0
    not_sent: int = 0
    ended_at: float | None = None

    def summary(self, now: float, rows: int) -> dict[str, Any]:
        """Figures of the whole run, with latencies in milliseconds."""
        elapsed = max((self.ended_at or now) - self.started_at, 1e-9)
        milliseconds = {f"p{percent:g}_ms": self.latencies.percentile(percent) * 1e3 for percent in (50, 95, 99)}
        return {
            "seconds": round(elapsed, 3),
            "requests": self.sent,
            "answers": self.latencies.count,
            "errors": dict(self.errors),
            "not_sent": self.not_sent,
            "requests_per_second": round(self.latencies.count / elapsed, 1),
            "rows_per_second": round(self.latencies.count * rows / elapsed, 1),
            **{name: round(value, 3) if value == value else None for name, value in milliseconds.items()},  # noqa: PLR0124 - NaN
            "max_ms": round(self.latencies.max_seconds * 1e3, 3),
            "versions": dict(self.versions),
        }


class Load:
    """Runs a plan. `tally` holds the whole run, `take_window` what came since it was last taken."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        """`clock` returns seconds, monotonic."""
        self.plan = plan
        self._clock = clock
        self._stopped = asyncio.Event()
        self._inputs = itertools.cycle(plan.inputs)
        self._window = LatencyHistogram()
        self._scheduled = 0
        self.tally = Tally(clock())

    def stop(self) -> None:
        """Starts no more requests; those outstanding are still waited for."""
        self._stopped.set()

    def take_window(self) -> LatencyHistogram:
        """Latencies since the last call."""
        window, self._window = self._window, LatencyHistogram()
        return window

    def summary(self) -> dict[str, Any]:
        """Figures of the run so far."""
        return self.tally.summary(self._clock(), self.plan.rows)

    async def run(self, client: Client) -> None:
        """Sends until the plan's time is over or `stop` is called; failures are counted, not raised."""
        self.tally.started_at = self._clock()
        if self.plan.streamed:
            await self._run_streams(client)
        elif self.plan.rate:
            await self._run_schedule(client)
        else:
            await asyncio.gather(*(self._run_caller(client) for _ in range(self.plan.concurrency)))
        self.tally.ended_at = self._clock()

    async def _run_caller(self, client: Client) -> None:
        while not self._over():
            await self._call(client, self._clock())

    async def _run_schedule(self, client: Client) -> None:
        outstanding: set[asyncio.Task[None]] = set()
        async for due in self._schedule():
            if len(outstanding) >= MAX_OUTSTANDING:
                self.tally.not_sent += 1
                continue
            task = asyncio.create_task(self._call(client, due))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)
        await asyncio.gather(*outstanding)

    async def _call(self, client: Client, started: float) -> None:
        self.tally.sent += 1
        try:
            prediction = await client.predict(
                self.plan.endpoint,
                next(self._inputs),
                version=self.plan.version,
                timeout=self.plan.timeout_seconds,
            )
        except InferwayError as error:
            await self._failed(error)
        else:
            self._answered(started, prediction.model_version)

    async def _run_streams(self, client: Client) -> None:
        """One stream after another: a new one when the last is lost or the server ends it."""
        while not self._over():
            unanswered: dict[int, float] = {}
            opened = False
            stream = client.stream(
                self.plan.endpoint,
                version=self.plan.version,
                max_in_flight=self.plan.concurrency,
                timeout=self.plan.timeout_seconds,
                reconnect=None,
            )
            try:
                async with stream:
                    opened = True
                    await self._run_stream(stream, unanswered)
            except InferwayError as error:
                await self._stream_lost(error, opened, len(unanswered))

    async def _run_stream(self, stream: PredictionStream, unanswered: dict[int, float]) -> None:
        """Uses a stream as long as it lasts; `unanswered` has the start times of what was sent, by id."""
        room = asyncio.Semaphore(min(self.plan.concurrency, stream.max_in_flight))

        async def items() -> AsyncIterator[Inputs]:
            async for number, due in _numbered(self._schedule() if self.plan.rate else self._as_answered(room)):
                self.tally.sent += 1
                unanswered[number] = due
                yield next(self._inputs)

        async for result in stream.map(items()):
            room.release()
            due = unanswered.pop(result.id)
            if result.error is not None:
                self.tally.errors[_reason(result.error)] += 1
            else:
                self._answered(due, result.unwrap().model_version)

    async def _stream_lost(self, error: InferwayError, opened: bool, unanswered: int) -> None:
        """Counts what a lost stream leaves unanswered as failed; one that was not even opened fails one request."""
        if not unanswered and not opened:
            self.tally.sent += 1
            self._scheduled += 1
            unanswered = 1
        if unanswered:
            self.tally.errors[_reason(error)] += unanswered
        await self._pause_after(error)

    async def _as_answered(self, room: asyncio.Semaphore) -> AsyncIterator[float]:
        """Start times of the closed loop."""
        while not self._over():
            await room.acquire()
            yield self._clock()

    async def _schedule(self) -> AsyncIterator[float]:
        """Start times of the open loop, each yielded when it is due; goes on where the last one stopped."""
        while True:
            due = self.tally.started_at + self._scheduled / self.plan.rate
            if (wait := due - self._clock()) > 0:
                await self._pause(wait)
            if self._over():
                return
            self._scheduled += 1
            yield due

    async def _failed(self, error: InferwayError) -> None:
        self.tally.errors[_reason(error)] += 1
        await self._pause_after(error)

    async def _pause_after(self, error: InferwayError) -> None:
        await self._pause(error.retry_after_seconds or 0.05)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    def _answered(self, started: float, version: str) -> None:
        seconds = self._clock() - started
        self.tally.latencies.add(seconds)
        self._window.add(seconds)
        self.tally.versions[version] += 1

    def _over(self) -> bool:
        elapsed = self._clock() - self.tally.started_at
        return self._stopped.is_set() or bool(self.plan.seconds and elapsed >= self.plan.seconds)


async def _numbered(times: AsyncIterator[float]) -> AsyncIterator[tuple[int, float]]:
    number = 0
    async for time in times:
        yield number, time
        number += 1


def _reason(error: InferwayError) -> str:
    return error.reason or error.code
