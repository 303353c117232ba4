"""`tritonclient.grpc` from the package index, unmodified, in the same process as our own generated code."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.testbed.processes import ServiceProcess

ROWS = np.random.default_rng(1).normal(size=(5, 32)).astype("f4")


@pytest.fixture
def client(gateway: ServiceProcess) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(gateway.target)
    yield client
    client.close()


def perceptron(saved_models: Path, rows: np.ndarray) -> np.ndarray:
    """The tiny model in NumPy."""
    weights = np.load(saved_models / "tiny.npz")
    hidden = np.maximum(rows @ weights["w0"] + weights["b0"], 0)
    return np.asarray(hidden @ weights["w1"] + weights["b1"])


def image_input(rows: np.ndarray) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


def test_the_server_says_that_it_lives_and_is_ready(client: triton.InferenceServerClient) -> None:
    """The first calls of every Triton user."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata().name == "inferway"


def test_metadata_and_config_describe_the_signature(client: triton.InferenceServerClient) -> None:
    """Tools such as perf_analyzer build their requests from these."""
    metadata = client.get_model_metadata("tiny")
    config = client.get_model_config("tiny").config

    assert [(x.name, x.datatype, list(x.shape)) for x in metadata.inputs] == [("x", "FP32", [-1, 32])]
    assert [(y.name, y.datatype, list(y.shape)) for y in metadata.outputs] == [("y", "FP32", [-1, 1])]
    assert config.max_batch_size > 0
    assert list(config.input[0].dims) == [32]


def test_infer_answers_as_numpy_does(client: triton.InferenceServerClient, saved_models: Path) -> None:
    """The one thing that must be right."""
    result = client.infer("tiny", image_input(ROWS), request_id="abc")

    np.testing.assert_allclose(result.as_numpy("y"), perceptron(saved_models, ROWS), rtol=1e-4, atol=1e-5)
    assert result.get_response().id == "abc"
    assert result.get_response().model_version == "1"


def test_async_infer_answers_each_caller_with_its_own_rows(
    client: triton.InferenceServerClient, saved_models: Path
) -> None:
    """Requests of different sizes share batches and must come apart again."""
    done: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    rows = np.random.default_rng(2).normal(size=(200, 32)).astype("f4")
    slices = [rows[start : start + 1 + start % 7] for start in range(0, 190, 3)]
    for number, part in enumerate(slices):
        client.async_infer("tiny", image_input(part), lambda result, error, n=number: done.put((n, result, error)))

    for _ in slices:
        number, result, error = done.get(timeout=30)
        assert error is None
        expected = perceptron(saved_models, slices[number])
        np.testing.assert_allclose(result.as_numpy("y"), expected, rtol=1e-4, atol=1e-5)


def test_a_stream_answers_every_request_and_reports_errors_in_place(
    client: triton.InferenceServerClient, saved_models: Path
) -> None:
    """A bad request on a stream must not end it."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        client.async_stream_infer("tiny", image_input(ROWS[number % 5 : number % 5 + 1]), request_id=str(number))
    client.async_stream_infer("nothing", image_input(ROWS), request_id="bad")
    client.async_stream_infer("tiny", image_input(ROWS), request_id="last")
    got = [answers.get(timeout=30) for _ in range(22)]
    client.stop_stream()

    results = {result.get_response().id: result.as_numpy("y") for result, error in got if error is None}
    failures = [str(error) for _, error in got if error is not None]
    expected = perceptron(saved_models, ROWS)
    assert len(results) == 21
    for number in range(20):
        np.testing.assert_allclose(results[str(number)], expected[number % 5 : number % 5 + 1], rtol=1e-4, atol=1e-5)
    assert len(failures) == 1
    assert "nothing" in failures[0]


def test_strings_go_in_and_out(client: triton.InferenceServerClient) -> None:
    """BYTES have lengths of their own."""
    words = np.array([b"ab", "grüße".encode(), b""], dtype=np.object_)
    tensor = triton.InferInput("text", [3], "BYTES")
    tensor.set_data_from_numpy(words)
    result = client.infer("shout", [tensor])

    assert result.as_numpy("loud").tolist()[0] == b"AB"
    assert result.as_numpy("length").tolist() == [2, len("grüße".encode()), 0]


def test_only_requested_outputs_come_back(client: triton.InferenceServerClient) -> None:
    """Bandwidth is the caller's to decide."""
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], dtype=np.object_))
    response = client.infer("shout", [tensor], outputs=[triton.InferRequestedOutput("length")]).get_response()

    assert [output.name for output in response.outputs] == ["length"]


def test_several_inputs_of_different_datatypes_work(client: triton.InferenceServerClient) -> None:
    """FP16 and BOOL have no typed contents of their own; order of inputs is the caller's."""
    inputs = {
        "c": ("BOOL", np.array([True, False])),
        "a": ("INT64", np.array([1, 2], dtype="i8")),
        "b": ("FP16", np.array([[0.5, 1], [2, 3]], dtype="f2")),
    }
    tensors = []
    for name, (datatype, values) in inputs.items():
        tensors.append(triton.InferInput(name, list(values.shape), datatype))
        tensors[-1].set_data_from_numpy(values)

    assert client.infer("mixed", tensors).as_numpy("total").tolist() == [3.5, 7.0]


def test_statistics_count_inferences_and_batches(client: triton.InferenceServerClient) -> None:
    """Perf_analyzer computes queue and compute times from the difference of two readings."""
    before = client.get_inference_statistics("tiny").model_stats[0]
    for _ in range(3):
        client.infer("tiny", image_input(ROWS))
    after = client.get_inference_statistics("tiny").model_stats[0]

    assert after.inference_count - before.inference_count == 15
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns


def test_the_index_lists_every_model_with_its_state(client: triton.InferenceServerClient) -> None:
    """What is there, and whether it can be called."""
    index = {(model.name, model.version): model.state for model in client.get_model_repository_index().models}

    assert index["tiny", "1"] == "READY"


def test_an_error_has_the_status_and_text_of_the_cause(client: triton.InferenceServerClient) -> None:
    """Triton's client shows code and message to its user."""
    with pytest.raises(triton.InferenceServerException) as failed:
        client.infer("tiny", image_input(ROWS[:, :31]))

    assert failed.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "inputs[0]" in failed.value.message()


@pytest.mark.parametrize("ids", [range(1, 31), [f"vehicle {number}" for number in range(30)]], ids=["int", "string"])
def test_sequences_keep_their_own_sums_while_they_share_batches(
    client: triton.InferenceServerClient, ids: Sequence[int | str]
) -> None:
    """State by `sequence_id`, as a user of Triton's stateful models writes it: start, items, end."""
    values = np.random.default_rng(3).integers(0, 100, (len(ids), 8)).astype("f4")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for step, (place, name) in itertools.product(range(8), enumerate(ids)):
        tensor = triton.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(values[place : place + 1, step : step + 1])
        flags = {"sequence_start": step == 0, "sequence_end": step == 7}
        client.async_stream_infer("accumulator", [tensor], request_id=f"{place}/{step}", sequence_id=name, **flags)
    got = [answers.get(timeout=30) for _ in range(values.size)]
    client.stop_stream()

    assert [error for _, error in got if error is not None] == []
    sums = {result.get_response().id: float(result.as_numpy("y")[0, 0]) for result, _ in got}
    expected = np.cumsum(values, axis=1)
    assert sums == {f"{place}/{step}": expected[place, step] for place, step in np.ndindex(values.shape)}


def test_a_sequence_must_start_and_shows_no_state(client: triton.InferenceServerClient) -> None:
    """Triton's words for an id that nobody started, and metadata of what callers send and get."""
    metadata = client.get_model_metadata("accumulator")
    tensor = triton.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), dtype="f4"))
    with pytest.raises(triton.InferenceServerException) as failed:
        client.infer("accumulator", [tensor], sequence_id="nobody")

    assert "must specify the START flag on the first request of the sequence" in failed.value.message()
    assert ([x.name for x in metadata.inputs], [y.name for y in metadata.outputs]) == (["x"], ["y"])
