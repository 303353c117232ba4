"""Follows the registry's routing: the last good snapshot in memory and on disk, whatever happens to the registry.

start ──► snapshot from disk, if any ──► watch ──► verify digest ──► apply ──► disk
▲ backoff ◄── stream ended, silent, or refused
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot, WatchRoutingRequest, WatchRoutingResponse
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceStub
from inferway_chassis.channel import open_channel
from inferway_chassis.clock import Clock, monotonic
from inferway_chassis.durable_file import replace_durably

_LOG = logging.getLogger(__name__)

SILENCE_SECONDS = 15.0
"""The registry sends a heartbeat every 5 s; three missed ones mean that the stream is dead."""
BACKOFF_SECONDS = (0.2, 5.0)


class SnapshotRefused(Exception):
    """The snapshot cannot be used; the last good one stays."""


def digest_of(snapshot: RoutingSnapshot) -> str:
    """SHA-256 in hex over the deterministic serialisation without the digest itself."""
    bare = RoutingSnapshot()
    bare.CopyFrom(snapshot)
    bare.digest = ""
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


class RoutingFeed:
    """Hands every new snapshot to `apply`, which raises SnapshotRefused to keep the last good one."""

    def __init__(
        self, target: str, watcher: str, path: Path, apply: Callable[[RoutingSnapshot], None], clock: Clock = monotonic
    ) -> None:
        """Follows the registry at `target` (`host:port`) and keeps the last good snapshot at `path`."""
        self._target, self._watcher, self._path, self._apply, self._clock = target, watcher, path, apply, clock
        self._last = RoutingSnapshot()
        self._heard_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._changed = asyncio.Event()
        self.synchronised = False
        """There is a usable snapshot, fresh or from disk."""
        self.refused = 0
        """Snapshots, from the registry or from disk, that could not be used."""

    @property
    def stale_seconds(self) -> float:
        """Seconds since the registry was last heard; infinite if it never was."""
        return float("inf") if self._heard_at is None else self._clock() - self._heard_at

    async def start(self) -> None:
        """Applies the snapshot on disk, if there is one, and begins to watch."""
        self._load()
        self._task = asyncio.create_task(self._watch_forever(), name="routing-feed")

    async def wait_synchronised(self) -> None:
        """Returns when there is a usable snapshot."""
        await self._changed.wait()

    async def stop(self) -> None:
        """Ends the watch; what is being kept is on disk then."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    def _load(self) -> None:
        try:
            snapshot = RoutingSnapshot.FromString(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, DecodeError):
            self.refused += 1
            _LOG.exception("the snapshot on disk cannot be read; waiting for the registry")
            return
        if self._accept(snapshot):
            _LOG.info("started from the snapshot on disk", extra={"revision": snapshot.revision})

    async def _watch_forever(self) -> None:
        delay = BACKOFF_SECONDS[0]
        while True:
            async with open_channel(self._target) as channel:
                try:
                    if await self._watch(WatchServiceStub(channel)):
                        delay = BACKOFF_SECONDS[0]
                except (grpc.RpcError, TimeoutError) as error:
                    _LOG.info("the registry is away; routing goes on", extra={"cause": _cause(error)})
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret
            delay = min(delay * 1.6, BACKOFF_SECONDS[1])

    async def _watch(self, stub: WatchServiceStub) -> bool:
        """Reads one stream to its end; returns whether anything came."""
        request = WatchRoutingRequest(
            watcher=self._watcher,
            epoch=self._last.epoch,
            revision=self._last.revision,
            membership_revision=self._last.membership_revision,
        )
        call = stub.WatchRouting(request)
        heard = False
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await call.read()
                if not isinstance(response, WatchRoutingResponse):  # the end of the stream
                    return heard
                heard, self._heard_at = True, self._clock()
                if response.HasField("snapshot"):
                    await self._receive(response.snapshot)
        finally:
            call.cancel()

    async def _receive(self, snapshot: RoutingSnapshot) -> None:
        """Requests go on while the disk takes its 10 ms; the next snapshot waits."""
        if not self._accept(snapshot):
            return
        self._writing = asyncio.ensure_future(
            asyncio.to_thread(replace_durably, self._path, snapshot.SerializeToString())
        )
        try:
            await asyncio.shield(self._writing)
        except OSError:
            _LOG.exception("the snapshot cannot be kept on disk; a restart without the registry would miss it")

    def _accept(self, snapshot: RoutingSnapshot) -> bool:
        try:
            _verify(snapshot)
            self._apply(snapshot)
        except SnapshotRefused as refused:
            self.refused += 1
            _LOG.error("a snapshot was refused; the last good one stays", extra={"cause": str(refused)})
            return False
        except Exception:  # noqa: BLE001 - whatever a registry sends, it must not end the watch
            self.refused += 1
            _LOG.exception("a snapshot could not be applied; the last good one stays")
            return False
        self._last = snapshot
        self.synchronised = True
        self._changed.set()
        return True


def _verify(snapshot: RoutingSnapshot) -> None:
    if snapshot.digest != digest_of(snapshot):
        message = "its digest is wrong"
        raise SnapshotRefused(message)


def _cause(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
