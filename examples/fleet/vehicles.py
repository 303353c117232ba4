"""All vehicles: who drives, who joins, who goes home."""

from __future__ import annotations

import asyncio
import string

from examples.fleet.tracks import MAX_VEHICLES
from examples.fleet.vehicle import Surroundings, Vehicle

FINISH_SECONDS = 15.0
"""For the last answers."""


class Vehicles:
    """Letters name them. `close` ends what `finish` has not."""

    def __init__(self, surroundings: Surroundings) -> None:
        """Nobody drives yet."""
        self.around = surroundings
        self.driving: list[Vehicle] = []
        self._tasks: dict[Vehicle, asyncio.Task[None]] = {}

    def fit(self, change: int) -> None:
        """Adds so many vehicles, or sends the last ones home; one always drives, and MAX_VEHICLES at most."""
        for _ in range(min(change, MAX_VEHICLES - len(self.driving))):
            number = len(self.driving)
            vehicle = Vehicle(number, string.ascii_letters[number], self.around)
            self.driving.append(vehicle)
            self._tasks[vehicle] = asyncio.create_task(self._drive(vehicle))
        for _ in range(min(-change, len(self.driving) - 1)):
            self.driving.pop().leave()

    async def finish(self) -> None:
        """Sends all home and waits for their last answers, within FINISH_SECONDS."""
        for vehicle in self._tasks:
            vehicle.leave()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=FINISH_SECONDS)

    async def close(self) -> None:
        """Ends all at once."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, vehicle: Vehicle) -> None:
        try:
            await vehicle.run()
        finally:
            del self._tasks[vehicle]
