"""The last good snapshot survives bad ones, restarts and the registry itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from inferway.registry.v1 import watch_service_pb2 as pb
from inferway_chassis.process import Process
from inferway_chassis.routing_feed import RoutingFeed, SnapshotRefused, digest_of
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.telemetry import Telemetry


def snapshot(revision: int) -> pb.RoutingSnapshot:
    made = pb.RoutingSnapshot(epoch="e", revision=revision)
    made.digest = digest_of(made)
    return made


class Registry:
    """Sends what the test puts into `outbox`."""

    def __init__(self) -> None:
        self.outbox = asyncio.Queue[pb.RoutingSnapshot]()
        self.asked = asyncio.Queue[int]()

    async def WatchRouting(
        self, request: pb.WatchRoutingRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchRoutingResponse]:
        self.asked.put_nowait(request.revision)
        while True:
            yield pb.WatchRoutingResponse(snapshot=await self.outbox.get())

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: aio.ServicerContext[Any, Any]) -> None: ...


class Applied:
    """Remembers the revisions it was handed; refuses 100 and stumbles over 101."""

    def __init__(self) -> None:
        self.revisions = asyncio.Queue[int]()

    def __call__(self, snapshot: pb.RoutingSnapshot) -> None:
        if snapshot.revision == 100:
            message = "an arm names an unknown version"
            raise SnapshotRefused(message)
        if snapshot.revision == 101:
            raise KeyError("a fault of our own")
        self.revisions.put_nowait(snapshot.revision)


@pytest.fixture
async def registry() -> AsyncIterator[tuple[Registry, str]]:
    servicer = Registry()
    server = Server(ServiceSettings(), Process("test", "boot", Telemetry("test", "boot")))
    server.add_service(pb.DESCRIPTOR.services_by_name["WatchService"], servicer)
    await server.start()
    yield servicer, f"127.0.0.1:{server.port}"
    await server.stop(0)


async def test_a_snapshot_is_applied_and_kept_for_a_start_without_the_registry(
    registry: tuple[Registry, str], tmp_path: Path
) -> None:
    """Traffic never waits for the registry, not even after a restart."""
    servicer, target = registry
    applied = Applied()
    feed = RoutingFeed(target, "test", tmp_path / "routing.pb", applied)
    await feed.start()
    servicer.outbox.put_nowait(snapshot(7))
    assert await asyncio.wait_for(applied.revisions.get(), 5) == 7
    await feed.stop()

    again = Applied()
    offline = RoutingFeed("127.0.0.1:1", "test", tmp_path / "routing.pb", again)
    await offline.start()
    await offline.stop()

    assert again.revisions.get_nowait() == 7
    assert offline.synchronised


@pytest.mark.parametrize("bad", ["digest", "refused", "stumbled over"])
async def test_a_bad_snapshot_is_refused_and_the_next_good_one_applied(
    registry: tuple[Registry, str], tmp_path: Path, bad: str
) -> None:
    """A broken control plane must not break the data plane."""
    servicer, target = registry
    applied = Applied()
    feed = RoutingFeed(target, "test", tmp_path / "routing.pb", applied)
    await feed.start()
    broken = snapshot(101 if bad == "stumbled over" else 100)
    if bad == "digest":
        broken = snapshot(8)
        broken.revision = 9
    for each in (snapshot(1), broken, snapshot(2)):
        servicer.outbox.put_nowait(each)

    assert [await asyncio.wait_for(applied.revisions.get(), 5) for _ in range(2)] == [1, 2]
    assert feed.refused == 1
    await feed.stop()


async def test_a_damaged_file_is_survived(registry: tuple[Registry, str], tmp_path: Path) -> None:
    """A flipped bit on disk costs the snapshot, not the start."""
    servicer, target = registry
    path = tmp_path / "routing.pb"
    path.write_bytes(b"\xff" * 100)
    applied = Applied()
    feed = RoutingFeed(target, "test", path, applied)
    await feed.start()
    assert not feed.synchronised
    servicer.outbox.put_nowait(snapshot(3))

    assert await asyncio.wait_for(applied.revisions.get(), 5) == 3
    await feed.stop()


async def test_a_reconnect_says_what_is_already_known(registry: tuple[Registry, str], tmp_path: Path) -> None:
    """Ten thousand routes need not be sent again because a cable was pulled."""
    servicer, target = registry
    applied = Applied()
    first = RoutingFeed(target, "test", tmp_path / "routing.pb", applied)
    await first.start()
    servicer.outbox.put_nowait(snapshot(5))
    await asyncio.wait_for(applied.revisions.get(), 5)
    await first.stop()
    second = RoutingFeed(target, "test", tmp_path / "routing.pb", applied)
    await second.start()

    assert [await asyncio.wait_for(servicer.asked.get(), 5) for _ in range(2)] == [0, 5]
    await second.stop()
