"""A worker that explains what a test has told it to, behind a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from inferway.errors import VersionNotReady
from inferway.status import to_status
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_client.transport import STATUS_DETAILS


@asynccontextmanager
async def explaining(*explanations: pb.ExplainVersionResponse) -> AsyncIterator[str]:
    """Answers ExplainVersion for these versions; yields its address."""
    by_version = {explained.status.version: explained for explained in explanations}

    async def explain(request: pb.ExplainVersionRequest, context: Any) -> pb.ExplainVersionResponse:
        if request.version in by_version:
            return by_version[request.version]
        error = VersionNotReady(f"{request.version} is not here")
        metadata = ((STATUS_DETAILS, to_status(error).SerializeToString()),)
        return await context.abort(grpc.StatusCode.UNAVAILABLE, error.message, metadata)  # type: ignore[no-any-return]

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        explain, pb.ExplainVersionRequest.FromString, pb.ExplainVersionResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler("inferway.worker.v1.WorkerService", {"ExplainVersion": method})
    server.add_generic_rpc_handlers((service,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)
