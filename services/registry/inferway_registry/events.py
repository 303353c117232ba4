"""The catalogue's log: every event after a number, in order, without gaps, and then as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator

from inferway.errors import InvalidField
from inferway_registry.resources import Event
from inferway_registry.routing import RoutingSnapshot
from inferway_registry.store.sql import Store
from inferway_registry.watch import Broadcast

_PAGE = 500
_LOOK_SECONDS = 5.0
"""How often the log is read without being told to: another registry may have written to it."""


class EventLog:
    """Reads the log for any number of followers. Each reads at its own pace, and nothing is kept for it."""

    def __init__(self, store: Store, routing: Broadcast[RoutingSnapshot]) -> None:
        """A new routing snapshot is the sign that there may be new events."""
        self._store = store
        self._routing = routing

    async def follow(self, after_sequence: int) -> AsyncIterator[Event]:
        """Yields events for as long as they are wanted.

        Raises InvalidField for a number that no event has yet, TooManyConcurrent, StoreUnavailable, and Draining.
        """
        with self._routing.watching() as watch:
            await self._check(after_sequence)
            while True:
                await watch.next(_LOOK_SECONDS)
                async for event in self._present(after_sequence):
                    after_sequence = event.sequence
                    yield event

    async def _present(self, after_sequence: int) -> AsyncIterator[Event]:
        """Events that are there now, in pages: no transaction stays open while a follower reads."""
        while True:
            async with self._store.reading() as rows:
                page = await rows.events(after_sequence, _PAGE)
            for event in page:
                yield event
            if len(page) < _PAGE:
                return
            after_sequence = page[-1].sequence

    async def _check(self, after_sequence: int) -> None:
        async with self._store.reading() as rows:
            last = (await rows.counters()).sequence
        if after_sequence > last:
            raise InvalidField.at("after_sequence", f"the last event has number {last}; begin again from 0")
