"""Baseline (b): one hop of grpc.aio that sends each message back. `python -m benchmarks.echo_server HOST:PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from grpc import aio


async def echo(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
    """Unary."""
    del context
    return request


async def echo_stream(
    requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]
) -> AsyncIterator[bytes]:
    """Bidirectional."""
    del context
    async for request in requests:
        yield request


async def serve(address: str) -> None:
    """Serves until killed."""
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.stream_stream_rpc_method_handler(echo_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
    server.add_insecure_port(address)
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
