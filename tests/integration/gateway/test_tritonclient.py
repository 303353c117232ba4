"""tritonclient, unmodified and in the same process, against the gateway."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.gateway.conftest import Bed
from tests.integration.gateway.snapshots import BYTES, signature, spec, version

DATA = np.arange(8, dtype=np.float32).reshape(2, 4)


def input_of(array: np.ndarray, name: str = "x", datatype: str = "FP32") -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


async def in_thread(bed: Bed, work: Callable[[triton.InferenceServerClient], Any]) -> Any:
    """The client blocks, so it runs beside the event loop that the gateway runs on."""

    def call() -> Any:
        with triton.InferenceServerClient(bed.target) as client:
            return work(client)

    return await asyncio.to_thread(call)


async def test_the_server_and_its_models_say_that_they_are_ready(bed: Bed) -> None:
    """Load balancers and tools ask this first."""

    def work(client: triton.InferenceServerClient) -> tuple[bool, ...]:
        return (
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("echo"),
            client.is_model_ready("echo", "1"),
        )

    assert await in_thread(bed, work) == (True, True, True, True)


async def test_metadata_and_config_describe_the_signature(bed: Bed) -> None:
    """perf_analyzer builds its requests from these."""
    metadata = await in_thread(bed, lambda client: client.get_model_metadata("echo"))
    config = (await in_thread(bed, lambda client: client.get_model_config("echo"))).config
    server = await in_thread(bed, lambda client: client.get_server_metadata())

    assert (metadata.name, list(metadata.versions), metadata.platform) == ("echo", ["1"], "tensorflow_savedmodel")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [("y", "FP32", [-1, 4])]
    assert config.max_batch_size == 512
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 11, [4])]
    assert server.name == "inferway"


async def test_infer_returns_the_outputs_asked_for(bed: Bed) -> None:
    """The plainest use of all."""

    def work(client: triton.InferenceServerClient) -> triton.InferResult:
        return client.infer("echo", [input_of(DATA)], outputs=[triton.InferRequestedOutput("y")], request_id="7")

    result = await in_thread(bed, work)

    assert np.array_equal(result.as_numpy("y"), DATA)
    assert (result.get_response().id, result.get_response().model_version) == ("7", "1")


async def test_async_infer_calls_back(bed: Bed) -> None:
    """tritonclient's own asynchronous form."""

    def work(client: triton.InferenceServerClient) -> Any:
        answers: queue.Queue[Any] = queue.Queue()
        client.async_infer("echo", [input_of(DATA)], lambda result, error: answers.put((result, error)))
        return answers.get(timeout=5)

    result, error = await in_thread(bed, work)

    assert error is None
    assert np.array_equal(result.as_numpy("y"), DATA)


async def test_a_stream_answers_every_request_and_reports_errors_in_messages(bed: Bed) -> None:
    """An error on Triton's stream concerns one request and leaves the stream open."""

    def work(client: triton.InferenceServerClient) -> dict[str, Any]:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for index in range(20):
            client.async_stream_infer("echo", [input_of(DATA + index)], request_id=str(index))
        client.async_stream_infer("nobody", [input_of(DATA)], request_id="bad")
        got = [answers.get(timeout=5) for _ in range(21)]
        client.stop_stream()
        return {
            "errors": [str(error) for _, error in got if error],
            "arrays": {r.get_response().id: r.as_numpy("y") for r, error in got if not error},
        }

    got = await in_thread(bed, work)

    assert len(got["errors"]) == 1
    assert "nobody" in got["errors"][0]
    assert all(np.array_equal(got["arrays"][str(index)], DATA + index) for index in range(20))


async def test_a_stream_ends_with_a_real_status_when_the_client_wants_grpc_errors(bed: Bed) -> None:
    """`triton_grpc_error: true` is Triton's switch for it."""

    def work(client: triton.InferenceServerClient) -> Any:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
        client.async_stream_infer("nobody", [input_of(DATA)])
        _, error = answers.get(timeout=5)
        client.stop_stream()
        return error

    error = await in_thread(bed, work)

    assert "NOT_FOUND" in str(error.status())


async def test_the_only_answer_is_the_final_one_if_the_client_asks_for_finality(bed: Bed) -> None:
    """Clients of decoupled models count final responses."""

    def work(client: triton.InferenceServerClient) -> Any:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("echo", [input_of(DATA)], enable_empty_final_response=True)
        result, _ = answers.get(timeout=5)
        client.stop_stream()
        return result.get_response().parameters["triton_final_response"].bool_param

    assert await in_thread(bed, work) is True


async def test_statistics_and_index_tell_how_models_stand(bed: Bed) -> None:
    """Both are what dashboards are made of."""
    await in_thread(bed, lambda client: client.infer("echo", [input_of(DATA)]))
    statistics = await in_thread(bed, lambda client: client.get_inference_statistics("echo"))
    everything = await in_thread(bed, lambda client: client.get_inference_statistics())
    index = await in_thread(bed, lambda client: client.get_model_repository_index())

    assert statistics.model_stats[0].inference_stats.success.count == 1
    assert [(s.name, s.version) for s in everything.model_stats] == [("echo", "1")]
    assert [(m.name, m.version, m.state) for m in index.models] == [("echo", "1", "READY")]


async def test_strings_travel_both_ways(bed: Bed) -> None:
    """BYTES has its own layout, which tritonclient writes and reads."""
    text = signature(spec("s", (-1,), BYTES), outputs=[spec("y", (-1,), BYTES)])
    await bed.publish(version(1, signatures=[text]), revision=2)
    words = np.array([b"", b"caf\xc3\xa9"], dtype=object)

    def work(client: triton.InferenceServerClient) -> Any:
        return client.infer("echo", [input_of(words, "s", "BYTES")]).as_numpy("y")

    await bed.until_signature_has("s")
    assert list(await in_thread(bed, work)) == list(words)


async def test_errors_reach_the_client_with_their_status(bed: Bed) -> None:
    """tritonclient shows code and message of the status."""

    def work(client: triton.InferenceServerClient) -> Any:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("echo", [input_of(DATA[:, :3])])
        return caught.value

    error = await in_thread(bed, work)

    assert "INVALID_ARGUMENT" in str(error.status())
    assert "inputs[0].shape" in error.message()
