"""A small request cannot make the gateway hold much or compute long."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping

import pytest

from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.prediction.v1 import prediction_service_pb2 as own
from inferway.worker.v1 import worker_service_pb2 as worker
from tests.fuzz.requests import link_frame, oip_request, prediction_request

INPUT_BYTES = 10 * 1024
MAX_MEMORY_FACTOR = 100
MAX_CPU_SECONDS = 0.1


def oip_tensor(**fields: object) -> bytes:
    request = oip.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", **fields)
    return b"\0" + request.SerializeToString()


def oip_many(count: int, **fields: object) -> bytes:
    request = oip.ModelInferRequest(model_name="echo", raw_input_contents=[b""] * count)
    for _ in range(count):
        request.inputs.add(**fields)
    return b"\0" + request.SerializeToString()


def own_many(count: int, **fields: object) -> bytes:
    request = own.PredictRequest()
    for _ in range(count):
        request.inputs.add(**fields)
    return b"\0" + request.SerializeToString()


def envelopes(count: int) -> bytes:
    frame = worker.LinkRequest()
    for number in range(count):
        frame.envelopes.envelopes.add(id=number)
    return b"\0" + frame.SerializeToString()


def typed(values: list[float]) -> oip.InferTensorContents:
    return oip.InferTensorContents(fp32_contents=values)


HOSTILE: Mapping[str, tuple[Callable[[bytes], None], bytes]] = {
    "a shape of very many elements": (oip_request, oip_tensor(shape=[2**62, 2**62], contents=typed([1.0]))),
    "a shape of very many dimensions": (oip_request, oip_tensor(shape=[1] * 9000)),
    "a shape of nothing, often": (oip_request, oip_tensor(shape=[2**40, 0, 2**40])),
    "very many inputs": (oip_request, oip_many(2000, name="x")),
    "very many inputs without a name": (oip_request, oip_many(4000)),
    "a long name": (oip_request, oip_many(1, name="x" * 10_000, datatype="FP32")),
    "a long datatype": (oip_request, oip_many(1, name="x", datatype="F" * 10_000)),
    "very many inputs at our own door": (prediction_request, own_many(4000)),
    "very many envelopes": (link_frame, envelopes(2500)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_ten_kilobytes_cost_neither_a_megabyte_nor_a_tenth_of_a_second(case: str) -> None:
    """Whoever may send a request may send a thousand."""
    target, data = HOSTILE[case]
    assert len(data) < 2 * INPUT_BYTES
    target(data)
    began = time.thread_time()
    target(data)
    cpu_seconds = time.thread_time() - began
    tracemalloc.start()
    try:
        target(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert cpu_seconds < MAX_CPU_SECONDS
    assert peak < MAX_MEMORY_FACTOR * INPUT_BYTES
