"""Tells any number of watchers that something is new.

Latest wins: a slow watcher misses what was replaced, and never holds more than one value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from inferway.errors import Draining, TooManyConcurrent

T = TypeVar("T")


class Broadcast(Generic[T]):
    """The latest value of something."""

    def __init__(self, value: T, max_watchers: int) -> None:
        self.latest = value
        """The newest value."""
        self._max_watchers = max_watchers
        self.watchers = 0
        """How many watch now."""
        self._number = 0
        self._closed = False
        self._changed = asyncio.Event()

    def publish(self, value: T) -> None:
        """Replaces the value and wakes every watcher."""
        self.latest = value
        self._number += 1
        self._wake()

    async def close(self) -> None:
        """Ends every watch with Draining."""
        self._closed = True
        self._wake()

    @contextmanager
    def watching(self) -> Iterator[Watch[T]]:
        """A watch that has seen nothing yet; raises TooManyConcurrent."""
        if self.watchers >= self._max_watchers:
            raise TooManyConcurrent("the registry has as many watchers as it takes", limit=self._max_watchers)
        self.watchers += 1
        try:
            yield Watch(self)
        finally:
            self.watchers -= 1

    async def after(self, number: int, timeout_seconds: float) -> int:
        """Waits for a value after the `number`th, at most so long; returns the number of the latest.

        Raises Draining once closed.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._number <= number and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            pass
        if self._closed:
            raise Draining("the registry is shutting down; watch another, or again in a moment")
        return self._number

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Watch(Generic[T]):
    """One watcher's place."""

    def __init__(self, broadcast: Broadcast[T]) -> None:
        self._broadcast = broadcast
        self._seen = -1

    async def next(self, timeout_seconds: float) -> T | None:
        """The latest value if it is new to this watcher, waiting for one at most so long; then None.

        Raises Draining once the broadcast is closed.
        """
        number = await self._broadcast.after(self._seen, timeout_seconds)
        if number == self._seen:
            return None
        self._seen = number
        return self._broadcast.latest
