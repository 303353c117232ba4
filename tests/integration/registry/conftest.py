"""A registry in the test's own process, on a free port and a fresh directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inferway_chassis.channel import open_channel
from inferway_chassis.testing import serving
from inferway_registry.app import running
from inferway_registry.settings import RegistrySettings
from tests.integration.registry.client import Client

Start = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a registry, with settings of its own, and yields a client of it."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Client]:
        chosen = {"data_dir": tmp_path, "drain_seconds": 0, "grace_seconds": 1, **settings}
        configured = RegistrySettings(grpc_address="127.0.0.1:0", metrics_address="", **chosen)
        async with (
            serving(running, configured, "registry") as server,
            open_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield Client(channel, f"127.0.0.1:{server.port}")

    return started


@pytest.fixture
async def client(start: Start) -> AsyncIterator[Client]:
    """A client of a fresh registry."""
    async with start() as client:
        yield client
