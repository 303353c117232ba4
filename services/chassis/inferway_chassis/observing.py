"""Observes one rpc, whatever transport carries it: counts it, spans it if it is traced, and says what failed it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from opentelemetry import trace

from inferway.errors import Cancelled, InferwayError, Internal
from inferway_chassis.rpc_metrics import RpcCounts, RpcMetrics
from inferway_chassis.telemetry import Telemetry, extract

_LOG = logging.getLogger(__name__)
_UNTRACED = nullcontext()


class Head(Protocol):
    """What every transport knows of a call before its message is read."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The headers."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None, or very many, if it set none."""


class Observed:
    """One rpc from its first byte; `ended` once, whatever becomes of it."""

    __slots__ = ("_counts", "_span", "_started")

    def __init__(self, counts: RpcCounts, span: trace.Span | None) -> None:
        """It begins."""
        self._counts, self._span = counts, span
        self._started = time.perf_counter()
        counts.active += 1

    def current(self) -> AbstractContextManager[object]:
        """Makes its span, if it has one, the current one."""
        if self._span is None:
            return _UNTRACED
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def failure(self, error: BaseException) -> InferwayError:
        """What the caller may know of `error`."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return Cancelled("the caller went away")
        if not isinstance(error, InferwayError):
            with self.current():
                _LOG.error("unexpected error in an rpc", exc_info=error)
            return Internal("internal error; the server's log has the cause under this trace id")
        # The frames of its traceback hold the request and, by the caller's variables, the error itself: a refused
        # request would stay in memory until the collector comes round.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error

    def ended(self, error: InferwayError | None = None) -> None:
        """It was answered, or failed with `error`."""
        code = "OK" if error is None else error.code
        span = self._span
        if span is not None:
            if error is not None:
                span.set_attribute("inferway.error_reason", error.reason)
                span.set_attribute("rpc.grpc.status_code", code)
                span.set_status(trace.StatusCode.ERROR, code)
            span.end()
        self._counts.ended(code, time.perf_counter() - self._started)


def observer(telemetry: Telemetry, metrics: RpcMetrics, service: str, method: str) -> Callable[[Head], Observed]:
    """Returns what begins the observation of each rpc of one method."""
    tracer, should_trace, counts = telemetry.tracer, telemetry.should_trace, metrics.of(service, method)
    name = f"{service.rpartition('.')[2]}/{method}"
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

    def observe(call: Head) -> Observed:
        traceparent = tracestate = None
        for key, value in call.invocation_metadata() or ():
            if key == "traceparent":
                traceparent = str(value)
            elif key == "tracestate":
                tracestate = str(value)
        if not should_trace(traceparent):
            return Observed(counts, None)
        context = extract(traceparent, tracestate or "") if traceparent else None
        return Observed(counts, tracer.start_span(name, context, trace.SpanKind.SERVER, attributes))

    return observe
