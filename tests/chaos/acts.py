"""What is done to processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tests.testbed.processes import START_SECONDS, ServiceProcess


async def drain(process: ServiceProcess) -> None:
    """SIGTERM; returns when it has ended."""
    process.terminate()
    assert await asyncio.to_thread(process.wait) == 0


async def drain_and_start(process: ServiceProcess, name: str) -> None:
    """SIGTERM, then again; returns when it serves `name`."""
    await drain(process)
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


async def http_ready(gateway: ServiceProcess) -> None:
    """Returns when the HTTP door of this very process says that it is ready: its gRPC port may be another's, too."""
    host, _, port = gateway.environment["INFERWAY_GATEWAY_HTTP_ADDRESS"].rpartition(":")
    async with asyncio.timeout(START_SECONDS):
        while not await _says_ready(host, int(port)):  # noqa: ASYNC110 - another process, which cannot set an event
            await asyncio.sleep(0.05)


async def _says_ready(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
