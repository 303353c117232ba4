"""Versions that compute within the worker must not be able to stop it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from inferway.datatypes import Datatype
from inferway_inference.runner.base import LoadOrder, Outcome
from inferway_inference.runner.inline import InlineRunner
from inferway_inference.runtimes import fake
from inferway_inference.tensors import Array


class Keeping(list[Array]):
    """Inputs that keep whoever computes with them until the event loop lets go."""

    def __init__(self, *arrays: Array) -> None:
        """Keeps."""
        super().__init__(arrays)
        self.let_go = threading.Event()
        self.was_let_go = False

    def __iter__(self) -> Iterator[Array]:
        """Takes a while."""
        self.was_let_go = self.let_go.wait(5)
        return super().__iter__()


async def test_no_call_computes_on_the_event_loop(tmp_path: Path):
    """A model that was quick a hundred times may loop for ever on the next input."""
    tensors = {"inputs": {"x": ["FP32", [-1, 2]]}, "outputs": {"y": ["FP32", [-1, 2]]}}
    signature = {**tensors, "operation": "affine", "factor": 2, "offset": 0}
    (tmp_path / fake.FILE).write_text(json.dumps({"signatures": {"serving_default": signature}}))
    runner = InlineRunner("test")
    await runner.load(LoadOrder("fake", tmp_path, threads=1, low_priority=False))
    x = Array(Datatype.FP32, (1, 2), (np.ones(2, "f4").tobytes(),))

    async def call(inputs: Sequence[Array], meanwhile: Callable[[], None]) -> None:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        runner.call(0, inputs, (0,), done.set_result)
        asyncio.get_running_loop().call_soon(meanwhile)
        async with asyncio.timeout(10):
            assert (await done).error is None

    for _ in range(100):
        await call([x], lambda: None)
    inputs = Keeping(x)
    await call(inputs, inputs.let_go.set)
    await runner.stop()

    assert inputs.was_let_go
