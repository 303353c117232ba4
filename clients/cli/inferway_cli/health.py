"""Whether a server of ours serves: asked once, or waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferway_cli.addresses import MAX_MESSAGE_BYTES
from inferway_client.transport import open_channel, translated_errors

REDIAL_MILLISECONDS = 100


async def check(target: str, seconds: float) -> str:
    """The status of the server at `host:port`, for example SERVING; raises Unreachable and DeadlineExceeded."""
    async with open_channel(target, MAX_MESSAGE_BYTES) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with translated_errors(target):
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def until_serving(target: str) -> None:
    """Returns when the server at `host:port` is SERVING; waits for ever, so give it a timeout."""
    options = [
        ("grpc.initial_reconnect_backoff_ms", REDIAL_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", 2 * REDIAL_MILLISECONDS),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(target, options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                async for answer in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(REDIAL_MILLISECONDS / 1e3)
