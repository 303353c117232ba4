"""Tells the health service which endpoints can answer, whenever that may have changed."""

from __future__ import annotations

import asyncio
from typing import Protocol

from inferway_gateway.models import Models


class HealthBoard(Protocol):
    """Where health is published."""

    async def set(self, name: str, serving: bool) -> None:  # noqa: FBT001 - the chassis's signature
        """Publishes the state of `name`."""


class HealthReporter:
    """Publishes "" (synchronised) and `model/{endpoint}`. Changes that come together are told once.

    An endpoint that was deleted is NOT_SERVING from then on: watchers of it must hear that it is gone.
    """

    def __init__(self, models: Models, board: HealthBoard) -> None:
        """Publishes nothing before `run`."""
        self._models, self._board = models, board
        self._changed = asyncio.Event()
        self._known = set[str]()

    def nudge(self) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self) -> None:
        """Publishes after every nudge, until cancelled."""
        while True:
            await self._publish()
            await self._changed.wait()
            self._changed.clear()

    async def _publish(self) -> None:
        await self._board.set("", self._models.synchronised)
        if not self._models.synchronised:
            return
        ready = dict(self._models.readiness())
        for name in self._known - ready.keys():
            await self._board.set(f"model/{name}", False)
        for name, serving in ready.items():
            await self._board.set(f"model/{name}", serving)
        self._known = set(ready)
