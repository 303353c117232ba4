"""The results of one stream, between the reader that starts them and the writer that sends them.

One entry per result and no task: an entry that is settled gets in line and wakes the writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, NamedTuple, TypeVar

from inferway.errors import InferwayError
from inferway_chassis.pipeline import Metadata
from inferway_gateway.envelope import Prediction

K = TypeVar("K")


class Result(NamedTuple, Generic[K]):
    """What became of one request of the stream."""

    key: K
    outcome: Prediction | InferwayError


class Pending(NamedTuple):
    """A request that is on its way."""

    result: asyncio.Future[Prediction]
    abandon: Callable[[], None]
    """To be called if its caller goes away first."""
    metadata: Metadata = ()
    """Of its answer, where that has any of its own."""


class Entry(Generic[K]):
    """The place of one result. Set its outcome by `Results.settle`."""

    __slots__ = ("key", "outcome", "pending")

    def __init__(self, key: K, pending: Pending | None = None) -> None:
        """Nothing is known yet."""
        self.key, self.pending = key, pending
        self.outcome: Prediction | InferwayError | BaseException | None = None


class Results(Generic[K]):
    """Gives results in the order in which they become known, or, if `ordered`, in that of their requests."""

    def __init__(self, *, ordered: bool) -> None:
        """There is none yet."""
        self._ordered = ordered
        self._line: deque[Entry[K]] = deque()
        """Ordered: all that is unanswered. Else: what is known and not yet taken."""
        self._flying = set[Entry[K]]()
        self._wake, self._taken = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self.unanswered = 0
        """Expected or known, and not yet being sent."""

    def start(self, key: K, pending: Pending) -> None:
        """The result of `key` will be that of `pending`, which is abandoned if nobody will read it."""
        entry = self.expect(key, pending)
        self._flying.add(entry)
        pending.result.add_done_callback(lambda result: self._landed(entry, result))

    def fail(self, key: K, error: InferwayError) -> None:
        """The result of `key` is known at once."""
        self.settle(self.expect(key), error)

    def expect(self, key: K, pending: Pending | None = None) -> Entry[K]:
        """There will be a result of `key`: `settle` it."""
        entry = Entry(key, pending)
        self.unanswered += 1
        if self._ordered:
            self._line.append(entry)
        return entry

    def settle(self, entry: Entry[K], outcome: Prediction | InferwayError | BaseException) -> None:
        """The result is known. What is no InferwayError fails the stream."""
        if isinstance(outcome, InferwayError):
            outcome.__traceback__ = None  # its frames would keep the stream and all that it holds
        entry.outcome = outcome
        if not self._ordered:
            self._line.append(entry)
        self._wake.set()

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more will be started. With a failure, the stream ends at once, by raising it."""
        self._ended, self._failure = True, self._failure or failure
        self._wake.set()

    def nudge(self) -> None:
        """Lets `take` look round, though no result is there."""
        self._wake.set()

    def sending(self, count: int) -> None:
        """So many leave now: before that is done, their client may answer them with its next items."""
        self.unanswered -= count
        self._taken.set()

    async def room(self, limit: int) -> None:
        """Returns when fewer than `limit` are unanswered: who reads no further than this is slowed by a slow peer."""
        while self.unanswered >= limit:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> AsyncIterator[list[Result[K]]]:
        """Yields all that is known, until the end; nothing after a nudge. Raises the failure that `end` was given.

        Whoever takes results says `sending` before each message with some of them.
        """
        while True:
            if known := self._known():
                yield known
                continue
            if self._failure is not None:
                raise self._failure
            if self._ended and not self.unanswered:
                return
            await self._wake.wait()
            self._wake.clear()
            yield []

    def close(self) -> None:
        """Gives up every request that was started and is not answered."""
        for entry in list(self._flying):
            if entry.pending is not None:
                entry.pending.abandon()
        self._flying.clear()

    def _landed(self, entry: Entry[K], result: asyncio.Future[Prediction]) -> None:
        self._flying.discard(entry)
        if not result.cancelled():
            self.settle(entry, result.exception() or result.result())

    def _known(self) -> list[Result[K]]:
        known = list[Result[K]]()
        line = self._line
        while self._failure is None and line and line[0].outcome is not None:
            entry = line.popleft()
            if isinstance(entry.outcome, Prediction | InferwayError):
                known.append(Result(entry.key, entry.outcome))
            else:
                self._failure = entry.outcome
        return known
