"""Work that the registry does by itself, again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_LOG = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Repeating:
    """Runs work when woken, and every so often besides. Wakes during a run become one more run.

    A run that fails is logged and repeated: nothing that happens ends the repetition.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[None]], every_seconds: float, woken: asyncio.Event | None = None
    ) -> None:
        """`woken`, when set, has the work run soon; it is cleared before every run."""
        self._name = name
        self._work = work
        self._every_seconds = every_seconds
        self._woken = woken or asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Repeats while the block runs."""
        task = asyncio.create_task(self._repeat(), name=self._name)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _repeat(self) -> None:
        while True:
            self._woken.clear()
            pause = self._every_seconds
            try:
                await self._work()
            except Exception:  # noqa: BLE001 - it is logged, and the next run is the remedy
                _LOG.exception("background work failed and will be repeated", extra={"work": self._name})
                pause = min(pause, RETRY_SECONDS)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
