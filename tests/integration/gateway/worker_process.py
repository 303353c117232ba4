"""`python -m tests.integration.gateway.worker_process VERSION`: a fake worker that can be stopped as a process can."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.integration.gateway.fake_worker import FakeWorker

START_SECONDS = 30.0


class WorkerProcess:
    """It echoes. Stands where a fake worker does in a snapshot."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self._process, self.address = process, address

    def send(self, signal: int) -> None:
        """To the process."""
        self._process.send_signal(signal)


@asynccontextmanager
async def worker_process(version: str) -> AsyncIterator[WorkerProcess]:
    """One that has `version` ready; killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.gateway.worker_process",
        version,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        yield WorkerProcess(process, line.decode().strip())
    finally:
        process.kill()
        await process.wait()


async def _serve(version: str) -> None:
    worker = FakeWorker("stopped", versions=(version,))
    await worker.start()
    print(worker.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
