"""Latest wins, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from inferway.errors import Draining, TooManyConcurrent
from inferway_registry.watch import Broadcast

SOON = 5.0


async def test_a_new_watcher_gets_the_present_value_at_once():
    """It has nothing to route by until then."""
    with Broadcast("now", 1).watching() as watch:
        assert await watch.next(SOON) == "now"


async def test_a_slow_watcher_misses_what_was_replaced():
    """It costs one value of memory, however slow it is."""
    broadcast = Broadcast(0, 1)
    with broadcast.watching() as watch:
        await watch.next(SOON)
        for value in range(1, 100):
            broadcast.publish(value)

        assert await watch.next(SOON) == 99
        assert await watch.next(0) is None


async def test_a_waiting_watcher_is_woken():
    """A change must travel at once."""
    broadcast = Broadcast("old", 1)
    with broadcast.watching() as watch:
        await watch.next(SOON)
        waiting = asyncio.ensure_future(watch.next(SOON))
        await asyncio.sleep(0)

        broadcast.publish("new")

        assert await waiting == "new"


async def test_closing_ends_watchers_that_wait_and_those_that_come():
    """A draining registry must not hold anybody."""
    broadcast = Broadcast("value", 2)
    with broadcast.watching() as watch:
        await watch.next(SOON)
        waiting = asyncio.ensure_future(watch.next(SOON))
        await asyncio.sleep(0)
        await broadcast.close()

        with pytest.raises(Draining):
            await waiting
    with broadcast.watching() as late, pytest.raises(Draining):
        await late.next(SOON)


async def test_a_watcher_that_left_makes_room():
    """Otherwise reconnects would use up the bound."""
    broadcast = Broadcast("value", 1)
    for _ in range(3):
        with broadcast.watching(), pytest.raises(TooManyConcurrent), broadcast.watching():
            pass

    assert broadcast.watchers == 0
