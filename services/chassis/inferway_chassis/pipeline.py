"""What happens around every rpc of every service, folded once when a service is added: observe, then encode errors.

    transport → observe (metrics, span) → parse → servicer method → serialise
                  ▲ errors become statuses here and nowhere else

Servicers raise `InferwayError`s; anything else they raise is logged under its trace and leaves as INTERNAL with no
text of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio
from opentelemetry import trace

from inferway.errors import Cancelled, Draining, InferwayError, Internal, MalformedMessage
from inferway.status import to_status
from inferway_chassis.rpc_metrics import RpcCounts, RpcMetrics
from inferway_chassis.telemetry import LATENCY_BUCKETS_SECONDS, Telemetry, extract

_LOG = logging.getLogger(__name__)
_CODES = {code.name: code for code in grpc.StatusCode}

Context = aio.ServicerContext[Any, Any]
Servicer = Callable[[Any, Context], Any]
Parse = Callable[[bytes], Message]


class RpcStatus(grpc.Status):
    """An error in the form in which grpc ends a call: code, message, and details in the trailing metadata."""

    def __init__(self, error: InferwayError) -> None:
        """Encodes `error`; RetryInfo is repeated as grpc's own pushback header."""
        self.code = _CODES[error.code]
        self.details = error.message
        metadata: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", to_status(error).SerializeToString()),
        ]
        if error.retry_after_seconds is not None:
            metadata.append(("grpc-retry-pushback-ms", str(int(error.retry_after_seconds * 1000))))
        self.trailing_metadata = tuple(metadata)


class Pipeline:
    """Wraps servicer methods. One for each server."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Registers the metrics of all rpcs."""
        self._telemetry = telemetry
        self._metrics = RpcMetrics(LATENCY_BUCKETS_SECONDS)
        telemetry.registry.register(self._metrics)
        self.refusing = False
        """New calls are refused: the server is about to stop."""

    def unary_response(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, *, streams: bool
    ) -> Servicer:
        """Wraps a method that returns one message; `streams` if its request is a stream."""
        observe = self._observer(service, method)
        read = _parse_stream if streams else _parse_one

        async def handle(request: Any, context: Context) -> Message:
            with observe(context) as observed:
                try:
                    self._refuse_if_stopping()
                    response: Message = await behaviour(read(parse, request), context)
                except Exception as error:  # noqa: BLE001 - the one place where all errors end
                    failure = observed.failed(error)
                else:
                    return response
            await context.abort_with_status(RpcStatus(failure))
            raise AssertionError  # abort_with_status raises

        return handle

    def stream_response(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, *, streams: bool
    ) -> Servicer:
        """Wraps a method that yields messages; `streams` if its request is a stream."""
        observe = self._observer(service, method)
        read = _parse_stream if streams else _parse_one

        async def handle(request: Any, context: Context) -> AsyncIterator[Message]:
            with observe(context) as observed:
                try:
                    self._refuse_if_stopping()
                    async for response in behaviour(read(parse, request), context):
                        yield response
                except Exception as error:  # noqa: BLE001 - the one place where all errors end
                    failure = observed.failed(error)
                else:
                    return
            await context.abort_with_status(RpcStatus(failure))

        return handle

    def _refuse_if_stopping(self) -> None:
        if self.refusing:
            raise Draining("the server is shutting down; go elsewhere, or try again in a moment")

    def _observer(self, service: str, method: str) -> Callable[[Context], _Observed]:
        counts = self._metrics.of(service, method)
        start_span = _span_starter(self._telemetry, service, method)
        return lambda context: _Observed(counts, start_span(context))


def _span_starter(
    telemetry: Telemetry, service: str, method: str
) -> Callable[[Context], AbstractContextManager[Any] | None]:
    """Returns what makes the span of one rpc, or None for an rpc that is not traced."""
    tracer, should_trace = telemetry.tracer, telemetry.should_trace
    name = f"{service.rpartition('.')[2]}/{method}"
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

    def start(context: Context) -> AbstractContextManager[Any] | None:
        traceparent = tracestate = None
        for key, value in context.invocation_metadata() or ():
            if key == "traceparent":
                traceparent = str(value)
            elif key == "tracestate":
                tracestate = str(value)
        if not should_trace(traceparent):
            return None
        return tracer.start_as_current_span(
            name,
            context=extract(traceparent, tracestate or "") if traceparent else None,
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )

    return start


class _Observed:
    """One rpc under observation: counts it and closes its span, however it ends."""

    __slots__ = ("_code", "_counts", "_span", "_started")

    def __init__(self, counts: RpcCounts, span: AbstractContextManager[Any] | None) -> None:
        self._counts, self._span, self._code = counts, span, "OK"

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._counts.active += 1
        if self._span is not None:
            self._span.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = Cancelled.code
        if self._span is not None:
            self._close(self._span)
        self._counts.ended(self._code, time.perf_counter() - self._started)

    def failed(self, error: Exception) -> InferwayError:
        """Notes the failure and returns what the caller may know of it."""
        if not isinstance(error, InferwayError):
            _LOG.error("unexpected error in an rpc", exc_info=error)
            error = Internal("internal error; the server's log has the cause under this trace id")
        if self._span is not None:
            trace.get_current_span().set_attribute("inferway.error_reason", error.reason)
        self._code = error.code
        return error

    def _close(self, manager: AbstractContextManager[Any]) -> None:
        if self._code != "OK":
            span = trace.get_current_span()
            span.set_attribute("rpc.grpc.status_code", self._code)
            span.set_status(trace.StatusCode.ERROR, self._code)
        manager.__exit__(None, None, None)


def _parse_one(parse: Parse, data: bytes) -> Message:
    try:
        return parse(data)
    except DecodeError as error:
        message = "the request is not a valid protobuf message of this method's type"
        raise MalformedMessage(message) from error


async def _parse_stream(parse: Parse, requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in requests:
        yield _parse_one(parse, data)
