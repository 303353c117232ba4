"""Load at a steady rate whatever becomes of it, and the figures of what did.

The clock of every call starts when it was due, not when it was sent: a load that stalls must not hide its own stall.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from grpc import aio

from inferway.errors import Draining, InferwayError, Internal
from inferway_client import Client
from inferway_client.stream import PredictionStream
from tests.testbed.calls import decoded, model_infer, tiny_request

MAX_OUTSTANDING = 4000
"""Calls that may be under way; one that would come on top is counted as NOT_SENT, which no test permits."""
CALL_SECONDS = 10.0
ITEM_RATE = 5
"""Items a second on each stream."""

Send = Callable[[], Awaitable[object]]
"""One call; raises if it failed."""


class Figures:
    """What became of the calls of one load."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.failures = Counter[str]()
        """By reason; what never reached a server of ours by grpc's code."""
        self.latencies: list[float] = []
        """Seconds, of what was answered."""
        self.longest_gap = 0.0
        """Seconds in which nothing was answered."""
        self.begun = 0
        """Calls that were due so far."""
        self._answered_at: float | None = None
        self._changed = asyncio.Condition()

    async def begin(self) -> None:
        """A call is due."""
        self.begun += 1
        await self._tell()

    @property
    def calls(self) -> int:
        """All that ended."""
        return len(self.latencies) + self.failures.total()

    def percentile(self, share: float) -> float:
        """Seconds within which `share` of the answers came."""
        ranked = sorted(self.latencies) or [float("nan")]
        return ranked[min(int(len(ranked) * share), len(ranked) - 1)]

    def report(self, scenario: str, **more: object) -> None:
        """Prints everything in one line."""
        rest = "".join(f", {name.replace('_', ' ')} {value}" for name, value in more.items())
        print(
            f"\n{scenario}: {self.calls} calls, {self.failures.total()} failed {dict(self.failures)}, "
            f"p50 {self.percentile(0.5) * 1e3:.1f} ms, p99 {self.percentile(0.99) * 1e3:.0f} ms, "
            f"slowest {self.percentile(1.0) * 1e3:.0f} ms, longest gap {self.longest_gap * 1e3:.0f} ms{rest}"
        )

    async def note(self, began: float, failure: str = "") -> None:
        """A call that was due at `began`, on the loop's clock, has ended."""
        now = asyncio.get_running_loop().time()
        if failure:
            self.failures[failure] += 1
        else:
            self.longest_gap = max(self.longest_gap, now - (self._answered_at or now))
            self._answered_at = now
            self.latencies.append(now - began)
        await self._tell()

    async def answers(self, more: int, timeout_seconds: float = 60.0) -> None:
        """Returns after `more` further answers: at a steady rate, a measure of time."""
        await self._until(len(self.latencies) + more, lambda: len(self.latencies), timeout_seconds)

    async def ends(self, more: int, timeout_seconds: float = 60.0) -> None:
        """Returns after `more` further calls ended, however they did."""
        await self._until(self.calls + more, lambda: self.calls, timeout_seconds)

    async def arrivals(self, more: int, timeout_seconds: float = 60.0) -> None:
        """Returns after `more` further calls were begun."""
        await self._until(self.begun + more, lambda: self.begun, timeout_seconds)

    async def _until(self, wanted: int, so_far: Callable[[], int], timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(lambda: so_far() >= wanted)
        except TimeoutError:
            raise AssertionError(f"{wanted - so_far()} calls did not end; failures: {dict(self.failures)}") from None

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def reason(error: Exception) -> str:
    """What a failure is counted as."""
    typed = decoded(error) if isinstance(error, aio.AioRpcError) else error
    if isinstance(typed, aio.AioRpcError):
        return f"grpc {typed.code().name}: {(typed.details() or '')[:60]}"
    if not isinstance(typed, InferwayError):
        return type(typed).__name__
    return f"{typed.reason}: {typed.message[:60]}" if type(typed) is Internal else typed.reason


@asynccontextmanager
async def steady(send: Send, rate: float) -> AsyncIterator[Figures]:
    """Begins `rate` calls a second while the body runs, and waits for those under way at its end."""
    figures, under_way = Figures(), set[asyncio.Task[None]]()
    pacer = asyncio.create_task(_begin(send, rate, figures, under_way), name="load")
    try:
        yield figures
    finally:
        pacer.cancel()
        await asyncio.gather(pacer, *under_way, return_exceptions=True)


async def _begin(send: Send, rate: float, figures: Figures, under_way: set[asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in itertools.count():
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        await figures.begin()
        if len(under_way) >= MAX_OUTSTANDING:
            await figures.note(due, "NOT_SENT")
            continue
        task = asyncio.create_task(_one(send, due, figures))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


async def _one(send: Send, due: float, figures: Figures) -> None:
    try:
        await send()
    except (InferwayError, aio.AioRpcError) as error:
        await figures.note(due, reason(error))
    else:
        await figures.note(due)


@asynccontextmanager
async def plain_calls(target: str, model: str = "tiny", service_config: str = "{}") -> AsyncIterator[Send]:
    """Calls on one channel that repeats nothing of its own, as the stubs of any language make them."""
    options = [("grpc.enable_retries", 0), ("grpc.service_config", service_config)]
    async with aio.insecure_channel(target, options=options) as channel:
        call, request = model_infer(channel), tiny_request(np.ones((1, 32)), model)
        yield lambda: call(request, timeout=CALL_SECONDS)


def client_calls(client: Client, model: str = "tiny") -> Send:
    """Calls by our client."""
    inputs = {"x": np.ones((1, 32), np.float32)}
    return lambda: client.predict(model, inputs)


@asynccontextmanager
async def streams(client: Client, count: int, model: str = "tiny") -> AsyncIterator[Figures]:
    """Keeps `count` streams busy, each with ITEM_RATE items a second, while the body runs.

    An item that is answered twice is a failure, and so is an answer that nobody asked for.
    """
    figures = Figures()
    tasks = [asyncio.create_task(_stream(client, model, figures)) for _ in range(count)]
    try:
        yield figures
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(client: Client, model: str, figures: Figures) -> None:
    """Opens stream after stream: a server that leaves asks for a new one, which is no failure."""
    while True:
        try:
            async with client.stream(model) as stream:
                await _items(stream, figures)
        except Draining:
            continue
        except InferwayError as error:
            await figures.note(asyncio.get_running_loop().time(), f"stream {reason(error)}")


async def _items(stream: PredictionStream, figures: Figures) -> None:
    loop = asyncio.get_running_loop()
    sent: dict[int, float] = {}

    async def batches() -> AsyncIterator[dict[str, Any]]:
        for number in itertools.count():
            sent[number] = loop.time()
            yield {"x": np.ones((1, 32), np.float32)}
            await asyncio.sleep(1 / ITEM_RATE)

    async for result in stream.map(batches()):
        began = sent.pop(result.id, None)
        if began is None:
            await figures.note(loop.time(), "ANSWERED_TWICE")
        else:
            await figures.note(began, "" if result.error is None else f"item {reason(result.error)}")
