"""The threads of a runner that compute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from inferway_inference.runner.asking import ask
from inferway_inference.runner.base import LoadOrder
from inferway_inference.runner.process import RunnerProcess
from inferway_inference.runtimes.fake import FILE
from inferway_inference.samples import synthetic_inputs
from tests.integration.inference.conftest import fake_model


def threads(runner: RunnerProcess) -> set[int]:
    """Of its process, some of which are of the frameworks, but for the first, which computes nothing."""
    return {thread.id for thread in psutil.Process(runner.pid).threads()} - {runner.pid}


async def test_a_copy_that_is_unloaded_takes_the_threads_that_computed_it_along(tmp_path: Path):
    """TensorFlow keeps by thread what it prepared for a copy with all cores: MobileNetV2 then took a sixth longer."""
    (tmp_path / FILE).write_bytes(fake_model()[FILE])
    order = LoadOrder("fake", tmp_path, 0, low_priority=False)
    loser = await RunnerProcess.start("two copies")
    winner = loser.beside()
    try:
        await loser.load(order)
        [signature, *_] = await winner.load(order)
        inputs = synthetic_inputs(signature, 1, seed=1)
        await ask(loser, 0, inputs, 1)
        computed = threads(loser)
        await loser.stop()

        async with asyncio.timeout(30):
            while not (computed - threads(winner) and threads(winner) - computed):
                await ask(winner, 0, inputs, 1)
        winner.set_callers(3)
        await asyncio.gather(*(ask(winner, 0, inputs, 1) for _ in range(3)))
    finally:
        await winner.stop()
