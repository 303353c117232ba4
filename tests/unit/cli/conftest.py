"""Fakes behind real sockets, and the command as its users run it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from inferway.datatypes import Datatype
from inferway_cli.app import main
from inferway_client.testing import FakeGateway, FakeModel, TensorSpec
from tests.unit.cli.fake_registry import FakeRegistry

COMMAND_SECONDS = 30.0

AFFINE = FakeModel(
    inputs={"x": TensorSpec(Datatype.FP32, (-1, 3))},
    output_names=("y",),
    compute=lambda inputs: {"y": (2 * inputs["x"] + 1).astype(np.float32)},
    aliases={"champion": 1},
)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str


Inferway = Callable[..., Awaitable[Done]]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """An empty registry."""
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A gateway with the model `affine`."""
    async with FakeGateway({"affine": AFFINE}) as gateway:
        yield gateway


@pytest.fixture
def inferway(registry: FakeRegistry, gateway: FakeGateway, tmp_path: Path) -> Inferway:
    """Runs `inferway` in a process of its own, without a terminal, against the fakes."""
    environment = {
        **os.environ,
        "INFERWAY_REGISTRY": registry.target,
        "INFERWAY_GATEWAY": gateway.target,
        "INFERWAY_DATA_DIR": str(tmp_path / "data"),
        "COLUMNS": "80",
    }

    async def run(*arguments: str) -> Done:
        async with asyncio.timeout(COMMAND_SECONDS):
            return await asyncio.to_thread(invoke, arguments, environment)

    return run


def invoke(arguments: tuple[str, ...], environment: dict[str, str]) -> Done:
    """The command to its end, in this process; the calling thread waits."""
    with CliRunner().isolation(env=environment) as (stdout, stderr, _):
        try:
            code = main(arguments)
        except SystemExit as ended:  # typer's own way out
            code = int(ended.code or 0)
        sys.stdout.flush()
        return Done(code, stdout.getvalue().decode(), stderr.getvalue().decode())


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    """A directory that looks like a SavedModel, of a few chunks."""
    directory = tmp_path / "affine-model"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "fingerprint.pb").write_bytes(b"")
    (directory / "variables" / "variables.data").write_bytes(os.urandom(1_000_000))
    return directory
