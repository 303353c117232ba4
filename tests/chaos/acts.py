"""What is done to processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tests.testbed.processes import ServiceProcess


async def drain_and_start(process: ServiceProcess, name: str) -> None:
    """SIGTERM, then again; returns when it serves `name`."""
    process.terminate()
    assert await asyncio.to_thread(process.wait) == 0
    await start(process, name)


async def kill_and_start(process: ServiceProcess, name: str) -> float:
    """SIGKILL, then again; returns the seconds from its start until it serves `name`."""
    await asyncio.to_thread(process.kill)
    return await start(process, name)


async def start(process: ServiceProcess, name: str, environment: Mapping[str, str] | None = None) -> float:
    """As `kill_and_start`, of a process that has ended; with other settings if some are given."""
    if environment is not None:
        process.environment = environment
    began = time.monotonic()
    process.start()
    await asyncio.to_thread(process.wait_serving, name)
    return time.monotonic() - began
