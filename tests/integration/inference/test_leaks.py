"""Loading and unloading leaves nothing behind. The long form is `make soak-loads`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from inferway.errors import RunnerCrashed
from inferway_inference.runner.host import RunnerHost
from inferway_inference.runner.process import RunnerProcess
from inferway_inference.runtimes.fake import FILE
from tests.integration.inference.conftest import fake_model
from tests.soak.loads import Held, run_cycles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a fake model."""
    (tmp_path / FILE).write_bytes(fake_model()[FILE])
    return tmp_path


@pytest.mark.parametrize(("isolation", "cycles"), [("inline", 20), ("process", 8), ("group", 8)])
async def test_nothing_is_left_of_a_version_that_is_gone(folder: Path, isolation: str, cycles: int):
    """A worker lives for months, and versions come and go every day."""
    before, after = await run_cycles("fake", folder, isolation, cycles)

    assert after.left_since(before) == []


@pytest.mark.tensorflow
async def test_nothing_is_left_of_a_tensorflow_version(tensorflow_models: Path):
    """It brings half a gigabyte and dozens of threads, all of them in its own process."""
    before, after = await run_cycles("tensorflow", tensorflow_models / "affine", "process", 1)

    assert after.left_since(before) == []


async def test_nothing_is_left_of_a_process_that_crashed():
    """Crashes are when cleaning up is forgotten."""
    before = await asyncio.to_thread(Held.now)  # a thread of the loop's pool stays, and is in it
    ended = asyncio.Event()
    for _ in range(5):
        ended.clear()
        runner = RunnerProcess("crashes", await RunnerHost.start("crashes"))
        runner.on_exit = lambda _: ended.set()
        psutil.Process(runner.pid).kill()
        async with asyncio.timeout(30):
            await ended.wait()
        assert isinstance(runner.ended, RunnerCrashed)
        await runner.stop()

    assert Held.now().left_since(before) == []
