"""A registry that knows two things: the routing it was told to send, and what gateways report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpc import aio

from inferway.registry.v1.outcome_service_pb2 import ReportOutcomesRequest, ReportOutcomesResponse
from inferway.registry.v1.outcome_service_pb2_grpc import (
    OutcomeServiceServicer,
    add_OutcomeServiceServicer_to_server,
)
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot, WatchRoutingRequest, WatchRoutingResponse
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceServicer, add_WatchServiceServicer_to_server


class FakeRegistry(WatchServiceServicer, OutcomeServiceServicer):
    """Sends the newest snapshot to every watcher, whole, whenever it changes."""

    def __init__(self) -> None:
        self._snapshot: RoutingSnapshot | None = None
        self._sent: RoutingSnapshot | None = None
        self._changed = asyncio.Condition()
        self.reports: list[ReportOutcomesRequest] = []
        self._server: aio.Server | None = None
        self.target = ""

    async def start(self, port: int = 0) -> None:
        """Listens on loopback."""
        self._server = aio.server()
        add_WatchServiceServicer_to_server(self, self._server)
        add_OutcomeServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        """Goes away as if killed."""
        if self._server is not None:
            await self._server.stop(None)

    async def publish(self, snapshot: RoutingSnapshot) -> None:
        """From now on, this is the routing."""
        async with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()

    async def send(self, snapshot: RoutingSnapshot) -> None:
        """As `publish`; returns when a watcher was sent it."""
        await self.publish(snapshot)
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self._sent is snapshot)

    async def until_reported(self, holds: Callable[[ReportOutcomesRequest], bool]) -> ReportOutcomesRequest:
        """The newest report, once `holds` says so of it."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: bool(self.reports) and holds(self.reports[-1]))
            return self.reports[-1]

    async def ReportOutcomes(
        self, request: ReportOutcomesRequest, context: aio.ServicerContext[Any, Any]
    ) -> ReportOutcomesResponse:
        """Keeps the report."""
        del context
        async with self._changed:
            self.reports.append(request)
            self._changed.notify_all()
        return ReportOutcomesResponse()

    async def WatchRouting(
        self, request: WatchRoutingRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[WatchRoutingResponse]:
        """Snapshots as they come."""
        sent: RoutingSnapshot | None = None
        while True:
            async with self._changed:
                while self._snapshot is sent:
                    await self._changed.wait()
                sent = self._snapshot
            yield WatchRoutingResponse(snapshot=sent)
            async with self._changed:
                self._sent = sent
                self._changed.notify_all()

    def WatchEvents(self, request: Any, context: Any) -> Any:
        """Not needed by a gateway."""
        raise NotImplementedError
