"""`EndpointService`: converts, calls, converts."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

from dataclasses import dataclass

from inferway import names
from inferway.registry.v1 import endpoint_service_pb2 as pb
from inferway_registry import convert, endpoints, paging
from inferway_registry.ledger import Ledger
from inferway_registry.once import once
from inferway_registry.splits import look_at
from inferway_registry.store.sql import Store


@dataclass(frozen=True, slots=True)
class EndpointServicer:
    """Where traffic goes."""

    store: Store
    ledger: Ledger

    async def CreateEndpoint(self, request: pb.CreateEndpointRequest, _: object) -> pb.CreateEndpointResponse:
        name = names.parse(request.endpoint.name, "endpoints", "endpoint.name")
        wish = convert.wish(request.endpoint)
        return await once(
            self.ledger,
            request,
            lambda change: endpoints.create(change, name, wish),
            lambda endpoint: pb.CreateEndpointResponse(endpoint=convert.endpoint_message(endpoint)),
            pb.CreateEndpointResponse,
        )

    async def GetEndpoint(self, request: pb.GetEndpointRequest, _: object) -> pb.GetEndpointResponse:
        async with self.store.reading() as rows:
            endpoint = await endpoints.require_endpoint(rows, names.parse(request.name, "endpoints"))
            check = await look_at(rows, endpoint)
        return pb.GetEndpointResponse(endpoint=convert.endpoint_message(endpoint, check))

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, _: object) -> pb.ListEndpointsResponse:
        size, after = paging.read_size(request.page_size), paging.read_token("endpoints", request.page_token)
        async with self.store.reading() as rows:
            found = await rows.endpoints(after, size + 1)
            page, token = paging.cut("endpoints", found, size, lambda endpoint: endpoint.endpoint)
            checks = [await look_at(rows, endpoint) for endpoint in page]
        return pb.ListEndpointsResponse(endpoints=map(convert.endpoint_message, page, checks), next_page_token=token)

    async def UpdateEndpoint(self, request: pb.UpdateEndpointRequest, _: object) -> pb.UpdateEndpointResponse:
        name = names.parse(request.endpoint.name, "endpoints", "endpoint.name")
        wish = convert.wish(request.endpoint)
        return await once(
            self.ledger,
            request,
            lambda change: endpoints.update(change, name, wish, request.endpoint.etag),
            lambda endpoint: pb.UpdateEndpointResponse(endpoint=convert.endpoint_message(endpoint)),
            pb.UpdateEndpointResponse,
        )

    async def DeleteEndpoint(self, request: pb.DeleteEndpointRequest, _: object) -> pb.DeleteEndpointResponse:
        name = names.parse(request.name, "endpoints")
        return await once(
            self.ledger,
            request,
            lambda change: endpoints.delete(change, name, request.etag),
            lambda _none: pb.DeleteEndpointResponse(),
            pb.DeleteEndpointResponse,
        )
