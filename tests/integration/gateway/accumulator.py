"""A stateful model for fake workers: `y` is the sum of every `x` of the session, and its state counts them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import Endpoint, StateBinding, StreamPolicy
from inferway.registry.v1.watch_service_pb2 import RoutedVersion
from inferway.type.v1.tensor_pb2 import DATA_TYPE_FP32, Tensor
from inferway.worker.v1.worker_service_pb2 import Envelope
from tests.integration.gateway.snapshots import endpoint, signature, spec, version

INITIAL = np.array([10, 0], "<f4")
"""The sum begins at ten, so that a lost initial state is seen."""


def accumulator(number: int = 1, *, wanted: bool = True, state_width: int = 2) -> RoutedVersion:
    """A version of model `sum`."""
    state = spec("state", (-1, state_width))
    whole = signature(state, spec("x", (-1, 1)), outputs=[spec("next_state", (-1, state_width)), spec("y", (-1, 1))])
    routed = version(number, "sum", [whole], wanted=wanted)
    routed.model_version.config.state.append(
        StateBinding(
            signature="serving_default",
            input="state",
            output="next_state",
            shape=[state_width],
            initial=np.resize(INITIAL, state_width).tobytes() if state_width > 1 else b"",
        )
    )
    return routed


def sum_endpoint(
    arms: Mapping[str, int] | None = None, policy: StreamPolicy.ValueType = StreamPolicy.STREAM_POLICY_UNSPECIFIED
) -> Endpoint:
    """The endpoint of `sum`; `arms` are weights by version name."""
    made = endpoint("sum", arms)
    made.stream_policy = policy
    return made


def accumulate(envelope: Envelope) -> Sequence[Tensor]:
    """What the model computes."""
    arrays = {t.name: np.frombuffer(t.raw, "<f4").reshape(t.shape) for t in envelope.inputs}
    following = arrays["state"].copy()
    following[:, :1] += arrays["x"]
    if following.shape[1] > 1:
        following[:, 1:] += 1
    outputs = {"next_state": following, "y": following[:, :1]}
    wanted = envelope.output_names or sorted(outputs)
    return [_tensor(name, outputs[name]) for name in wanted]


def number(value: float, rows: int = 1) -> Tensor:
    """An `x`."""
    return _tensor("x", np.full((rows, 1), value, "<f4"))


def item(item_id: int, value: float | None = None, rows: int = 1) -> pb.StreamPredictRequest:
    """An item that adds `value`, its own id by default."""
    inputs = [number(item_id if value is None else value, rows)]
    return pb.StreamPredictRequest(item=pb.StreamItem(id=item_id, inputs=inputs))


def sum_of(result: pb.StreamResult) -> float:
    """What an item was answered with; it has no other output."""
    [output] = result.prediction.outputs
    assert output.name == "y"
    return float(np.frombuffer(output.raw, "<f4")[0])


def _tensor(name: str, array: np.ndarray) -> Tensor:
    return Tensor(
        name=name, datatype=DATA_TYPE_FP32, shape=array.shape, raw=np.ascontiguousarray(array, "<f4").tobytes()
    )
