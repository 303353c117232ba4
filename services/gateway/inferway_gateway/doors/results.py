"""The results of one stream, between the reader that starts them and the writer that sends them.

One future per result and no task: a finished future puts its entry in line and wakes the writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, NamedTuple, TypeVar

from inferway.errors import InferwayError
from inferway_gateway.envelope import Prediction
from inferway_gateway.lane import Flight

K = TypeVar("K")


class Result(NamedTuple, Generic[K]):
    """What became of one request of the stream."""

    key: K
    outcome: Prediction | InferwayError


class _Entry(Generic[K]):
    __slots__ = ("flight", "key", "outcome")

    def __init__(self, key: K, flight: Flight | None, outcome: InferwayError | None) -> None:
        self.key, self.flight, self.outcome = key, flight, outcome

    def result(self) -> Result[K] | None:
        if self.outcome is not None:
            return Result(self.key, self.outcome)
        assert self.flight is not None
        future = self.flight.result
        if not future.done() or future.cancelled():
            return None
        error = future.exception()
        if error is None:
            return Result(self.key, future.result())
        if not isinstance(error, InferwayError):
            raise error
        return Result(self.key, error)


class Results(Generic[K]):
    """Yields results in the order in which they become known, or, if `ordered`, in that of their requests."""

    def __init__(self, *, ordered: bool, abandon: Callable[[Flight], None]) -> None:
        """`abandon` is called for every flight that nobody will read."""
        self._ordered, self._abandon = ordered, abandon
        self._line: deque[_Entry[K]] = deque()
        """Ordered: all that is unanswered. Else: what is known and not yet taken."""
        self._flying = set[_Entry[K]]()
        self._wake, self._taken = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self.unanswered = 0
        """Started, and not yet being sent."""

    def start(self, key: K, flight: Flight) -> None:
        """The result of `key` will be that of `flight`."""
        entry = _Entry(key, flight, None)
        self._flying.add(entry)
        self._enter(entry, known=False)
        flight.result.add_done_callback(lambda _: self._landed(entry))

    def fail(self, key: K, error: InferwayError) -> None:
        """The result of `key` is known at once."""
        self._enter(_Entry(key, None, error), known=True)

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will be started. With a failure, the stream ends at once, by raising it."""
        self._ended, self._failure = True, failure
        self._wake.set()

    def nudge(self) -> None:
        """Lets `take` look round, though no result is there."""
        self._wake.set()

    async def room(self, limit: int) -> None:
        """Returns when fewer than `limit` are unanswered: who reads no further than this is slowed by a slow peer."""
        while self.unanswered >= limit:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> AsyncIterator[Result[K] | None]:
        """Yields results until the end; None after a nudge. Raises the failure that `end` was given."""
        while True:
            while (result := self._next()) is not None:
                # Before it is sent: a client may answer a result with its next item before this resumes.
                self.unanswered -= 1
                yield result
                self._taken.set()
            if self._failure is not None:
                raise self._failure
            if self._ended and not self.unanswered:
                return
            await self._wake.wait()
            self._wake.clear()
            yield None

    def close(self) -> None:
        """Gives up every flight whose result was not taken."""
        for entry in list(self._flying):
            if entry.flight is not None:
                self._abandon(entry.flight)
        self._flying.clear()

    def _enter(self, entry: _Entry[K], *, known: bool) -> None:
        self.unanswered += 1
        if known or self._ordered:
            self._line.append(entry)
        if known:
            self._wake.set()

    def _landed(self, entry: _Entry[K]) -> None:
        self._flying.discard(entry)
        if not self._ordered:
            self._line.append(entry)
        self._wake.set()

    def _next(self) -> Result[K] | None:
        if self._failure is not None or not self._line:
            return None
        result = self._line[0].result()
        if result is not None:
            self._line.popleft()
        return result
