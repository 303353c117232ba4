"""The door for `inference.GRPCInferenceService`: the Open Inference Protocol and Triton's extensions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from inferway.foreign.inference import grpc_service_pb2 as pb
from inferway_chassis.observing import Head
from inferway_chassis.pipeline import Started
from inferway_chassis.transport import seconds_left
from inferway_gateway.doors import oip_models
from inferway_gateway.doors.call import Context, TimeLimits, answer_metadata, caller, has_flag
from inferway_gateway.doors.oip_messages import InferParameters, outputs_of, parameters_of, selector_of, tensors_of
from inferway_gateway.doors.oip_messages import to_response as to_infer_response
from inferway_gateway.doors.oip_stream import OipStream, Submitted
from inferway_gateway.doors.results import Pending
from inferway_gateway.envelope import Ask, Caller, Prediction
from inferway_gateway.fleet import Fleet
from inferway_gateway.models import Models
from inferway_gateway.predictor import Predictor
from inferway_gateway.sessions.sequences import Sequences

PUBLIC_NAME = "inference.GRPCInferenceService"
"""The service on the wire; the descriptor's own name is private, see protos/inference."""


class OipServicer:
    """Converts, calls the predictor or asks the models, converts."""

    def __init__(
        self,
        predictor: Predictor,
        sequences: Sequences,
        models: Models,
        fleet: Fleet,
        time_limits: TimeLimits,
        server_version: str,
    ) -> None:
        """`server_version` is told to clients."""
        self._predictor, self._sequences, self._time_limits = predictor, sequences, time_limits
        self._models, self._fleet = models, fleet
        self._server_version = server_version

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        """The process answers."""
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        """There is a snapshot to route by."""
        del request, context
        return pb.ServerReadyResponse(ready=self._models.synchronised)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether the endpoint, or the version named, can answer now."""
        del context
        return pb.ModelReadyResponse(ready=self._models.is_ready(selector_of(request.name, request.version)))

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Name, version, and the extensions that are served in full."""
        del request, context
        return pb.ServerMetadataResponse(
            name="inferway", version=self._server_version, extensions=oip_models.EXTENSIONS
        )

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Versions, inputs and outputs."""
        del context
        return oip_models.to_metadata(request.name, self._models.describe(selector_of(request.name, request.version)))

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """The model as Triton would configure it."""
        del context
        description = self._models.describe(selector_of(request.name, request.version))
        return oip_models.to_config(request.name, description, self._sequences.limits)

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Counters of all workers, summed."""
        del context
        versions = self._models.versions(selector_of(request.name, request.version) if request.name else None)
        return oip_models.to_statistics(versions, await self._fleet.statuses())

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """Every version and how it stands."""
        del context
        return oip_models.to_index(self._models.index(), ready_only=request.ready)

    def ModelInfer(self, request: pb.ModelInferRequest, head: Head) -> Started[Prediction]:  # noqa: N802
        """One inference."""
        parameters = parameters_of(request)
        seconds = self._time_limits.bounded(seconds_left(head))
        ask = _ask(request, parameters, seconds, caller(head))
        result, abandon, metadata = self._begin(ask, parameters)
        to_response = partial(to_infer_response, request, timing=parameters.timing)
        return Started(result, to_response, abandon, metadata)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Inferences over a stream."""
        called_by = caller(context)

        def submit(request: pb.ModelInferRequest) -> Submitted:
            parameters = parameters_of(request)
            ask = _ask(request, parameters, self._time_limits.bounded(None), called_by)
            return Submitted(parameters, self._begin(ask, parameters))

        stream = OipStream(submit, grpc_errors=has_flag(context, "triton_grpc_error"))
        async with aclosing(stream.run(requests)) as responses:
            async for response in responses:
                yield response

    def _begin(self, ask: Ask, parameters: InferParameters) -> Pending:
        if parameters.correlation is not None:
            turn = self._sequences.submit(ask, parameters.correlation)
            if turn is not None:
                return Pending(turn.result, turn.abandon)
        flight = self._predictor.submit(ask)
        return Pending(flight.result, partial(self._predictor.abandon, flight), answer_metadata(flight.envelope))


def _ask(request: pb.ModelInferRequest, parameters: InferParameters, seconds: float, called_by: Caller) -> Ask:
    inputs, field_names = tensors_of(request)
    if parameters.timeout_seconds is not None:
        seconds = min(seconds, parameters.timeout_seconds)
    if parameters.criticality is not None:
        called_by = called_by._replace(criticality=parameters.criticality)
    return Ask(
        selector=selector_of(request.model_name, request.model_version, parameters.signature),
        inputs=inputs,
        outputs=outputs_of(request.outputs),
        unit=parameters.affinity_key or called_by.affinity_key,
        timeout_seconds=seconds,
        caller=called_by,
        field_names=field_names,
    )
