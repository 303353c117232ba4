"""The HTTP door: health for load balancers, and a pointer for people."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from inferway_chassis.addresses import AddressTaken
from inferway_gateway.doors.http import application, serving_http
from tests.integration.gateway.conftest import gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker


async def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Status and JSON of a GET."""

    def fetch() -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(fetch)


async def test_readiness_follows_what_it_is_told() -> None:
    """Load balancers send traffic by it."""
    ready = False
    async with serving_http("127.0.0.1:0", application(lambda: ready, {"name": "inferway gateway"})) as port:
        before = await get(port, "/v2/health/ready")
        ready = True
        after = await get(port, "/readyz")

        assert (before[0], after[0]) == (503, 200)
        assert await get(port, "/v2/health/live") == (200, {"live": True})
        assert await get(port, "/livez") == (200, {"live": True})
        assert await get(port, "/") == (200, {"name": "inferway gateway"})


async def test_an_unknown_path_answers_with_an_error_in_json() -> None:
    """Open Inference clients parse `error`."""
    async with serving_http("127.0.0.1:0", application(lambda: True, {})) as port:
        status, body = await get(port, "/v1/nothing")

    assert status == 404
    assert body == {"error": "Not Found: GET /v1/nothing"}


async def test_a_taken_port_is_said_plainly(tmp_path: Path, registry: FakeRegistry, worker: FakeWorker) -> None:
    """Two stacks on one machine are the usual cause."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_for(tmp_path, registry.target, http_address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(AddressTaken, match="is taken"):
            async with gateway(settings, registry, worker):
                pass
