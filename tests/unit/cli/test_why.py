"""`inferway why`: what it says of canned explanations, word for word, and how it gets them from workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import Unreachable
from inferway.registry.v1 import resources_pb2
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_cli.why.advice import NOTHING_LEARNED, advice
from inferway_cli.why.ask import Answer
from inferway_cli.why.plot import MAX_COLUMNS, chart, figures, thinned
from inferway_cli.why.report import report_lines
from inferway_cli.why.view import REASONS, WIDTH, explanation_lines
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.explanations import (
    MOBILENET,
    NOW_US,
    curve,
    image_model,
    new_model,
    perceptron,
    trial,
    version,
    worker,
)
from tests.unit.cli.fake_registry import FakeRegistry
from tests.unit.cli.fake_worker import explaining

GOLDEN = Path(__file__).parent / "why_mobilenet.txt"
NO_OPTIONS = resources_pb2.ServingOptions()


def test_an_explanation_reads_as_it_was_written():
    """The text is the product: a change of it must be seen in review."""
    refused = Unreachable("cannot reach 127.0.0.1:8021: Connection refused")
    answers = [
        Answer(worker("worker-0", "127.0.0.1:8020", MOBILENET), image_model()),
        Answer(worker("worker-1", "127.0.0.1:8021", MOBILENET), None, refused),
    ]

    text = "\n".join(report_lines("mobilenet", version(), answers, NOW_US)) + "\n"

    assert text == GOLDEN.read_text()
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_model_that_answered_nothing_yet_is_explained_too():
    """The first thing that people look at is a model they have just pushed."""
    answers = [Answer(worker("worker-0", "127.0.0.1:8020", MOBILENET), new_model())]

    text = "\n".join(report_lines("mobilenet", version(), answers, NOW_US))

    assert "mobilenet version 3 is not served yet." in text
    assert "worker-0 (127.0.0.1:8020): WARMING" in text
    assert "Nothing waits in this worker." in text
    assert "No batch was started yet." in text
    assert " ".join(text.split()).endswith(f"In short: {NOTHING_LEARNED}")


def test_what_an_operator_set_is_said_beside_what_the_worker_chose():
    """Otherwise a forgotten bound looks like the worker's own idea."""
    assert "  An operator set: batches of at most 4 rows." in explanation_lines(
        image_model(), NOW_US, ["batches of at most 4 rows"]
    )


def test_trials_fit_the_screen_whatever_was_tried():
    """A worker with many cores and a large model tries many sizes, by several ways of calling the runtime."""
    explained = pb.ExplainVersionResponse()
    explained.status.plan.trials.extend(
        pb.PlanTrial(callers=16, threads=0, rows=1 << n, rows_per_second=1e5 + n, call_path=path)
        for n in range(12)
        for path in ("concrete function", "session callable")
    )

    lines = explanation_lines(explained, NOW_US)

    header, first, second = lines[lines.index(next(line for line in lines if "rows in a batch" in line)) :][:3]
    assert max(map(len, lines)) <= WIDTH
    assert header.split()[4] == "1"
    assert header.split()[-1] == "2048"
    assert "concrete function" in first
    assert second.count("*") + first.count("*") == 1


def test_of_many_curves_the_busiest_are_shown():
    """A model with many shapes must not push the rest off the screen."""
    explained = pb.ExplainVersionResponse(
        curves=[curve((1, 100, samples), shape=f"x[{samples}]") for samples in (5, 900, 70)]
    )

    text = "\n".join(explanation_lines(explained, NOW_US))

    assert text.index("x[900]") < text.index("x[70]")
    assert "x[5]" not in text
    assert "1 more curve was learned; --json shows all." in text


def test_every_reason_has_an_explanation():
    """A reason that is only a word explains nothing."""
    known = {value for value in tensor_pb2.DispatchReason.values() if value}

    assert set(REASONS) == known


@pytest.mark.parametrize(
    ("explained", "said"),
    [
        (
            image_model(),
            (
                "batching does not pay for this model on this machine: 2 batches of 1 row side by side do 140 rows/s, "
                "one batch of 32 rows at a time does 78 rows/s."
            ),
        ),
        (
            perceptron(),
            (
                "batching pays for this model on this machine: one batch of 32 rows at a time does 9000 rows/s, "
                "2 batches of 1 row side by side do 900 rows/s."
            ),
        ),
        (
            pb.ExplainVersionResponse(curves=[curve((1, 1_000, 5), (8, 2_000, 5))]),
            (
                "batching pays for this model on this machine: batches of 8 rows do 4000 rows/s, "
                "batches of 1 row do 1000 rows/s."
            ),
        ),
        (
            pb.ExplainVersionResponse(curves=[curve((1, 1_000, 5), (8, 9_000, 5))]),
            (
                "batching does not pay for this model on this machine: batches of 1 row do 1000 rows/s, "
                "batches of 8 rows do 889 rows/s."
            ),
        ),
        (pb.ExplainVersionResponse(curves=[curve((1, 1_000, 5))]), NOTHING_LEARNED),
        (new_model(), NOTHING_LEARNED),
    ],
    ids=["one by one", "large batches", "by real batches: pays", "by real batches: does not", "one size", "nothing"],
)
def test_the_advice_is_what_the_figures_say(explained: pb.ExplainVersionResponse, said: str):
    """People act on this line and skip the rest."""
    assert advice(explained, NO_OPTIONS, "mobilenet --version 3", NOW_US) == said


def test_no_difference_is_no_advice_to_change_anything():
    """Within the noise of a warm-up neither way is better."""
    explained = pb.ExplainVersionResponse()
    explained.status.plan.trials.extend([trial(1, 0, 1, 100), trial(1, 0, 8, 105)])

    assert advice(explained, NO_OPTIONS, "m", NOW_US).startswith("batching makes little difference")


def test_a_bound_that_costs_speed_is_named_with_the_way_out():
    """The commonest cause of a slow model is a bound that somebody set for another machine."""
    bound = resources_pb2.ServingOptions(max_batch_rows=4)

    said = advice(perceptron(), bound, "mlp --version 2", NOW_US)

    assert "The bound of 4 rows costs speed: 32 rows reached 9000 rows/s, within the bound it is 900" in said
    assert said.endswith("`inferway tune mlp --version 2 --max-batch-rows auto` lifts it.")
    assert "The bound" not in advice(perceptron(), resources_pb2.ServingOptions(max_batch_rows=32), "mlp", NOW_US)


def test_a_curve_that_left_the_trials_behind_is_named():
    """A worker that learned on a busy machine may choose small batches; this line says where to look."""
    explained = perceptron()
    explained.curves.append(curve((1, 1_100, 900), (8, 42_600, 7)))

    said = advice(explained, NO_OPTIONS, "mlp", NOW_US)

    assert "Batches of 8 rows took 42.6 ms of late, and 2 ms in the trials" in said
    explained.curves[0].points[1].compute_us = 4_000
    assert "in the trials" not in advice(explained, NO_OPTIONS, "mlp", NOW_US)


def test_only_the_trials_of_the_plan_in_use_are_compared_with_what_was_learned():
    """Another way of running the model was faster for this size; that is no news of the machine."""
    explained = perceptron()
    explained.status.plan.trials.append(trial(8, 1, 1, 80_000))
    explained.status.plan.trials.append(trial(1, 1, 1, 80_000))
    explained.curves.append(curve((1, 1_250, 900)))
    explained.curves.append(curve((1, 99_000, 900), shape="x[4] beside others"))

    assert "in the trials" not in advice(explained, NO_OPTIONS, "mlp", NOW_US)
    explained.curves[0].points[0].compute_us = 12_500
    assert "took 12.5 ms of late, and 1.2 ms in the trials" in advice(explained, NO_OPTIONS, "mlp", NOW_US)


def test_a_batch_that_hangs_comes_before_all_advice():
    """Whoever asks why nothing is answered must not read that batching pays."""
    explained = perceptron()
    stuck = explained.decisions.add(dispatch_time_us=NOW_US - 12_000_000, rows=1, requests=1, expected_us=7_000)

    assert advice(explained, NO_OPTIONS, "mlp", NOW_US) == (
        "the model hangs on a request, or failed on it: a batch of 1 row was started 12 s ago and has no result yet; "
        "7 ms were expected."
    )
    for fine in ({"compute_us": 8_000}, {"expected_us": 700_000}, {"dispatch_time_us": NOW_US - 900_000_000}):
        other = perceptron()
        other.decisions.add(**{field: getattr(stuck, field) for field in ("dispatch_time_us", "expected_us")} | fine)
        assert advice(other, NO_OPTIONS, "mlp", NOW_US).startswith("batching pays")
    explained.decisions.add(dispatch_time_us=NOW_US, rows=1, requests=1, expected_us=7_000)
    assert advice(explained, NO_OPTIONS, "mlp", NOW_US).startswith("batching pays"), (
        "one runs at a time: the first ended"
    )


def test_a_size_that_was_never_seen_is_not_shown_as_measured():
    """A figure that was reckoned must not decide anything, nor look as if it could."""
    explained = pb.ExplainVersionResponse(curves=[curve((1, 1_000, 5), (8, 2_000, 0))])

    lines = [line.split() for line in explanation_lines(explained, NOW_US)]

    assert ["ms", "1", "~2"] in lines
    assert ["rows/s", "1000", "~4000"] in lines
    assert any(line[:4] == ["~", "was", "not", "measured:"] for line in lines)
    assert advice(explained, NO_OPTIONS, "m", NOW_US) == NOTHING_LEARNED


def test_no_line_is_wider_than_a_terminal():
    """Large batches, long names of gateways and reasons of failed loads are in lines of their own."""
    explained = image_model()
    explained.credits[0].gateway = f"gateway/{'x' * 70}"
    explained.decisions.add(
        dispatch_time_us=NOW_US - 12_000, requests=1_024, rows=1_048_576, waited_us=11_500, expected_us=14_000
    )
    answers = [Answer(worker(f"worker-{'0' * 60}", "127.0.0.1:8020", MOBILENET), explained)]

    lines = list(report_lines("mobilenet", version(), answers, NOW_US))

    assert max(map(len, lines)) <= WIDTH
    assert "waited 11.5 ms, still under way (14 ms expected)" in " ".join(" ".join(lines).split())


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=MAX_COLUMNS))
def test_columns_are_as_high_as_their_values(values: list[float]):
    """A chart that misleads is worse than none."""
    lines = chart("t", values)[1:]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(line[12:].ljust(70)[2 + 7 * n + 1]) for line in lines) for n in range(len(values))]

    assert all(0 < height <= 32 for height in heights)
    assert max(heights) == 32
    for value, height in zip(values, heights, strict=True):
        assert abs(height - 32 * value / max(values)) <= 1


@given(st.integers(1, 200))
def test_a_long_curve_is_thinned_to_what_fits(count: int):
    """First and last are what people look for."""
    points = thinned(list(range(count)))

    assert len(points) == min(count, MAX_COLUMNS)
    assert (points[0], points[-1]) == (0, count - 1)
    assert points == sorted(set(points))
    assert len(figures("rows", map(str, points))) <= WIDTH


async def test_why_asks_the_workers_that_have_the_version(inferway: Inferway, registry: FakeRegistry):
    """From the name of a model to words of the process that serves it."""
    registry.versions[MOBILENET] = version()
    async with explaining(image_model()) as address:
        registry.workers = [
            worker("worker-0", address, MOBILENET),
            worker("worker-1", "127.0.0.1:1", MOBILENET),
            worker("worker-2", "127.0.0.1:1", "models/other/versions/1"),
        ]
        done = await inferway("why", "mobilenet")
        as_json = await inferway("why", "mobilenet", "--version", "3", "--json")

    assert done.code == 0, done.stderr
    assert "mobilenet version 3 is served by worker-0, worker-1." in done.stdout
    assert "batching does not pay for this model" in done.stdout
    assert "It cannot be asked: cannot reach 127.0.0.1:1" in done.stdout
    assert "worker-2" not in done.stdout
    told = json.loads(as_json.stdout)
    assert [entry["worker"] for entry in told["workers"]] == ["worker-0", "worker-1"]
    assert told["workers"][0]["explanation"]["status"]["plan"]["callers"] == 2
    assert told["workers"][0]["advice"].startswith("batching does not pay")


async def test_why_says_so_if_nobody_has_the_version(inferway: Inferway, registry: FakeRegistry):
    """One line that leads on, as with every other command."""
    registry.versions[MOBILENET] = version()

    done = await inferway("why", "mobilenet")

    assert (done.code, done.stdout) == (1, "")
    assert "no worker has mobilenet version 3; `inferway status` shows the workers" in done.stderr
