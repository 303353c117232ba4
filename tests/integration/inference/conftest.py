"""A real worker in the test's process, runners and all, and a registry it cannot tell from a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferway.datatypes import Datatype
from inferway_chassis.server import Server
from inferway_chassis.testing import serving
from inferway_inference.app import running
from inferway_inference.runtimes.fake import FILE
from inferway_inference.settings import InferenceSettings
from tests.integration.inference.fake_registry import FakeRegistry
from tests.testbed.once import made_once

Worker = Callable[..., AbstractAsyncContextManager[Server]]


def fake_model(operation: str = "affine", width: int = 4, **parameters: Any) -> dict[str, bytes]:
    """Files of a fake model: `x` [-1, width] to `y`, twice `x` unless told otherwise."""
    shape = [] if operation == "total" else [-1, width]
    parameters = parameters or ({"factor": 2} if operation == "affine" else {})
    signature = {
        "inputs": {"x": ["FP32", [-1, width]]},
        "outputs": {"y": ["FP32", shape]},
        "operation": operation,
        **parameters,
    }
    return {FILE: json.dumps({"signatures": {"serving_default": signature}}).encode()}


def runners() -> list[psutil.Process]:
    """Runner processes of this process."""
    return [child for child in psutil.Process().children() if "inferway_inference.runner" in child.cmdline()]


@pytest.fixture(scope="session")
def fake_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models as `make_savedmodels` makes, but for `tiny`."""
    directory = tmp_path_factory.mktemp("fake")
    identity = {
        "inputs": {kind.name.lower(): [kind.name, [-1, 2]] for kind in Datatype},
        "outputs": {f"y_{kind.name.lower()}": [kind.name, [-1, 2]] for kind in Datatype},
        "operation": "identity",
    }
    text = {
        "inputs": {"bytes": ["BYTES", [-1, 2]]},
        "outputs": {"y_bytes": ["BYTES", [-1, 2]]},
        "operation": "identity",
    }
    models = {
        "affine": fake_model()[FILE],
        "total": fake_model("total")[FILE],
        "text": json.dumps({"signatures": {"serving_default": text}}).encode(),
        "identity": json.dumps({"signatures": {"serving_default": identity}}).encode(),
    }
    for name, content in models.items():
        (directory / name).mkdir()
        (directory / name / FILE).write_bytes(content)
    return directory


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by a process of its own: this one must not import TensorFlow."""

    def make(directory: Path) -> None:
        command = [sys.executable, "-m", "tests.integration.inference.make_savedmodels", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]

    return made_once(tmp_path_factory, "tensorflow-models", make)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()  # type: ignore[abstract] # a worker calls few of the rpcs
    await registry.start()
    yield registry
    await registry.stop()


def worker_settings(registry: FakeRegistry, directory: Path, **changes: Any) -> dict[str, Any]:
    """Of a worker that executes everything with the fake runtime and unloads at once, unless told otherwise."""
    return {
        "grpc_address": "127.0.0.1:0",
        "metrics_address": "",
        "data_dir": directory / "worker",
        "registry_target": registry.target,
        "worker": "w0",
        "runtimes": {"tensorflow": "fake"},
        "unload_delay_seconds": 0,
        "spare_processes": False,
        "grace_seconds": 3,
        **changes,
    }


@pytest.fixture
def worker(registry: FakeRegistry, tmp_path: Path) -> Worker:
    """Starts a worker with these settings changed."""

    def start(**changes: Any) -> AbstractAsyncContextManager[Server]:
        return serving(running, InferenceSettings(**worker_settings(registry, tmp_path, **changes)), "inference")

    return start
