"""A service that does nothing but say that it serves: `python -m tests.unit.cli.fake_service`.

FAKE_ADDRESS is where it listens. FAKE_FAILS makes it end with a message at the start; FAKE_STUBBORN makes it ignore
SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def main() -> None:
    """Serves health until SIGTERM."""
    if "FAKE_FAILS" in os.environ:
        sys.exit("no room on the disk")
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ["FAKE_ADDRESS"])
    ended = asyncio.Event()
    stop = (lambda: None) if "FAKE_STUBBORN" in os.environ else ended.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
