"""Runs a service inside the process of a test, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from inferway_chassis.process import Process, observed
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


@asynccontextmanager
async def serving(
    running: Callable[[S, Process], AbstractAsyncContextManager[Server]],
    settings: S,
    name: str,
    process: Process | None = None,
) -> AsyncIterator[Server]:
    """Yields the started server of a service, then drains and stops it; `process` replaces telemetry and clock."""
    async with observed(name, settings) as own, running(settings, process or own) as server:
        try:
            yield server
        finally:
            await asyncio.wait_for(server.drain(), 5)
            await server.stop(settings.grace_seconds)
