"""OpenTelemetry for one process: traces by OTLP, metrics by Prometheus and OTLP from the same counters, JSON logs.

Tracing costs nothing where it is off: the decision to trace falls once, at the first server a request meets
(`should_trace`), and spans are made only for requests that are traced.
"""

from __future__ import annotations

import logging
import random
import sys
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry
from pythonjsonlogger.json import JsonFormatter

from inferway_chassis.metrics_export import OtlpMetrics

LATENCY_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""The same everywhere, so that histograms of different processes can be added."""

_PROPAGATOR = TraceContextTextMapPropagator()
_FLAGS_LOW_DIGIT = 54
"""Index in `00-{32 digits}-{16 digits}-{flags}` of the digit whose lowest bit says: sampled."""


@dataclass(slots=True)
class Telemetry:
    """What a process observes itself with. `otlp_endpoint` empty: spans and metrics are made, nothing is sent."""

    service: str
    boot_id: str
    otlp_endpoint: str = ""
    sampling_ratio: float = 0.0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    provider: TracerProvider = field(init=False)
    tracer: trace.Tracer = field(init=False)
    _metrics: OtlpMetrics | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Builds the tracer; nothing is global, so that several services can live in one test process."""
        resource = Resource.create({"service.name": f"inferway-{self.service}", "service.instance.id": self.boot_id})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if self.otlp_endpoint:
            exporter = OTLPSpanExporter(endpoint=self.otlp_endpoint, insecure=True, timeout=2)
            self.provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
            self._metrics = OtlpMetrics(self.registry, resource, self.otlp_endpoint)
            self._metrics.start()
        self.tracer = self.provider.get_tracer("inferway")

    def should_trace(self, traceparent: str | None) -> bool:
        """Whether to trace a request that arrived with this header: as its parent decided, else by the ratio."""
        if traceparent is not None and len(traceparent) > _FLAGS_LOW_DIGIT:
            return traceparent[_FLAGS_LOW_DIGIT] in "13579bdf"
        return self.sampling_ratio > 0 and random.random() < self.sampling_ratio  # noqa: S311 - not a secret

    def stop_exporting_metrics(self) -> None:
        """From now on, metrics are only shown to who asks."""
        if self._metrics is not None:
            self._metrics.stop()
            self._metrics = None

    def close(self) -> None:
        """Sends what is left; takes at most a few seconds."""
        self.stop_exporting_metrics()
        self.provider.force_flush(2000)
        self.provider.shutdown()


def extract(traceparent: str, tracestate: str = "") -> Context:
    """The OpenTelemetry context of a W3C header; an empty context if the header is malformed."""
    return _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate})


def inject(span: trace.Span) -> tuple[str, str]:
    """`traceparent` and `tracestate` that make `span` the parent of what the next hop does."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


class _TraceIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
        record.span_id = f"{context.span_id:016x}" if context.is_valid else ""
        return True


class _NotForGoneClients(logging.Filter):
    """Drops what grpc logs, with a stack, when a client went away before its answer: that is no fault of anybody."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


def configure_logging(service: str, level: str, log_format: str) -> None:
    """Logs of the whole process go to stderr, one line each, with trace ids where there is a trace."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_TraceIds())
    handler.addFilter(_NotForGoneClients())
    if log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s %(trace_id)s %(span_id)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                static_fields={"service": service},
            )
        )
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("opentelemetry").setLevel("ERROR")
    logging.getLogger("alembic").setLevel("WARNING")
