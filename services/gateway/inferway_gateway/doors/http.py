"""The HTTP door: health, and where the rest is. REST predictions come beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferway_chassis.addresses import AddressTaken, split_address

_STOP_SECONDS = 1
"""For answers under way when the server stops; none takes long."""


def application(is_ready: Callable[[], bool], about: Mapping[str, str]) -> Starlette:
    """The ASGI application. `about` is what `/` tells."""

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": True}) if is_ready() else JSONResponse({"ready": False}, status_code=503)

    async def index(_: Request) -> Response:
        return JSONResponse(dict(about))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/livez", live),
            Route("/readyz", ready),
        ],
        exception_handlers={HTTPException: _refused},
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    return JSONResponse({"error": f"{error.detail}: {request.method} {path}"}, status_code=error.status_code)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own way to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving_http(address: str, app: Starlette, *, share_port: bool = False) -> AsyncIterator[int]:
    """Serves `app` on `host:port` and yields the bound port; raises AddressTaken."""
    listener = _listen(address, share_port=share_port)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_STOP_SECONDS
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        listener.close()


def _listen(address: str, *, share_port: bool) -> socket.socket:
    host, port = split_address(address) or ("", 0)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, reuse_port=share_port)
    except OSError as error:
        raise AddressTaken(f"HTTP address {address} is taken by another process") from error
