"""Plans, bounds and figures in words: people read these, so they must be right in number and unit."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1.worker_service_pb2 import ServingPlan
from inferway_cli.serving_words import duration, figure, options_in_words, plan_in_short, plan_in_words, size


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            ServingPlan(isolation="inline", instances=1, callers=1, threads=0, max_batch_rows=1),
            (
                "It runs inside the worker's own process: one copy of the model, one batch at a time, all cores to a "
                "batch. A batch has at most 1 row."
            ),
        ),
        (
            ServingPlan(
                isolation="group",
                instances=2,
                callers=3,
                threads=2,
                max_batch_rows=32,
                buckets=[1, 8, 32],
                max_queue_delay_us=2_500,
            ),
            (
                "It runs as 2 copies of the model, each in a process that it shares with other small models, 3 batches "
                "side by side in each, 2 threads to a batch. A batch has at most 32 rows, filled up to 1, 8, 32, and "
                "no batch is held open longer than 2.5 ms."
            ),
        ),
        (
            ServingPlan(isolation="elsewhere", instances=1, callers=1, threads=1, max_batch_rows=8),
            (
                "It runs as 'elsewhere': one copy of the model, one batch at a time, 1 thread to a batch. A batch has "
                "at most 8 rows."
            ),
        ),
    ],
    ids=["the least", "everything", "of a newer worker"],
)
def test_a_plan_is_a_sentence(plan: ServingPlan, said: str):
    """The first thing that `inferway why` says of a model."""
    assert plan_in_words(plan) == said


def test_a_plan_has_a_short_form():
    """For the end of a line of `inferway model`."""
    plan = ServingPlan(isolation="process", instances=2, callers=1, max_batch_rows=64)

    assert plan_in_short(plan) == "process, 2 copies, 1 side by side, batches up to 64"


def test_only_what_was_set_is_said():
    """No delay at all is a bound, and no bound is silence."""
    everything = resources_pb2.ServingOptions(
        max_batch_rows=1, max_queue_delay=Duration(nanos=2_000_000), buckets=[1, 8], instances=3
    )

    assert options_in_words(resources_pb2.ServingOptions()) == []
    assert options_in_words(resources_pb2.ServingOptions(max_queue_delay=Duration())) == [
        "no batch is held open on purpose"
    ]
    assert options_in_words(everything) == [
        "batches of at most 1 row",
        "no batch is held open longer than 2 ms",
        "batches padded to 1, 8 rows",
        "3 copies of the model",
    ]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (0.052, "0.052"),
        (0.5, "0.5"),
        (1, "1"),
        (7.1, "7.1"),
        (99.96, "100"),
        (140.2, "140"),
        (9999, "9999"),
        (12340, "12.3k"),
        (140000, "140k"),
        (999999, "1000k"),
        (1500000, "1.5M"),
    ],
)
def test_figures_are_short(number: float, said: str):
    """They stand in columns of seven characters."""
    assert figure(number) == said


def test_times_and_sizes_have_the_unit_that_fits():
    """Nobody should have to count digits."""
    assert [duration(us) for us in (0, 850, 3_100, 2_100_000)] == ["0 us", "850 us", "3.1 ms", "2.1 s"]
    assert [size(count) for count in (12, 2_000, 5_200_000, 3e9)] == ["12 bytes", "2 kB", "5.2 MB", "3 GB"]
