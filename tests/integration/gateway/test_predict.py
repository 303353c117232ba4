"""Unary predictions through the gateway's own door."""

from __future__ import annotations

import struct

from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.type.v1.tensor_pb2 import DATA_TYPE_FP32, Tensor
from tests.integration.gateway.conftest import Bed

ROW = struct.pack("<4f", 1, 2, 3, 4)


def request(**changes: object) -> pb.PredictRequest:
    return pb.PredictRequest(
        **{
            "target": pb.Target(endpoint="echo"),
            "inputs": [Tensor(name="x", datatype=DATA_TYPE_FP32, shape=[1, 4], raw=ROW)],
        }
        | changes
    )


async def test_a_prediction_comes_back_with_the_version_that_made_it(bed: Bed) -> None:
    """The whole way and back is the product."""
    response = await bed.stub.Predict(request(id="a", timing_requested=True), timeout=5)

    assert response.id == "a"
    assert response.outputs[0].raw == ROW
    assert response.model_version == "models/echo/versions/1"
    assert response.prediction_id
    assert response.timing.compute_us == 5
