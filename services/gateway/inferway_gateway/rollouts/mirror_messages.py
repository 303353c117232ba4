"""Figures of copies as gateways report them."""

from __future__ import annotations

from inferway.registry.v1 import outcome_service_pb2, rollouts_pb2
from inferway_gateway.rollouts.examples import Example
from inferway_gateway.rollouts.histogram import Histogram
from inferway_gateway.rollouts.mirror_figures import MirrorFigures, OutputTotals


def to_mirror_outcomes(figures: MirrorFigures) -> outcome_service_pb2.MirrorOutcomes:
    """All but the bounds of the agreement and the percentiles: the registry adds gateways up first."""
    return outcome_service_pb2.MirrorOutcomes(
        figures=rollouts_pb2.MirrorFigures(
            primary_version=figures.primary_version,
            mirrored_version=figures.mirrored_version,
            pairs=figures.pairs,
            agreeing=figures.agreeing,
            primary_errors=figures.primary_errors,
            mirrored_errors=figures.mirrored_errors,
            dropped=figures.dropped,
            outputs=[_output(name, totals) for name, totals in figures.outputs.items()],
            examples=[_example(example) for example in figures.examples.worst],
        ),
        primary_latency=to_histogram(figures.primary_latency),
        mirrored_latency=to_histogram(figures.mirrored_latency),
        elements=[totals.elements for totals in figures.outputs.values()],
    )


def _output(name: str, totals: OutputTotals) -> rollouts_pb2.OutputFigures:
    return rollouts_pb2.OutputFigures(
        output=name,
        pairs=totals.pairs,
        within_tolerance=totals.within_tolerance,
        rows=totals.rows,
        same_top_rows=totals.same_top_rows,
        max_absolute=totals.max_absolute,
        max_relative=totals.max_relative,
        mean_absolute=totals.sum_absolute / max(1, totals.elements),
        mean_divergence=totals.divergence / max(1, totals.rows),
    )


def _example(example: Example) -> rollouts_pb2.MirrorExample:
    tensors = [rollouts_pb2.ExampleTensor(name=t.name, role=t.role, elements=t.elements) for t in example.tensors]
    return rollouts_pb2.MirrorExample(prediction_id=example.prediction_id, distance=example.distance, tensors=tensors)


def to_histogram(histogram: Histogram) -> outcome_service_pb2.LatencyHistogram:
    """Bucket by bucket."""
    buckets = sorted(histogram.counts.items())
    return outcome_service_pb2.LatencyHistogram(
        buckets=[bucket for bucket, _ in buckets], counts=[count for _, count in buckets]
    )
