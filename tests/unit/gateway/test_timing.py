"""Where the time went, as both doors and the Python client tell it."""

from __future__ import annotations

import pytest

from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_client.results import prediction_from
from inferway_gateway.doors import oip_messages, prediction_messages
from inferway_gateway.envelope import Prediction
from tests.unit.gateway.builders import envelope

REASONS = {
    tensor_pb2.DISPATCH_REASON_UNSPECIFIED: "",
    tensor_pb2.DISPATCH_REASON_FULL: "full",
    tensor_pb2.DISPATCH_REASON_IDLE: "idle",
    tensor_pb2.DISPATCH_REASON_DEADLINE: "deadline",
    tensor_pb2.DISPATCH_REASON_DELAY_BOUND: "delay bound",
    tensor_pb2.DISPATCH_REASON_UNBATCHED: "unbatched",
}


def prediction(reason: int = tensor_pb2.DISPATCH_REASON_FULL) -> Prediction:
    """One that waited 10 us in the gateway and 20 us in the worker, and was computed in 30 us with three others."""
    answer = worker_service_pb2.Answer()
    answer.timing.worker_wait_us, answer.timing.compute_us, answer.timing.batch_rows = 20, 30, 4
    answer.timing.dispatch_reason = tensor_pb2.DispatchReason.ValueType(reason)
    return Prediction(envelope(), answer, 10)


def test_the_open_inference_protocol_tells_it_in_parameters():
    """Triton's clients have no other place where it could stand."""
    response = oip_messages.to_response(oip.ModelInferRequest(model_name="echo"), prediction(), timing=True)

    told = {name: getattr(p, p.WhichOneof("parameter_choice") or "") for name, p in response.parameters.items()}
    assert told == {
        "inferway_prediction_id": "p",
        "inferway_version": "models/echo/versions/1",
        "inferway_arm": "v1",
        "inferway_gateway_queue_us": 10,
        "inferway_worker_wait_us": 20,
        "inferway_compute_us": 30,
        "inferway_batch_rows": 4,
        "inferway_dispatch_reason": "full",
    }


def test_nothing_is_told_that_was_not_asked_for():
    """Parameters cost bytes in every answer, and surprise clients that compare them."""
    response = oip_messages.to_response(oip.ModelInferRequest(model_name="echo"), prediction(), timing=False)

    assert not response.parameters


@pytest.mark.parametrize("reason", tensor_pb2.DispatchReason.values())
def test_both_doors_and_the_client_use_the_same_words(reason: int):
    """One who reads `inferway why` finds the reason of an answer there again; a new reason must get words."""
    triton = oip_messages.to_response(oip.ModelInferRequest(), prediction(reason), timing=True)
    own = prediction_from(prediction_messages.to_response("", prediction(reason), timing=True))

    assert own.timing is not None
    assert own.timing.dispatch_reason == REASONS[tensor_pb2.DispatchReason.ValueType(reason)]
    assert triton.parameters["inferway_dispatch_reason"].string_param == own.timing.dispatch_reason
    assert (own.timing.gateway_queue_seconds, own.timing.worker_wait_seconds) == (10e-6, 20e-6)
    assert (own.timing.compute_seconds, own.timing.batch_rows) == (30e-6, 4)


def test_a_reason_of_a_newer_server_is_no_error():
    """An old client must go on working."""
    newer = prediction()
    newer.answer.timing.dispatch_reason = 77  # type: ignore[misc] # as it comes off the wire

    own = prediction_from(prediction_messages.to_response("", newer, timing=True))
    assert own.timing is not None
    assert own.timing.dispatch_reason == ""
