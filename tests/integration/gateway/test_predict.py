"""Unary predictions through the gateway's own door."""

from __future__ import annotations

from tests.integration.gateway.conftest import Bed
from tests.integration.gateway.requests import ROW, predict_request


async def test_a_prediction_comes_back_with_the_version_that_made_it(bed: Bed) -> None:
    """The whole way and back is the product."""
    response = await bed.stub.Predict(predict_request(id="a", timing_requested=True), timeout=5)

    assert response.id == "a"
    assert response.outputs[0].raw == ROW
    assert response.model_version == "models/echo/versions/1"
    assert response.prediction_id
    assert response.timing.compute_us == 5
