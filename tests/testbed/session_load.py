"""Sessions of the arrival model under load: every answer, and at the end every state, is compared with NumPy."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.eta import numpy_model
from inferway.errors import InferwayError, SessionNotFound
from inferway_client import Client
from inferway_client.results import StreamResult
from inferway_client.stream import PredictionStream
from inferway_gateway.sessions.redis_store import RedisSessionStore
from inferway_gateway.sessions.sessions import session_key
from tests.testbed.load import reason

Floats = NDArray[np.float32]

TOLERANCE = 1e-4
"""Relative and absolute, of float32 that TensorFlow and NumPy compute in different orders."""
ITEMS_AT_ONCE = 2
GROUPS = 10
"""Sessions of one group are due together, so that a crash finds items under way."""
MAX_ROWS = 3
WAIT_SECONDS = 120.0


class Wrong(Exception):
    """An answer that no session may get; the message says what is wrong."""


class Turn(NamedTuple):
    """Some items of a session, sent together."""

    due: float
    answered: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A session whose client has left without ending it."""

    key: str
    """Of its record in the store."""
    items: int
    state: Floats
    """[rows, units], as NumPy has it."""
    version: str
    """That answered last."""


class SessionFigures:
    """What became of the items of many sessions."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.items = 0
        self.failures = Counter[str]()
        self.versions = Counter[str]()
        """Items by the version that answered."""
        self.largest_difference = 0.0
        """From NumPy, of any answer."""
        self.turns: list[Turn] = []
        self.ended: list[Ended] = []
        self._under_way = 0
        self._changed = asyncio.Condition()

    async def begun(self) -> None:
        """The items of a turn are on their way."""
        async with self._changed:
            self._under_way += 1
            self._changed.notify_all()

    async def answered(self, turn: Turn) -> None:
        """All items of a turn were answered."""
        async with self._changed:
            self._under_way -= 1
            self.turns.append(turn)
            self.items += ITEMS_AT_ONCE
            self._changed.notify_all()

    async def more_turns(self, count: int) -> None:
        """Returns after `count` further turns: at a steady rate, a measure of time."""
        wanted = len(self.turns) + count
        await self._until(lambda: len(self.turns) >= wanted, f"{count} turns")

    async def under_way(self, count: int) -> None:
        """Returns when so many turns have no answer yet: the moment for a crash."""
        await self._until(lambda: self._under_way >= count, f"{count} at a time")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"not {what} within {WAIT_SECONDS:g} s; failures: {dict(self.failures)}") from None

    def gaps(self, moments: Sequence[float], seconds: float) -> list[float]:
        """How long turns waited that were due, or under way, in the `seconds` after each of the moments; sorted."""
        return sorted(
            turn.answered - turn.due
            for moment in moments
            for turn in self.turns
            if turn.answered >= moment and turn.due <= moment + seconds
        )

    def report(self, scenario: str, **more: object) -> None:
        """Prints everything in one line."""
        waits = sorted(turn.answered - turn.due for turn in self.turns)
        rest = "".join(f", {name.replace('_', ' ')} {value}" for name, value in more.items())
        print(
            f"\n{scenario}: {len(self.ended)} sessions, {self.items} items, {self.failures.total()} failures "
            f"{dict(self.failures)}, answers differ from NumPy by {self.largest_difference:.1e} at most, "
            f"p50 {share(waits, 0.5) * 1e3:.0f} ms, p99 {share(waits, 0.99) * 1e3:.0f} ms, "
            f"slowest {share(waits, 1.0) * 1e3:.0f} ms{rest}"
        )


@asynccontextmanager
async def sessions(
    client: Client, endpoint: str, weights: numpy_model.Weights, count: int, turn_seconds: float
) -> AsyncIterator[SessionFigures]:
    """Keeps `count` sessions busy while the body runs; each sends ITEMS_AT_ONCE every `turn_seconds`.

    At the end every client takes what it is owed, and leaves its session for somebody to resume.
    """
    figures, leaving = SessionFigures(), asyncio.Event()
    start = asyncio.get_running_loop().time() + turn_seconds
    drivers = [
        _Session(number, endpoint, weights, start + turn_seconds * (number % GROUPS) / GROUPS, turn_seconds)
        for number in range(count)
    ]
    tasks = [asyncio.create_task(driver.run(client, figures, leaving)) for driver in drivers]
    try:
        yield figures
    finally:
        leaving.set()
        await asyncio.gather(*tasks)


def item_of(session: int, number: int) -> Floats:
    """[rows, 6]: what a session sends as its item of that number, from 1; no two are alike."""
    rows = 1 + session % MAX_ROWS
    return np.random.default_rng((session, number)).uniform(0, 3, (rows, 6)).astype(np.float32)


class _Session:
    def __init__(
        self, number: int, endpoint: str, weights: numpy_model.Weights, start: float, turn_seconds: float
    ) -> None:
        self._number, self._endpoint, self._weights = number, endpoint, weights
        self._start, self._turn_seconds = start, turn_seconds
        self._sent = self._taken = 0
        self._version = ""
        self._state = numpy_model.initial_state(weights, len(item_of(number, 1)))

    async def run(self, client: Client, figures: SessionFigures, leaving: asyncio.Event) -> None:
        """Until it is to leave, or something is wrong, which is a failure."""
        try:
            async with client.stream(self._endpoint) as stream:
                for number in itertools.count():
                    if not await self._wait(self._start + number * self._turn_seconds, leaving):
                        break
                    await self._turn(stream, self._start + number * self._turn_seconds, figures)
                key = session_key(stream.resume_token, "", self._endpoint, "")
                figures.ended.append(Ended(key, self._taken, self._state, self._version))
        except InferwayError as error:
            figures.failures[f"stream {reason(error)}"] += 1
        except Wrong as wrong:
            figures.failures[str(wrong)] += 1

    async def _wait(self, due: float, leaving: asyncio.Event) -> bool:
        """Returns when it is due, or False at once when it is to leave."""
        try:
            async with asyncio.timeout_at(due):
                await leaving.wait()
        except TimeoutError:
            return True
        return False

    async def _turn(self, stream: PredictionStream, due: float, figures: SessionFigures) -> None:
        for _ in range(ITEMS_AT_ONCE):
            self._sent += 1
            await stream.send({"x": item_of(self._number, self._sent)})
        await figures.begun()
        for _ in range(ITEMS_AT_ONCE):
            self._check(await anext(stream), figures)
        await figures.answered(Turn(due, asyncio.get_running_loop().time()))

    def _check(self, result: StreamResult, figures: SessionFigures) -> None:
        self._taken += 1
        if result.id != self._taken:
            raise Wrong("lost" if result.id > self._taken else "doubled or out of order")
        prediction = result.unwrap()
        if prediction.model_version < self._version:
            raise Wrong("back to an older version")
        self._version = prediction.model_version
        figures.versions[self._version] += 1
        expected, self._state = numpy_model.step(self._weights, item_of(self._number, result.id), self._state)
        answer = prediction.outputs["eta_minutes"]
        figures.largest_difference = max(figures.largest_difference, float(np.abs(answer - expected).max()))
        if not close(answer, expected):
            raise Wrong("wrong answer")


async def wrong_states(url: str, ended: Sequence[Ended]) -> list[str]:
    """What is wrong with the records of those sessions in the store at `url`; takes the sessions over."""
    store = RedisSessionStore(url, len(ended) + 1, asyncio.get_running_loop().time)
    try:
        return [wrong for one in ended if (wrong := await _wrong_state(store, one))]
    finally:
        await store.close()


async def _wrong_state(store: RedisSessionStore, ended: Ended) -> str:
    try:
        record = await store.claim(ended.key)
    except SessionNotFound:
        return "gone"
    if record.applied != ended.items or not record.state:
        return f"{record.applied} items applied of {ended.items}"
    [tensor] = record.state
    return "" if close(np.frombuffer(tensor.raw, "<f4").reshape(tensor.shape), ended.state) else "wrong state"


def close(found: NDArray[Any], expected: Floats) -> bool:
    """Whether the two are the same, but for the order of additions."""
    return np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def share(ranked: Sequence[float], part: float) -> float:
    """The value below which `part` of those sorted ones are."""
    return ranked[min(int(len(ranked) * part), len(ranked) - 1)] if ranked else float("nan")
