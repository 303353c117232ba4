"""A registry as far as a worker sees it: routing, files and leases over a real socket, without a catalogue."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio

from inferway.registry.v1 import fleet_service_pb2, registry_service_pb2, resources_pb2, watch_service_pb2
from inferway.registry.v1.fleet_service_pb2_grpc import FleetServiceServicer, add_FleetServiceServicer_to_server
from inferway.registry.v1.registry_service_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceServicer, add_WatchServiceServicer_to_server
from inferway_chassis.routing_feed import digest_of

CHUNK_BYTES = 64 * 1024


def model_version(
    name: str, files: dict[str, bytes], runtime: int = resources_pb2.RUNTIME_TENSORFLOW, **fields: Any
) -> resources_pb2.ModelVersion:
    """A published version with the manifest of `files`."""
    artifacts = [
        resources_pb2.Artifact(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(files.items())
    ]
    lines = "".join(f"{artifact.sha256}  {artifact.path}\n" for artifact in artifacts)
    manifest = resources_pb2.Manifest(artifacts=artifacts, digest=hashlib.sha256(lines.encode()).hexdigest())
    return resources_pb2.ModelVersion(
        name=name,
        version=int(name.rpartition("/")[2]),
        state=resources_pb2.ModelVersion.STATE_PUBLISHED,
        runtime=resources_pb2.Runtime.ValueType(runtime),
        manifest=manifest,
        **fields,
    )


class FakeRegistry(FleetServiceServicer, RegistryServiceServicer, WatchServiceServicer):
    """Holds what tests put in; `reports` has every report of a worker, newest last."""

    def __init__(self) -> None:
        """Empty."""
        self.files: dict[tuple[str, str], bytes] = {}
        self.downloads: list[tuple[str, int]] = []
        """Path and offset of every download."""
        self.cuts: dict[str, int] = {}
        """By path: breaks the next download after so many bytes."""
        self.reports: list[resources_pb2.Worker] = []
        self.released: list[str] = []
        self._versions: dict[str, watch_service_pb2.RoutedVersion] = {}
        self._revision = 0
        self._changed = asyncio.Condition()
        self._server: aio.Server | None = None
        self.target = ""

    async def start(self, address: str = "127.0.0.1:0") -> None:
        """Listens; after `stop`, give the old `target` to come back there."""
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        add_FleetServiceServicer_to_server(self, self._server)
        add_RegistryServiceServicer_to_server(self, self._server)
        add_WatchServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        await self._server.start()

    async def stop(self) -> None:
        """Cuts every call."""
        if self._server is not None:
            await self._server.stop(None)

    async def put(self, version: resources_pb2.ModelVersion, files: dict[str, bytes], *, wanted: bool = True) -> None:
        """Publishes a version, or changes whether it is wanted."""
        self.files |= {(version.name, path): data for path, data in files.items()}
        async with self._changed:
            self._versions[version.name] = watch_service_pb2.RoutedVersion(model_version=version, wanted=wanted)
            self._revision += 1
            self._changed.notify_all()

    async def remove(self, name: str) -> None:
        """Deletes a version."""
        async with self._changed:
            del self._versions[name]
            self._revision += 1
            self._changed.notify_all()

    async def reported(
        self, accepts: Callable[[resources_pb2.Worker], bool], seconds: float = 30
    ) -> resources_pb2.Worker:
        """The newest report, once it is accepted."""
        async with self._changed, asyncio.timeout(seconds):
            await self._changed.wait_for(lambda: bool(self.reports) and accepts(self.reports[-1]))
            return self.reports[-1]

    def snapshot(self) -> watch_service_pb2.RoutingSnapshot:
        """What watchers get."""
        snapshot = watch_service_pb2.RoutingSnapshot(
            epoch="test", revision=self._revision, versions=[self._versions[name] for name in sorted(self._versions)]
        )
        snapshot.digest = digest_of(snapshot)
        return snapshot

    async def WatchRouting(
        self, request: watch_service_pb2.WatchRoutingRequest, context: Any
    ) -> AsyncIterator[watch_service_pb2.WatchRoutingResponse]:
        """Every change."""
        sent = -1
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._revision != sent)  # noqa: B023 - evaluated here
                sent, snapshot = self._revision, self.snapshot()
            yield watch_service_pb2.WatchRoutingResponse(snapshot=snapshot)

    async def DownloadArtifact(
        self, request: registry_service_pb2.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[registry_service_pb2.DownloadArtifactResponse]:
        """The rest of the file."""
        self.downloads.append((request.path, request.offset_bytes))
        rest = self.files[request.version, request.path][request.offset_bytes :]
        cut = self.cuts.pop(request.path, None)
        for start in range(0, len(rest), CHUNK_BYTES):
            if cut is not None and start >= cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            yield registry_service_pb2.DownloadArtifactResponse(chunk=rest[start : start + CHUNK_BYTES])

    async def ReportWorker(
        self, request: fleet_service_pb2.ReportWorkerRequest, context: Any
    ) -> fleet_service_pb2.ReportWorkerResponse:
        """Notes it."""
        async with self._changed:
            self.reports.append(request.worker)
            self._changed.notify_all()
        response = fleet_service_pb2.ReportWorkerResponse()
        response.lease_duration.FromSeconds(6)
        return response

    async def ReleaseWorker(
        self, request: fleet_service_pb2.ReleaseWorkerRequest, context: Any
    ) -> fleet_service_pb2.ReleaseWorkerResponse:
        """Notes it."""
        self.released.append(request.name)
        return fleet_service_pb2.ReleaseWorkerResponse()
