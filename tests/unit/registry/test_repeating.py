"""Work that goes on whatever happens."""

from __future__ import annotations

import asyncio

from inferway_registry.repeating import Repeating

SOON = 5.0


async def test_a_wake_during_a_run_makes_one_more_run():
    """A change that comes while the last one is worked on must not wait for the next interval."""
    woken, started, release = asyncio.Event(), asyncio.Queue[int](), asyncio.Event()
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        started.put_nowait(runs)
        await release.wait()

    async with Repeating("test", work, 3600, woken).running(), asyncio.timeout(SOON):
        assert await started.get() == 1
        woken.set()
        woken.set()
        release.set()
        assert await started.get() == 2

    assert runs == 2


async def test_a_failed_run_is_repeated_soon():
    """A database that was away for a moment must not stop deployments until the next interval."""
    attempts = asyncio.Queue[int]()
    count = 0

    async def work() -> None:
        nonlocal count
        count += 1
        attempts.put_nowait(count)
        raise ConnectionError

    async with Repeating("test", work, 3600).running(), asyncio.timeout(SOON):
        assert [await attempts.get(), await attempts.get()] == [1, 2]
