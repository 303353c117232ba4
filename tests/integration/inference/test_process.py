"""The worker as a process: signals, and the children it leaves behind or does not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from inferway_inference.settings import InferenceSettings
from tests.integration.inference.conftest import fake_model
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of
from tests.testbed.ports import free_ports

V1 = "models/double/versions/1"


def start(settings: Mapping[str, object]) -> subprocess.Popen[bytes]:
    """A worker of these settings."""
    own = {f"{InferenceSettings.prefix}{name}".upper(): str(value) for name, value in settings.items()}
    return subprocess.Popen([sys.executable, "-m", "inferway_inference"], env={**os.environ, **own})


@pytest.fixture
async def process(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """A worker process with a model that is ready, and its address."""
    files = fake_model()
    await registry.put(model_version(V1, files), files)
    target = f"127.0.0.1:{free_ports(1)[0]}"
    settings = {
        "grpc_address": target,
        "metrics_address": "",
        "data_dir": tmp_path,
        "registry_target": registry.target,
        "runtimes": '{"tensorflow": "fake"}',
        "drain_seconds": 0.2,
    }
    process = start(settings)
    await registry.reported(lambda one: [version.state for version in one.versions] == [5])
    yield process, target
    process.kill()
    process.wait(10)


async def test_a_killed_worker_takes_its_runners_with_it(process: tuple[subprocess.Popen[bytes], str]):
    """Orphans would hold memory that the restarted worker needs."""
    worker, _ = process
    runners = psutil.Process(worker.pid).children()
    worker.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, runners, timeout=10)

    assert runners
    assert alive == []


async def test_sigterm_ends_a_worker_with_open_links_in_order(
    process: tuple[subprocess.Popen[bytes], str], registry: FakeRegistry
):
    """A restart answers what is underway, gives the lease back, and does not wait for gateways to hang up."""
    worker, target = process
    async with GatewaySide(target) as gateway:
        await gateway.ready(V1)
        worker.send_signal(signal.SIGTERM)
        await gateway.until(lambda: gateway.drains == 1)
        [answer] = await gateway.call(envelope(1, V1, tensor("x", np.ones((1, 4), "f4"))))
        assert values_of(answer).tolist() == [[2.0] * 4]
        await gateway.until(lambda: gateway.ended == "ended")
        status = await asyncio.to_thread(worker.wait, 5)

    assert status == 0
    assert registry.released[0].startswith("workers/")


def test_an_unknown_setting_refuses_to_start():
    """A misspelt name must not run with the default it was meant to replace."""
    process = subprocess.run(
        [sys.executable, "-m", "inferway_inference"],
        env={**os.environ, "INFERWAY_INFERENCE_ISOLATION": "inline"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert process.returncode == 2
    assert "unknown setting INFERWAY_INFERENCE_ISOLATION" in process.stderr


@pytest.mark.parametrize(
    ("address", "advertised", "dialled"),
    [
        ("127.0.0.1:8020", "", "127.0.0.1:9"),
        ("[::1]:8020", "", "[::1]:9"),
        ("0.0.0.0:8020", "worker.example:1", "worker.example:1"),
    ],
)
def test_gateways_are_told_an_address_they_can_dial(address: str, advertised: str, dialled: str):
    """What a worker binds is not always what others see."""
    settings = InferenceSettings(grpc_address=address, advertised_address=advertised)

    assert settings.address_to_dial(9) == dialled


def test_a_worker_without_a_name_gets_a_permitted_one():
    """Host names may have capitals and dots; resource names are stricter."""
    first, second = (InferenceSettings(grpc_address=f"127.0.0.1:{port}").identity("b" * 32) for port in (8020, 0))

    assert first.name.endswith("-8020")
    assert second.name.endswith("-bbbbbbbb")
