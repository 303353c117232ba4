"""All vehicles: who drives, who joins, who goes home."""

from __future__ import annotations

import asyncio
import string

from examples.fleet.tracks import MAX_VEHICLES
from examples.fleet.vehicle import Surroundings, Vehicle

FINISH_SECONDS = 15.0
"""For the last answers."""


class Vehicles:
    """Letters name them. `finish` ends their drives in order, `close` at once."""

    def __init__(self, surroundings: Surroundings) -> None:
        """Nobody drives yet."""
        self.around = surroundings
        self.driving: list[Vehicle] = []
        self._drives: list[asyncio.Task[None]] = []

    def fit(self, change: int) -> None:
        """Adds so many vehicles, or sends the last ones home; one always drives, and MAX_VEHICLES at most."""
        for _ in range(min(change, MAX_VEHICLES - len(self.driving))):
            number = len(self.driving)
            vehicle = Vehicle(number, string.ascii_letters[number], self.around)
            self.driving.append(vehicle)
            self._drives.append(asyncio.create_task(vehicle.run()))
        for _ in range(min(-change, len(self.driving) - 1)):
            self.driving.pop().leave()

    def tell_gaps(self) -> None:
        """For the journal: who waits has a gap before its end is known."""
        self.around.journal.gap(max((vehicle.gap_seconds for vehicle in self.driving), default=0.0))

    async def finish(self) -> None:
        """Sends all home; what is not answered within FINISH_SECONDS is lost. Raises what a drive failed of."""
        for vehicle in self.driving:
            vehicle.leave()
        if self._drives:
            await asyncio.wait(self._drives, timeout=FINISH_SECONDS)
        await self.close()
        for drive in self._drives:
            if not drive.cancelled():
                drive.result()

    async def close(self) -> None:
        """Ends all drives."""
        for drive in self._drives:
            drive.cancel()
        await asyncio.gather(*self._drives, return_exceptions=True)
