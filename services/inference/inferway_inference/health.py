"""Publishes each version's readiness as the health of `model/{model}@{version}`."""

from __future__ import annotations

import asyncio

from inferway.names import parse_version
from inferway_chassis.health import Health
from inferway_inference.worker import Worker


class VersionHealth:
    """Follows the worker; changes that come together are published together."""

    def __init__(self, worker: Worker, health: Health) -> None:
        """Publishes to `health`."""
        self._worker, self._health = worker, health
        self._changed = asyncio.Event()
        self._known: set[str] = set()
        worker.listen(self._changed.set)

    async def follow(self) -> None:
        """Runs until it is cancelled."""
        while True:
            ready = set(self._worker.ready())
            for version in ready | self._known:
                model, number = parse_version(version)
                await self._health.set(f"model/{model}@{number}", version in ready)
            self._known |= ready
            await self._changed.wait()
            self._changed.clear()
