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
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio
from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram

from inferway.errors import Cancelled, InferwayError, Internal, MalformedMessage
from inferway.status import to_status
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
        registry = telemetry.registry
        self._requests = Counter(
            "inferway_rpc_requests", "Rpcs ended, by status code.", ["service", "method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "inferway_rpc_duration_seconds",
            "From receipt of an rpc to its end.",
            ["service", "method"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self._active = Gauge("inferway_rpc_active", "Rpcs in progress.", ["service", "method"], registry=registry)

    def unary_response(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, *, streams: bool
    ) -> Servicer:
        """Wraps a method that returns one message; `streams` if its request is a stream."""
        observe = self._observer(service, method)
        read = _parse_stream if streams else _parse_one

        async def handle(request: Any, context: Context) -> Message:
            with observe(context) as observed:
                try:
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
                    async for response in behaviour(read(parse, request), context):
                        yield response
                except Exception as error:  # noqa: BLE001 - the one place where all errors end
                    failure = observed.failed(error)
                else:
                    return
            await context.abort_with_status(RpcStatus(failure))

        return handle

    def _observer(self, service: str, method: str) -> Callable[[Context], _Observed]:
        active = self._active.labels(service, method)
        seconds = self._seconds.labels(service, method)
        counters = {name: self._requests.labels(service, method, name) for name in _CODES}
        tracer, should_trace = self._telemetry.tracer, self._telemetry.should_trace
        name = f"{service.rpartition('.')[2]}/{method}"

        def span(context: Context) -> AbstractContextManager[Any]:
            traceparent = tracestate = None
            for key, value in context.invocation_metadata() or ():
                if key == "traceparent":
                    traceparent = str(value)
                elif key == "tracestate":
                    tracestate = str(value)
            if not should_trace(traceparent):
                return nullcontext()
            parent = extract(traceparent, tracestate or "") if traceparent else None
            return tracer.start_as_current_span(
                name,
                context=parent,
                kind=trace.SpanKind.SERVER,
                attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
                record_exception=False,
                set_status_on_exception=False,
            )

        return lambda context: _Observed(span(context), active, seconds, counters)


class _Observed:
    """One rpc under observation: counts it and closes its span, however it ends."""

    __slots__ = ("_active", "_code", "_counters", "_seconds", "_span", "_started")

    def __init__(
        self, span: AbstractContextManager[Any], active: Gauge, seconds: Histogram, counters: dict[str, Counter]
    ) -> None:
        self._span, self._active, self._seconds, self._counters = span, active, seconds, counters
        self._code = "OK"

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._active.inc()
        self._span.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: object) -> None:
        if self._code == "OK" and kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = Cancelled.code
        if self._code != "OK":
            span = trace.get_current_span()
            span.set_attribute("rpc.grpc.status_code", self._code)
            span.set_status(trace.StatusCode.ERROR, self._code)
        self._span.__exit__(None, None, None)
        self._active.dec()
        self._counters[self._code].inc()
        self._seconds.observe(time.perf_counter() - self._started)

    def failed(self, error: Exception) -> InferwayError:
        """Notes the failure and returns what the caller may know of it."""
        if not isinstance(error, InferwayError):
            if isinstance(error, aio.AbortError):
                raise error
            _LOG.error("unexpected error in an rpc", exc_info=error)
            error = Internal("internal error; the server's log has the cause under this trace id")
        trace.get_current_span().set_attribute("inferway.error_reason", error.reason)
        self._code = error.code
        return error


def _parse_one(parse: Parse, data: bytes) -> Message:
    try:
        return parse(data)
    except DecodeError as error:
        message = "the request is not a valid protobuf message of this method's type"
        raise MalformedMessage(message) from error


async def _parse_stream(parse: Parse, requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in requests:
        yield _parse_one(parse, data)
