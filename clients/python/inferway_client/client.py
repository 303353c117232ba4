"""The client: one channel to a gateway or several, predictions and streams over it.

predict → encode → span → throttle → retries → one call → decode, and nothing else on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType
from typing import Self

import grpc

from inferway.prediction.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from inferway_client.reconnecting import ReconnectPolicy
from inferway_client.results import Prediction, prediction_from
from inferway_client.retries import Retrier, RetryPolicy
from inferway_client.stream import PredictionStream
from inferway_client.target import Version, target_message
from inferway_client.tensors import Arrays, encode_all
from inferway_client.throttle import Throttles
from inferway_client.timeouts import bounded
from inferway_client.tracing import Metadata, client_span
from inferway_client.transport import open_channel, translated_errors

DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
RECONNECT = ReconnectPolicy()
RESULTS_PER_MESSAGE = 256
"""Of a stream; the server never waits to fill one."""


class Criticality(StrEnum):
    """How much a client's requests matter when not all can be served; a refusal starts with the last of these."""

    CRITICAL_PLUS = "critical-plus"
    CRITICAL = "critical"
    SHEDDABLE_PLUS = "sheddable-plus"
    SHEDDABLE = "sheddable"


_MULTIPLIERS = {
    Criticality.CRITICAL_PLUS: 2.0,
    Criticality.CRITICAL: 2.0,
    Criticality.SHEDDABLE_PLUS: 1.1,
    Criticality.SHEDDABLE: 1.1,
}
"""K of the throttle."""


class Client:
    """A connection to an inferway gateway, for use as `async with Client(target) as client`.

    One client serves any number of tasks of one event loop. Errors are those of `inferway.errors`: a server's arrive
    as it raised them; `Unreachable` and `DeadlineExceeded` also come from the connection itself.
    """

    def __init__(  # noqa: PLR0913 - keyword options
        self,
        target: str = "127.0.0.1:8001",
        *,
        timeout: float = 10.0,
        retries: RetryPolicy | None = None,
        criticality: Criticality = Criticality.CRITICAL,
        tenant: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """Remembers where and how; nothing is opened before `async with`.

        Args:
            target: `host:port` of the gateway. Several gateways that serve the same: their IP addresses and ports
                with commas between, or `dns:///name:port` for all addresses of a name. Calls go to them in turn, and
                one that goes away costs none.
            timeout: Seconds that a call may take, its retries included, unless the call says otherwise; above 0, and
                a day at most.
            retries: When calls are repeated; the default is three attempts where the server permits it.
            criticality: How much the requests of this client matter. It also decides how early calls are held back
                here when an endpoint refuses them.
            tenant: For whom they are.
            credentials: TLS; plaintext if None.
            max_message_bytes: Longest message in either direction.

        Raises ValueError for a timeout that is not above 0.
        """
        self._target = target
        self._timeout_seconds = bounded(timeout)
        self._retrier = Retrier(retries or RetryPolicy())
        self._throttles = Throttles(_MULTIPLIERS[criticality])
        self._metadata = _caller_metadata(criticality, tenant)
        self._credentials = credentials
        self._max_message_bytes = max_message_bytes
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Opens the channel; the connection itself is made by the first call."""
        self._channel = open_channel(self._target, self._max_message_bytes, self._credentials)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the channel; calls in progress are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def predict(  # noqa: PLR0913 - keyword options
        self,
        endpoint: str,
        inputs: Arrays,
        *,
        version: Version = None,
        signature: str = "",
        output_names: Sequence[str] = (),
        timeout: float | None = None,
        request_id: str = "",
        affinity_key: str = "",
        timing: bool = False,
        traceparent: str | None = None,
    ) -> Prediction:
        """Asks for one prediction.

        Args:
            endpoint: Endpoint, which for most is the model's name.
            inputs: Arrays by input name, with the signature's dtypes and shapes, batch dimension first.
            version: A version number or alias of the model with the endpoint's name; None lets the endpoint choose.
            signature: Name of the signature; `serving_default` if empty.
            output_names: Outputs to return; all if empty.
            timeout: Seconds for the whole call, retries included; the client's default if None.
            request_id: Echoed by the server into logs and answers; at most 256 bytes.
            affinity_key: What traffic is split by: equal keys go to the same arm of the endpoint.
            timing: Asks where the time went: `Prediction.timing`.
            traceparent: W3C trace context to continue; OpenTelemetry's current span if None.

        Raises:
            ValueError: The timeout is not above 0.
            InvalidRequest: The request does not fit the model; the message names the field.
            NotFound: No such endpoint, version or alias.
            FailedPrecondition: The version is unloaded, or could not be loaded.
            Overloaded, Unavailable: Still so after the retries. Throttled, an Overloaded, if it was not even sent.
            DeadlineExceeded: The timeout passed.
            Internal: The model failed on this input, or inferway did.
        """
        request = prediction_service_pb2.PredictRequest(
            target=target_message(endpoint, version, signature),
            inputs=encode_all(inputs),
            output_names=output_names,
            id=request_id,
            affinity_key=affinity_key,
            timing_requested=timing,
        )
        with client_span("Predict", endpoint, traceparent) as trace_context:
            return prediction_from(await self._predict(request, timeout, trace_context))

    def stream(  # noqa: PLR0913 - keyword options
        self,
        endpoint: str,
        *,
        version: Version = None,
        signature: str = "",
        output_names: Sequence[str] = (),
        ordered: bool = False,
        max_in_flight: int = 0,
        timeout: float | None = None,
        affinity_key: str = "",
        timing: bool = False,
        traceparent: str | None = None,
        reconnect: ReconnectPolicy | None = RECONNECT,
        resume_token: str = "",
        acknowledged_item: int = 0,
    ) -> PredictionStream:
        """Returns a stream of predictions, for use as `async with client.stream(endpoint) as stream`.

        Args:
            endpoint: As in `predict`; so are `version`, `signature`, `output_names`, `affinity_key`, `timing`.
            version: See `predict`.
            signature: See `predict`.
            output_names: See `predict`.
            ordered: Results come in the order of the items; otherwise as they are completed.
            max_in_flight: Items sent whose results were not taken yet; the server may permit fewer, and 0 lets it
                choose. `send` waits at the limit.
            timeout: Seconds for each item, and for opening the stream; the client's default if None.
            affinity_key: See `predict`.
            timing: See `predict`.
            traceparent: See `predict`.
            reconnect: How the stream survives the loss of its connection. None: it ends with that, and so does its
                session if the model is stateful.
            resume_token: Goes on with a session, whose `PredictionStream.resume_token` this was. Everything else must
                be as it was in its first stream.
            acknowledged_item: Its `taken_item`; results after that come again.
        """
        opening = prediction_service_pb2.StreamOpen(
            target=target_message(endpoint, version, signature),
            order=prediction_service_pb2.RESULT_ORDER_ORDERED
            if ordered
            else prediction_service_pb2.RESULT_ORDER_AS_COMPLETED,
            max_in_flight=max_in_flight,
            output_names=output_names,
            affinity_key=affinity_key,
            timing_requested=timing,
            acknowledges_results=reconnect is not None or bool(resume_token),
            max_results_per_message=RESULTS_PER_MESSAGE,
        )
        if resume_token:
            opening.resume.token, opening.resume.acknowledged_item = resume_token, acknowledged_item
        return PredictionStream(
            self._stub,
            self._target,
            opening,
            metadata=self._metadata,
            timeout_seconds=self._seconds(timeout),
            max_message_bytes=self._max_message_bytes,
            traceparent=traceparent,
            reconnect=reconnect,
            retrier=self._retrier,
        )

    async def _predict(
        self, request: prediction_service_pb2.PredictRequest, timeout: float | None, trace_context: Metadata
    ) -> prediction_service_pb2.PredictResponse:
        metadata, throttle = self._metadata + trace_context, self._throttles.of(request.target.endpoint)
        throttle.admit()

        async def attempt(seconds_left: float) -> prediction_service_pb2.PredictResponse:
            with throttle.sending(), translated_errors(self._target):
                return await self._stub.Predict(request, timeout=seconds_left, metadata=metadata)

        return await self._retrier.run(attempt, self._seconds(timeout))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout_seconds if timeout is None else bounded(timeout)


def _caller_metadata(criticality: Criticality, tenant: str) -> Metadata:
    caller = (("x-criticality", criticality.value),)
    return (*caller, ("x-tenant", tenant)) if tenant else caller
