"""Spans of traced requests: their stay in the worker, the batch they joined, and the runner's own work.

    worker.execute    one for each traced request, child of the gateway's span
    └ worker.batch    one for each batch, below the first traced request of it, linked to all of them
      └ runner.compute  with the times that the runner measured itself

Requests without a trace context pass through without a span being made.
"""

from __future__ import annotations

from opentelemetry import trace

from inferway.errors import InferwayError
from inferway_chassis.telemetry import extract, inject
from inferway_inference.work import Batch, Request


class Tracing:
    """Makes the spans of one version."""

    def __init__(self, tracer: trace.Tracer, version: str, runner_pid: int) -> None:
        """`version` is its resource name."""
        self._tracer = tracer
        self._runner_pid = runner_pid
        self._version = version

    def received(self, request: Request) -> None:
        """Opens the span of a request that is part of a trace."""
        trace_of = request.trace
        if trace_of is None:
            return
        request.span = self._tracer.start_span(
            "worker.execute",
            context=extract(trace_of.traceparent, trace_of.tracestate),
            attributes={
                "inferway.model_version": self._version,
                "inferway.endpoint": trace_of.endpoint,
                "inferway.arm": trace_of.arm,
                "inferway.prediction_id": trace_of.prediction_id,
                "inferway.rows": request.rows,
            },
        )

    def dispatched(self, batch: Batch) -> str:
        """Opens the span of a batch; returns its traceparent for the runner, "" if nobody in it is traced."""
        spans: list[trace.Span] = [request.span for request in batch.requests if request.span is not None]
        if not spans:
            return ""
        batch.span = self._tracer.start_span(
            "worker.batch",
            context=trace.set_span_in_context(spans[0]),
            links=[trace.Link(span.get_span_context()) for span in spans],
            attributes={"inferway.rows": batch.rows, "inferway.requests": len(batch.requests)},
        )
        for span in spans[1:]:
            span.add_link(batch.span.get_span_context())
        return inject(batch.span)[0]

    def computed(self, batch: Batch, started_ns: int, ended_ns: int) -> None:
        """Records the runner's work with the runner's own clock readings, and closes the batch."""
        if batch.span is None:
            return
        if ended_ns:
            compute = self._tracer.start_span(
                "runner.compute",
                context=trace.set_span_in_context(batch.span),
                start_time=started_ns,
                attributes={"process.pid": self._runner_pid, "inferway.rows": batch.rows},
            )
            compute.end(ended_ns)
        batch.span.end()

    def answered(self, request: Request, error: InferwayError | None = None) -> None:
        """Closes the span of a traced request."""
        if request.span is None:
            return
        if error is not None:
            request.span.set_attribute("inferway.error_reason", error.reason)
            request.span.set_status(trace.StatusCode.ERROR, error.code)
        request.span.end()
