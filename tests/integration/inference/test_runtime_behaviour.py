"""A real runner process with the fake runtime and TensorFlow; what every runtime must do is in test_runtimes.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from inferway.datatypes import ITEM_BYTES, Datatype
from inferway.errors import CorruptArtifact, InferwayError, ModelFailed, RunnerCrashed
from inferway_inference.runner.base import LoadOrder, Outcome
from inferway_inference.runner.process import RunnerProcess
from inferway_inference.samples import synthetic_inputs
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array


@pytest.fixture(params=["fake", pytest.param("tensorflow", marks=pytest.mark.tensorflow)])
def runtime(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Name of a runtime, and the folder of its models."""
    return request.param, request.getfixturevalue(f"{request.param}_models")


@pytest.fixture
async def runner() -> AsyncIterator[RunnerProcess]:
    """A runner without a version."""
    runner = await RunnerProcess.start("test")
    yield runner
    await runner.stop()


async def load(runner: RunnerProcess, runtime: tuple[str, Path], model: str) -> Signature:
    """Loads, and returns the model's one signature."""
    name, folder = runtime
    async with asyncio.timeout(60):
        [signature] = await runner.load(LoadOrder(name, folder / model, threads=1, low_priority=True))
    runner.promote()
    return signature


async def call(runner: RunnerProcess, inputs: list[Array], outputs: tuple[int, ...] = (0,)) -> list[bytes]:
    """The contents of the outputs; raises the call's error."""
    done: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    def finish(outcome: Outcome) -> None:
        if outcome.error is not None:
            done.set_exception(outcome.error)
        else:
            assert outcome.started_ns <= outcome.ended_ns
            done.set_result([bytes(array.parts[0]) for array in outcome.outputs])

    runner.call(0, inputs, outputs, finish)
    async with asyncio.timeout(30):
        return await done


def floats(*values: float) -> Array:
    """One row of four."""
    return Array(Datatype.FP32, (len(values) // 4, 4), (np.array(values, "f4").tobytes(),))


async def test_every_datatype_goes_in_and_comes_out(runner: RunnerProcess, runtime: tuple[str, Path]):
    """All fourteen of the protocol, BYTES and bfloat16 among them, inline and through shared memory."""
    signature = await load(runner, runtime, "identity")
    assert [spec.datatype for spec in signature.inputs] == [spec.datatype for spec in signature.outputs]
    for rows in (1, 3, 5000):
        inputs = synthetic_inputs(signature, rows, seed=rows)
        outputs = await call(runner, inputs, tuple(range(len(Datatype))))
        assert outputs == [b"".join(map(bytes, array.parts)) for array in inputs]
        assert sum(map(len, outputs)) >= rows * 2 * sum(ITEM_BYTES.values())


async def test_only_the_wanted_outputs_come_back_in_order(runner: RunnerProcess, runtime: tuple[str, Path]):
    """An embedding nobody asked for can be larger than everything else."""
    signature = await load(runner, runtime, "identity")
    inputs = synthetic_inputs(signature, 1, seed=1)
    second, fourth = await call(runner, inputs, (1, 3))

    assert [second, fourth] == [b"".join(map(bytes, inputs[place].parts)) for place in (1, 3)]


async def test_a_refused_input_fails_that_call_alone(runner: RunnerProcess, runtime: tuple[str, Path]):
    """The process goes on: the next caller did nothing wrong."""
    await load(runner, runtime, "affine")
    with pytest.raises(ModelFailed) as caught:
        await call(runner, [floats(666, 0, 0, 0)])
    assert "it is poison" in caught.value.message or caught.value.metadata["cause"] == "poison"
    assert sys.prefix not in caught.value.message, "no path of this machine"

    assert await call(runner, [floats(1, 2, 3, 4)]) == [floats(2, 4, 6, 8).parts[0]]


@pytest.mark.tensorflow
async def test_damaged_variables_fail_the_load_and_are_named(
    runner: RunnerProcess, request: pytest.FixtureRequest, tmp_path: Path
):
    """The graph is fine, the numbers are not."""
    models: Path = request.getfixturevalue("tensorflow_models")
    shutil.copytree(models / "affine", tmp_path / "copy")
    variables = next((tmp_path / "copy" / "variables").glob("*.data-*"))
    variables.write_bytes(variables.read_bytes()[:10])
    with pytest.raises(CorruptArtifact) as caught:
        await load(runner, ("tensorflow", tmp_path), "copy")

    assert caught.value.metadata == {"path": "variables/"}


@pytest.mark.tensorflow
async def test_a_compiled_keras_model_computes_with_its_own_weights(runner: RunnerProcess, tensorflow_models: Path):
    """Its file has every variable twice; the plain loader fills those that nobody reads."""
    signature = await load(runner, ("tensorflow", tensorflow_models), "compiled")
    [output] = await call(runner, [floats(1, 1, 1, 1, 1, 1, 1, 1)])

    assert signature.batchable
    expected = np.load(tensorflow_models / "expected.npy")
    assert np.allclose(np.frombuffer(output, "f4").reshape(2, 2), np.vstack([expected, expected]), atol=1e-6)


async def test_an_unknown_runtime_is_refused(runner: RunnerProcess, tmp_path: Path):
    """A name from the catalogue never becomes an import of our choosing."""
    with pytest.raises(InferwayError, match="no runtime 'os'"):
        await runner.load(LoadOrder("os", tmp_path, 1, low_priority=False))


async def test_a_killed_runner_fails_every_call_it_held(runner: RunnerProcess, runtime: tuple[str, Path]):
    """Callers must never wait for a process that is gone."""
    signature = await load(runner, runtime, "affine")
    ended: asyncio.Future[InferwayError] = asyncio.get_running_loop().create_future()
    runner.on_exit = ended.set_result
    outcomes: list[Outcome] = []
    runner.call(0, synthetic_inputs(signature, 1, 1), (0,), outcomes.append)
    runner.kill()
    async with asyncio.timeout(10):
        error = await ended

    assert error.message == "the model's process ended unexpectedly (killed by SIGKILL)"
    assert [isinstance(one.error, RunnerCrashed) or one.error is None for one in outcomes] == [True]
    with pytest.raises(RunnerCrashed):
        runner.call(0, synthetic_inputs(signature, 1, 1), (0,), outcomes.append)


async def test_a_stopped_runner_leaves_no_descriptor_and_no_process(fake_models: Path):
    """A worker loads and unloads for months; shared memory and sockets must go with their runner."""

    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - read by the test alone

    warm = await RunnerProcess.start("warm")
    await warm.stop()
    before = open_descriptors()
    for by_force in (True, False):
        runner = await RunnerProcess.start("test")
        signature = await load(runner, ("fake", fake_models), "affine")
        await call(runner, synthetic_inputs(signature, 50_000, seed=1))
        await runner.stop(by_force=by_force)
        assert not psutil.pid_exists(runner.pid)

    assert open_descriptors() == before
