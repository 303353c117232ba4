"""A real model in a real worker: every row of every caller against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inferway import errors
from inferway.datatypes import Datatype
from inferway.worker.v1 import worker_service_pb2 as pb
from tests.integration.inference.conftest import Worker
from tests.integration.inference.fake_registry import FakeRegistry, model_version
from tests.integration.inference.gateway_side import GatewaySide, byte_strings, envelope, tensor, values_of

pytestmark = pytest.mark.tensorflow

TINY, SHOUT, FUSSY = (f"models/{model}/versions/1" for model in ("tiny", "shout", "fussy"))


def files_below(folder: Path) -> dict[str, bytes]:
    """A SavedModel."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def publish(registry: FakeRegistry, name: str, folder: Path) -> None:
    """Makes a worker load it."""
    files = files_below(folder)
    await registry.put(model_version(name, files), files)


async def test_every_caller_gets_what_numpy_computes_for_its_rows(
    registry: FakeRegistry, worker: Worker, saved_models: Path
):
    """Batched with strangers, in batches of all sizes, and larger than a batch."""
    await publish(registry, TINY, saved_models / "tiny")
    weights = np.load(saved_models / "tiny.npz")
    async with worker(runtimes={}) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        status = await gateway.ready(TINY)
        assert status.memory_bytes > 100_000_000
        assert status.speed.rows_per_second > 0
        random = np.random.default_rng(7)
        inputs = {n: random.normal(size=(1 + n % 7 if n % 50 else 200, 32)).astype("f4") for n in range(1, 251)}
        answers = await gateway.call(*(envelope(n, TINY, tensor("x", x)) for n, x in inputs.items()))

    for answer in answers:
        hidden = np.maximum(inputs[answer.id] @ weights["w0"] + weights["b0"], 0)
        expected = hidden @ weights["w1"] + weights["b1"]
        assert np.allclose(values_of(answer), expected, atol=1e-5)


async def test_strings_are_batched_and_cut_like_numbers(registry: FakeRegistry, worker: Worker, saved_models: Path):
    """Their elements have lengths of their own."""
    await publish(registry, SHOUT, saved_models / "shout")
    async with worker(runtimes={}) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(SHOUT)
        words = {n: [b"w%d" % n, b"", b"x" * n][: 1 + n % 3] for n in range(1, 40)}
        answers = await gateway.call(*(envelope(n, SHOUT, byte_strings("text", own)) for n, own in words.items()))

    for answer in answers:
        upper = [word.upper() for word in words[answer.id]]
        loud = next(output for output in answer.outputs if output.name == "loud")
        assert loud.datatype == int(Datatype.BYTES)
        assert loud.raw == byte_strings("", upper).raw
        assert values_of(answer, "length").tolist() == [len(word) for word in upper]


async def test_a_graph_s_own_error_is_told_to_its_caller_alone(
    registry: FakeRegistry, worker: Worker, saved_models: Path
):
    """Assertions in a graph fail the whole call; only the request at fault may hear of it."""
    await publish(registry, FUSSY, saved_models / "fussy")
    async with worker(runtimes={}) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        await gateway.ready(FUSSY)
        inputs = [np.full((1, 2), 5000.0 if n == 3 else n, "f4") for n in range(8)]
        answers = await gateway.call(*(envelope(n + 1, FUSSY, tensor("x", x)) for n, x in enumerate(inputs)))

    with pytest.raises(errors.ModelFailed, match="assertion failed"):
        values_of(answers[3])
    for n in (0, 1, 2, 4, 5, 6, 7):
        assert np.array_equal(values_of(answers[n]), inputs[n])


async def test_a_corrupt_saved_model_fails_with_its_file_named(
    registry: FakeRegistry, worker: Worker, saved_models: Path, tmp_path: Path
):
    """The upload was whole, the content is not a model: nothing crashes, and the publisher can see why."""
    files = {"saved_model.pb": (saved_models / "tiny" / "saved_model.pb").read_bytes()[:-100]}
    await registry.put(model_version(TINY, files), files)
    async with worker(runtimes={}) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        failed = await gateway.ready(TINY, pb.LOAD_STATE_FAILED)

    assert failed.error.message == "saved_model.pb cannot be parsed as a SavedModel"


async def test_a_version_whose_variables_have_no_values_never_becomes_ready(
    registry: FakeRegistry, worker: Worker, tensorflow_models: Path
):
    """Ready and failing every call is the worst of both; its publisher reads what to do instead."""
    await publish(registry, TINY, tensorflow_models / "hollow")
    async with worker(runtimes={}) as server, GatewaySide(f"127.0.0.1:{server.port}") as gateway:
        failed = await gateway.ready(TINY, pb.LOAD_STATE_FAILED)

    assert "Could not find variable never-set" in failed.error.message
    assert failed.error.message.endswith("export it with model.export(path)")
