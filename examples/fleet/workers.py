"""Which workers there are, whether they live, and which versions they have: asked every second."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from examples.fleet.vehicle import ENDPOINT
from inferway import names
from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.registry import Registry
from inferway_client import InferwayError

ASK_SECONDS = 1.0
DIAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker, as of the last second."""

    name: str
    alive: bool
    """It takes connections."""
    ready: tuple[int, ...]
    """Versions that it serves."""
    loading: bool
    """It is about to serve another one."""

    @property
    def serves(self) -> bool:
        """It answers."""
        return self.alive and bool(self.ready)


class Workers:
    """See the module."""

    def __init__(self, registry: Registry) -> None:
        """Nothing is known yet."""
        self._registry = registry
        self.views: list[WorkerView] = []

    async def watch(self) -> None:
        """Asks for ever; while the registry is away, what it said last stands."""
        while True:
            with suppress(InferwayError):
                await self.ask()
            await asyncio.sleep(ASK_SECONDS)

    async def ask(self) -> None:
        """Once. Raises the registry's errors."""
        self.views = await asyncio.gather(*(_view(worker) for worker in await self._registry.workers()))

    async def until_ready(self, workers: int) -> None:
        """Returns when so many workers serve a version of the endpoint's model; give it a timeout."""
        while sum(view.serves for view in self.views) < workers:
            await asyncio.sleep(ASK_SECONDS / 4)
            await self.ask()


async def _view(worker: resources_pb2.Worker) -> WorkerView:
    states = {names.parse_version(status.version): status.state for status in worker.versions}
    ours = {number: state for (model, number), state in states.items() if model == ENDPOINT}
    ready = tuple(sorted(number for number, state in ours.items() if state == worker_service_pb2.LOAD_STATE_READY))
    return WorkerView(
        name=worker.name.rpartition("/")[2],
        alive=await _lives(worker.address),
        ready=ready,
        loading=worker_service_pb2.LOAD_STATE_LOADING in ours.values(),
    )


async def _lives(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
