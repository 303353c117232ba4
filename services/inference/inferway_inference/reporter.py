"""Tells the registry how this worker stands: every two seconds, and at once when something changes."""

from __future__ import annotations

import asyncio
import logging

import grpc

from inferway.registry.v1.fleet_service_pb2 import ReleaseWorkerRequest, ReportWorkerRequest
from inferway.registry.v1.fleet_service_pb2_grpc import FleetServiceStub
from inferway.registry.v1.resources_pb2 import Worker as WorkerMessage
from inferway_chassis.channel import open_channel
from inferway_inference.convert import version_status
from inferway_inference.worker import Worker

_LOG = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
CALL_SECONDS = 2.0
BACKOFF_SECONDS = (0.25, 2.0)
"""No longer than between two reports: a registry that comes back knows its workers by their next report."""


class Reporter:
    """Reports of one worker, one at a time; changes during a report are in the next."""

    def __init__(self, target: str, worker: Worker, address: str) -> None:
        """The registry is at `target`, and gateways shall dial `address` (both `host:port`)."""
        self._target, self._worker, self._address = target, worker, address
        self._changed = asyncio.Event()
        self._stop_listening = worker.listen(self._changed.set)
        self._task: asyncio.Task[None] | None = None
        self._reached = True

    def start(self) -> None:
        """Begins to report."""
        self._task = asyncio.create_task(self._report_forever(), name="reporter")

    async def stop(self) -> None:
        """Gives the lease back, if the registry can be reached."""
        self._stop_listening()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        identity = self._worker.identity
        async with open_channel(self._target) as channel:
            try:
                request = ReleaseWorkerRequest(name=identity.name, boot_id=identity.boot_id)
                await FleetServiceStub(channel).ReleaseWorker(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                _LOG.info("the lease was not given back", extra={"cause": error.code().name})

    async def _report_forever(self) -> None:
        delay = BACKOFF_SECONDS[0]
        async with open_channel(self._target) as channel:
            stub = FleetServiceStub(channel)
            while True:
                self._changed.clear()
                if await self._report(stub):
                    delay = BACKOFF_SECONDS[0]
                    await self._pause(REPORT_SECONDS)
                else:
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, BACKOFF_SECONDS[1])

    async def _report(self, stub: FleetServiceStub) -> bool:
        try:
            await stub.ReportWorker(ReportWorkerRequest(worker=self._message()), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if self._reached:
                _LOG.warning("the registry does not hear this worker", extra={"cause": error.code().name})
            self._reached = False
            return False
        self._reached = True
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _message(self) -> WorkerMessage:
        identity = self._worker.identity
        return WorkerMessage(
            name=identity.name,
            boot_id=identity.boot_id,
            address=self._address,
            labels=dict(identity.labels),
            versions=map(version_status, self._worker.statuses()),
            draining=self._worker.draining,
        )
