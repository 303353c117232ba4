"""`WatchService`: sends what the broadcasts and the catalogue's log have, as long as the caller listens."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from inferway.registry.v1 import watch_service_pb2 as pb
from inferway_registry import convert
from inferway_registry.events import EventLog
from inferway_registry.routing import RoutingSnapshot
from inferway_registry.watch import Broadcast

HEARTBEAT_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class WatchServicer:
    """What gateways and workers act on, and what others follow."""

    def __init__(
        self,
        routing: Broadcast[RoutingSnapshot],
        events: EventLog,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._routing = routing
        self._events = events
        self._heartbeat_seconds = heartbeat_seconds
        self._encoded: tuple[RoutingSnapshot, pb.RoutingSnapshot] | None = None

    async def WatchRouting(self, request: pb.WatchRoutingRequest, _: object) -> AsyncIterator[pb.WatchRoutingResponse]:
        _LOG.info("a watcher came", extra={"watcher": request.watcher[:100], "revision": request.revision})
        known = (request.epoch, request.revision, request.membership_revision)
        with self._routing.watching() as watch:
            while True:
                snapshot = await watch.next(self._heartbeat_seconds)
                if snapshot is None or snapshot.position == known:
                    yield pb.WatchRoutingResponse()
                else:
                    known = snapshot.position
                    yield pb.WatchRoutingResponse(snapshot=self._encode(snapshot))

    async def WatchEvents(self, request: pb.WatchEventsRequest, _: object) -> AsyncIterator[pb.WatchEventsResponse]:
        async for event in self._events.follow(request.after_sequence):
            yield pb.WatchEventsResponse(event=convert.event_message(event))

    def _encode(self, snapshot: RoutingSnapshot) -> pb.RoutingSnapshot:
        """Encodes each snapshot once, however many watch."""
        if self._encoded is None or self._encoded[0] is not snapshot:
            self._encoded = (snapshot, convert.snapshot_message(snapshot))
        return self._encoded[1]
