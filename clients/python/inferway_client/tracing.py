"""The client's end of a trace: a span if OpenTelemetry is there, and W3C trace context for the server either way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from inferway.errors import InferwayError

Metadata = tuple[tuple[str, str], ...]
_OPENTELEMETRY = find_spec("opentelemetry") is not None

if _OPENTELEMETRY:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    _TRACER = trace.get_tracer("inferway.client")
    _PROPAGATOR = TraceContextTextMapPropagator()


@contextmanager
def client_span(method: str, endpoint: str, traceparent: str | None) -> Iterator[Metadata]:
    """Yields the metadata that continues the trace.

    The parent is `traceparent` if given, else OpenTelemetry's current span. The span is never made current, so that
    it may be opened in one task and closed in another.
    """
    if not _OPENTELEMETRY:
        yield (("traceparent", traceparent),) if traceparent else ()
        return
    parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    attributes = {"inferway.endpoint": endpoint}
    span = _TRACER.start_span(f"inferway.client/{method}", parent, trace.SpanKind.CLIENT, attributes)
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    try:
        yield tuple(carrier.items())
    except InferwayError as error:
        span.set_status(trace.StatusCode.ERROR, error.reason or error.code)
        raise
    finally:
        span.end()
