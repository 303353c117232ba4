"""A gateway for tests: the prediction service over a real socket, with Python functions as models.

    async with FakeGateway({"affine": FakeModel(AFFINE_IN, AFFINE_OUT, lambda x: {"y": 2 * x["x"] + 1})}) as gateway:
        async with Client(gateway.target) as client: ...

It checks requests and raises errors as the real one does: both pass the same suite. Streams to stateful models carry
sessions, and can be disturbed (see `Trouble`). It also answers the Open Inference Protocol's ModelMetadata, for
programs that ask what a model takes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Never, Self

import grpc
import numpy as np

from inferway import names
from inferway.datatypes import Datatype
from inferway.errors import (
    AliasNotFound,
    DatatypeMismatch,
    DuplicateInput,
    EndpointNotFound,
    InferwayError,
    InvalidBatch,
    MissingInput,
    SessionRequired,
    ShapeMismatch,
    UnknownInput,
    UnknownOutput,
    VersionNotFound,
)
from inferway.foreign.inference import grpc_service_pb2
from inferway.prediction.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from inferway.status import to_status
from inferway.type.v1 import tensor_pb2
from inferway_client.target import target_message
from inferway_client.tensors import Array, decode, dtype_of, encode
from inferway_client.testing_streams import FakeStream, FakeStreams, State, Trouble
from inferway_client.transport import STATUS_DETAILS

__all__ = ["FakeGateway", "FakeModel", "TensorSpec", "Trouble"]

OPEN_INFERENCE_SERVICE = "inference.GRPCInferenceService"
REQUESTS_KEPT = 1_000
TIMING = tensor_pb2.Timing(batch_rows=1, dispatch_reason=tensor_pb2.DISPATCH_REASON_IDLE)
"""Of every prediction that asks for it: nothing here ever waits."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Datatype and shape of an input; -1 is any size."""

    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FakeModel:
    """A model of which every version computes the same."""

    inputs: Mapping[str, TensorSpec]
    """What it takes."""
    output_names: tuple[str, ...]
    """What `compute` returns."""
    compute: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    """Outputs by name from inputs by name; an InferwayError that it raises is the answer."""
    versions: tuple[int, ...] = (1,)
    """Numbers; the endpoint sends its traffic to the last."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Versions by alias."""
    state: Mapping[str, str] = field(default_factory=dict)
    """Of a stateful model: inputs that carry a session's state, which begins as zeros, by the outputs that give the
    next one. `inputs` and `compute` have them, callers do not see them."""

    def initial_state(self, rows: int) -> State:
        """Zeros for so many rows."""
        specs = {name: self.inputs[name] for name in self.state.values()}
        return {name: np.zeros([rows, *spec.shape[1:]], dtype_of(spec.datatype)) for name, spec in specs.items()}


class FakeGateway:
    """Serves models by endpoint name, for use as `async with FakeGateway(models) as gateway`."""

    def __init__(self, models: Mapping[str, FakeModel]) -> None:
        """Takes the models; listens on a free port of the loopback interface once entered."""
        self._servicer = _PredictionServicer(models)
        self.target = ""
        """`host:port`, once entered."""

    @property
    def streams(self) -> FakeStreams:
        """What streams do, have done and shall suffer."""
        return self._servicer.streams

    @property
    def calls(self) -> deque[Mapping[str, str]]:
        """Metadata of the last thousand calls, oldest first."""
        return self._servicer.calls

    def fail_next(self, *errors: InferwayError) -> None:
        """Answers as many coming predictions with these errors, one each, in this order."""
        self._servicer.failures.extend(errors)

    async def __aenter__(self) -> Self:
        """Listens."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self._servicer, self._server)
        metadata = grpc.unary_unary_rpc_method_handler(
            self._servicer.model_metadata,
            grpc_service_pb2.ModelMetadataRequest.FromString,
            grpc_service_pb2.ModelMetadataResponse.SerializeToString,
        )
        open_inference = grpc.method_handlers_generic_handler(OPEN_INFERENCE_SERVICE, {"ModelMetadata": metadata})
        self._server.add_generic_rpc_handlers((open_inference,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cuts all calls."""
        await self._server.stop(None)


class _PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: Mapping[str, FakeModel]) -> None:
        self._models = models
        self._ids = itertools.count(1)
        self.streams = FakeStreams()
        self.failures: deque[InferwayError] = deque()
        self.calls: deque[Mapping[str, str]] = deque(maxlen=REQUESTS_KEPT)

    async def Predict(  # noqa: N802 - the name of the rpc
        self, request: prediction_service_pb2.PredictRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> prediction_service_pb2.PredictResponse:
        self._note(context)
        try:
            model, version = self._resolve(request.target)
            if model.state:
                raise SessionRequired("the model keeps state: it answers streams only")
            outputs, _ = self._compute(model, request.inputs, request.output_names)
        except InferwayError as error:
            await _abort(context, error)
        response = prediction_service_pb2.PredictResponse(
            id=request.id, model_version=version, outputs=outputs, prediction_id=self._next_id()
        )
        if request.timing_requested:
            response.timing.CopyFrom(TIMING)
        return response

    async def StreamPredict(  # noqa: N802 - the name of the rpc
        self,
        request_iterator: AsyncIterator[prediction_service_pb2.StreamPredictRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[prediction_service_pb2.StreamPredictResponse]:
        self._note(context)
        try:
            opening = (await anext(request_iterator)).open
            model, version = self._resolve(opening.target)

            def apply(
                item: prediction_service_pb2.StreamItem, state: State
            ) -> tuple[prediction_service_pb2.StreamPrediction, State]:
                outputs, next_state = self._compute(model, item.inputs, opening.output_names, state)
                return self._stream_prediction(version, outputs, timing=opening.timing_requested), next_state

            stream = FakeStream(self.streams, opening, version, apply, stateful=bool(model.state))
            async for response in stream.run(request_iterator):
                yield response
        except InferwayError as error:
            await _abort(context, error)

    async def model_metadata(
        self, request: grpc_service_pb2.ModelMetadataRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> grpc_service_pb2.ModelMetadataResponse:
        try:
            model, _ = self._resolve(_open_inference_target(request))
        except InferwayError as error:
            await _abort(context, error)
        response = grpc_service_pb2.ModelMetadataResponse(name=request.name, versions=map(str, model.versions))
        for name, spec in _public_inputs(model).items():
            response.inputs.add(name=name, datatype=spec.datatype.name, shape=spec.shape)
        return response

    def _stream_prediction(
        self, version: str, outputs: Iterable[tensor_pb2.Tensor], *, timing: bool
    ) -> prediction_service_pb2.StreamPrediction:
        prediction = prediction_service_pb2.StreamPrediction(
            model_version=version, outputs=outputs, prediction_id=self._next_id()
        )
        if timing:
            prediction.timing.CopyFrom(TIMING)
        return prediction

    def _resolve(self, target: prediction_service_pb2.Target) -> tuple[FakeModel, str]:
        names.check_segment(target.endpoint, "target.endpoint")
        model = self._models.get(target.endpoint)
        if model is None:
            raise EndpointNotFound(f"no endpoint {target.endpoint!r}", endpoint=target.endpoint)
        number = model.versions[-1]
        if target.HasField("alias"):
            number = _version_of_alias(model, target)
        elif target.HasField("version"):
            number = target.version
        if number not in model.versions:
            raise VersionNotFound(f"no version {number} of {target.endpoint!r}", model=target.endpoint, version=number)
        return model, names.version_name(target.endpoint, number)

    def _compute(
        self,
        model: FakeModel,
        inputs: Iterable[tensor_pb2.Tensor],
        output_names: Sequence[str],
        state: State | None = None,
    ) -> tuple[list[tensor_pb2.Tensor], State]:
        """Outputs, and the next state; `state` is empty before a session's first item."""
        if self.failures:
            raise self.failures.popleft()
        public = [name for name in model.output_names if name not in model.state]
        for name in output_names:
            if name not in public:
                raise UnknownOutput.at("output_names", f"no output {name!r}", output=name, signature="serving_default")
        arrays = _checked(model, inputs)
        rows = max((len(array) for array in arrays.values() if array.ndim), default=1)
        outputs = model.compute({**arrays, **(state or model.initial_state(rows))})
        answer = [encode(name, outputs[name]) for name in output_names or sorted(public)]
        return answer, {name: outputs[output] for output, name in model.state.items()}

    def _note(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.calls.append({key: str(value) for key, value in context.invocation_metadata() or ()})

    def _next_id(self) -> str:
        return f"fake-{next(self._ids)}"


def _open_inference_target(request: grpc_service_pb2.ModelMetadataRequest) -> prediction_service_pb2.Target:
    if not request.version:
        return target_message(request.name, None, "")
    version = int(request.version) if request.version.isdecimal() else request.version
    return target_message(request.name, version, "")


def _version_of_alias(model: FakeModel, target: prediction_service_pb2.Target) -> int:
    if target.alias not in model.aliases:
        raise AliasNotFound(f"no alias {target.alias!r}", model=target.endpoint, alias=target.alias)
    return model.aliases[target.alias]


def _public_inputs(model: FakeModel) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in model.inputs.items() if name not in model.state.values()}


def _checked(model: FakeModel, inputs: Iterable[tensor_pb2.Tensor]) -> dict[str, Array]:
    specs, arrays = _public_inputs(model), dict[str, Array]()
    for index, tensor in enumerate(inputs):
        field_name = f"inputs[{index}]"
        if tensor.name not in specs:
            raise UnknownInput.at(field_name, f"no input {tensor.name!r}", input=tensor.name)
        if tensor.name in arrays:
            raise DuplicateInput.at(field_name, f"{tensor.name!r} is there twice", input=tensor.name)
        _check_tensor(tensor, specs[tensor.name], field_name)
        arrays[tensor.name] = decode(tensor)
    for name in sorted(specs.keys() - arrays.keys()):
        raise MissingInput.at("inputs", f"{name!r} is missing", input=name)
    return arrays


def _check_tensor(tensor: tensor_pb2.Tensor, spec: TensorSpec, field_name: str) -> None:
    if int(tensor.datatype) != int(spec.datatype):
        actual = tensor_pb2.DataType.Name(tensor.datatype).removeprefix("DATA_TYPE_")
        raise DatatypeMismatch.at(
            f"{field_name}.datatype",
            f"{tensor.name!r} is {spec.datatype.name}, not {actual}",
            input=tensor.name,
            expected=spec.datatype.name,
            actual=actual,
        )
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape) or any(
        want not in (-1, have) for want, have in zip(spec.shape, shape, strict=True)
    ):
        raise ShapeMismatch.at(
            f"{field_name}.shape",
            f"{tensor.name!r} takes {list(spec.shape)}, not {list(shape)}",
            input=tensor.name,
            expected=spec.shape,
            actual=shape,
        )
    if spec.shape[:1] == (-1,) and shape[0] == 0:
        raise InvalidBatch.at(f"{field_name}.shape", "a batch has at least one row")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: InferwayError) -> Never:
    details = to_status(error).SerializeToString()
    await context.abort(grpc.StatusCode[error.code], error.message, ((STATUS_DETAILS, details),))
