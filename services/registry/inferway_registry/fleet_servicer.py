"""`FleetService`: converts, calls, converts."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from inferway import names
from inferway.registry.v1 import fleet_service_pb2 as pb
from inferway_registry import convert, paging
from inferway_registry.fleet import Fleet


@dataclass(frozen=True, slots=True)
class FleetServicer:
    """The workers there are."""

    fleet: Fleet

    async def ReportWorker(self, request: pb.ReportWorkerRequest, _: object) -> pb.ReportWorkerResponse:
        lease = Duration()
        lease.FromMilliseconds(int(self.fleet.report(convert.report(request)) * 1000))
        return pb.ReportWorkerResponse(lease_duration=lease)

    async def ReleaseWorker(self, request: pb.ReleaseWorkerRequest, _: object) -> pb.ReleaseWorkerResponse:
        self.fleet.release(names.parse(request.name, "workers"), request.boot_id)
        return pb.ReleaseWorkerResponse()

    async def ListWorkers(self, request: pb.ListWorkersRequest, _: object) -> pb.ListWorkersResponse:
        size, after = paging.read_size(request.page_size), paging.read_token("workers", request.page_token)
        found = [worker for worker in self.fleet.workers() if worker.worker > after]
        page, token = paging.cut("workers", found, size, lambda worker: worker.worker)
        return pb.ListWorkersResponse(workers=map(convert.worker_message, page), next_page_token=token)
