"""Traces, metrics and logs of one process."""

from __future__ import annotations

import io
import json
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Gauge as PrometheusGauge
from prometheus_client import Histogram as PrometheusHistogram

from inferway_chassis.metrics_export import metrics_of
from inferway_chassis.telemetry import Telemetry, configure_logging, extract, inject

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"


@pytest.mark.parametrize(
    ("ratio", "traceparent", "traced"),
    [(0, SAMPLED, True), (1, NOT_SAMPLED, False), (1, None, True), (0, None, False), (0, "junk", False)],
)
def test_the_caller_decides_and_the_ratio_only_where_nobody_did(
    ratio: float, traceparent: str | None, *, traced: bool
) -> None:
    """A hop that decides for itself tears traces apart."""
    assert Telemetry("test", "boot", sampling_ratio=ratio).should_trace(traceparent) is traced


def test_a_span_is_the_parent_of_what_the_next_hop_extracts() -> None:
    """W3C context out and in again."""
    tracer = Telemetry("test", "boot").tracer
    with tracer.start_as_current_span("here", context=extract(SAMPLED)) as span:
        traceparent, _ = inject(span)
    received = trace.get_current_span(extract(traceparent)).get_span_context()

    assert traceparent.split("-")[1] == SAMPLED.split("-")[1]
    assert received.span_id == span.get_span_context().span_id


def test_otlp_tells_what_prometheus_tells() -> None:
    """Two views of one set of counters cannot disagree."""
    registry = CollectorRegistry()
    PrometheusCounter("calls", "Calls.", ["code"], registry=registry).labels("OK").inc(3)
    PrometheusGauge("depth", "Depth.", registry=registry).set(7)
    histogram = PrometheusHistogram("seconds", "Time.", registry=registry, buckets=(1, 2))
    for value in (0.5, 1.5, 1.6, 9):
        histogram.observe(value)

    metrics = {metric.name: metric.data for metric in metrics_of(registry.collect(), 1, 2)}

    calls, depth, seconds = metrics["calls_total"], metrics["depth"], metrics["seconds"]
    assert isinstance(calls, Sum)
    assert (calls.data_points[0].value, calls.data_points[0].attributes) == (3, {"code": "OK"})
    assert isinstance(depth, Gauge)
    assert depth.data_points[0].value == 7
    assert isinstance(seconds, Histogram)
    point = seconds.data_points[0]
    assert (point.explicit_bounds, point.bucket_counts, point.count) == ([1, 2], [1, 2, 1], 4)


def test_a_log_line_is_json_with_the_trace_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a trace to its logs and back."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    handlers = logging.getLogger().handlers[:]
    configure_logging("test", "info", "json")
    tracer = Telemetry("test", "boot").tracer
    try:
        with tracer.start_as_current_span("here", context=extract(SAMPLED)):
            logging.getLogger("inferway").info("loaded", extra={"model": "digits"})
    finally:
        logging.getLogger().handlers[:] = handlers

    line = json.loads(stream.getvalue())
    assert (line["message"], line["model"], line["service"]) == ("loaded", "digits", "test")
    assert line["trace_id"] == SAMPLED.split("-")[1]
