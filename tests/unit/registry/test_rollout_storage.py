"""How rollouts are kept, and what comes in and goes out of them as messages."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import InvalidField, InvalidName
from inferway.registry.v1 import outcome_service_pb2, resources_pb2, rollouts_pb2
from inferway_registry import convert_figures, convert_outcomes, convert_rollout_spec
from inferway_registry.compatibility import incompatibility
from inferway_registry.judge import Counts
from inferway_registry.lookout import Sight
from inferway_registry.resources import (
    Manifest,
    ModelVersion,
    Runtime,
    Signature,
    StateBinding,
    TensorSpec,
    VersionConfig,
    VersionState,
)
from inferway_registry.rollouts.facts import Facts, Pairs
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.spec import BlueGreen, Canary, Shadow, Spec, Step
from inferway_registry.rollouts.thresholds import percentile_us
from inferway_registry.store import rollout_codec

NOW = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
for kind, drawn in ((datetime, st.datetimes(timezones=st.just(UTC))), (float, NUMBERS)):
    st.register_type_strategy(kind, drawn)


@given(st.from_type(Rollout))
def test_whatever_a_rollout_is_made_of_is_stored(rollout: Rollout):
    """A field that were forgotten would be lost with the next restart."""
    stored = json.loads(json.dumps(rollout_codec.rollout_to_json(rollout)))

    assert rollout_codec.rollout_from_json(stored) == rollout


def test_what_an_older_registry_stored_is_read_with_defaults():
    """An upgrade in the middle of a rollout must not end it."""
    stored = rollout_codec.rollout_to_json(Rollout("e", 1, Spec(("m", 2)), ("m", 1), "s", NOW))
    del stored["thresholds"], stored["spec"]["match"]

    assert rollout_codec.rollout_from_json(stored) == Rollout("e", 1, Spec(("m", 2)), ("m", 1), "s", NOW)


@pytest.mark.parametrize(
    ("message", "strategy"),
    [
        (rollouts_pb2.RolloutSpec(canary=rollouts_pb2.CanaryStrategy()), Canary()),
        (
            rollouts_pb2.RolloutSpec(
                canary=rollouts_pb2.CanaryStrategy(steps=[rollouts_pb2.CanaryStep(weight_basis_points=7)])
            ),
            Canary((Step(7, 60.0),)),
        ),
        (rollouts_pb2.RolloutSpec(blue_green=rollouts_pb2.BlueGreenStrategy()), BlueGreen()),
        (rollouts_pb2.RolloutSpec(shadow=rollouts_pb2.ShadowStrategy()), Shadow()),
    ],
)
def test_a_spec_that_says_little_has_the_defaults_that_the_contract_names(
    message: rollouts_pb2.RolloutSpec, strategy: Canary | BlueGreen | Shadow
):
    """Users write three lines."""
    message.candidate_version = "models/m/versions/2"

    asked = convert_rollout_spec.spec(message)

    assert asked == Spec(("m", 2), strategy)
    assert convert_rollout_spec.spec(convert_rollout_spec.spec_message(asked)) == asked


def test_zero_is_a_choice_and_not_a_default():
    """`output_margin: 0` switches off what 1.25 would judge."""
    message = rollouts_pb2.RolloutSpec(candidate_version="models/m/versions/2", canary=rollouts_pb2.CanaryStrategy())
    message.judging.output_margin = 0.0
    message.baseline.seconds = 0

    asked = convert_rollout_spec.spec(message)

    assert (asked.judging.output_margin, asked.baseline_seconds) == (0.0, 0.0)


def outcomes(**fields: object) -> outcome_service_pb2.RolloutOutcomes:
    """A report of a rollout."""
    return outcome_service_pb2.RolloutOutcomes(rollout="endpoints/m/rollouts/1", **fields)  # type: ignore[arg-type]


def arm(units: int, errors: int, bins: tuple[int, ...] = (), bucket: int = 10) -> outcome_service_pb2.ArmOutcomes:
    """What an arm met."""
    return outcome_service_pb2.ArmOutcomes(
        units=units,
        newcomers=units,
        events={"INTERNAL": errors},
        errors={"INTERNAL": errors},
        bins=[outcome_service_pb2.OutputBins(output="y", counts=bins)] if bins else [],
        requests=units,
        latency=outcome_service_pb2.LatencyHistogram(buckets=[bucket], counts=[units]),
    )


def test_what_gateways_count_adds_up():
    """It must not matter by which gateway a unit came, nor in which order they report."""
    one = outcomes(phases=[outcome_service_pb2.PhaseOutcomes(generation=3, stable=arm(90, 1), candidate=arm(10, 2))])
    two = outcomes(
        phases=[
            outcome_service_pb2.PhaseOutcomes(generation=3, stable=arm(9, 0), candidate=arm(1, 1, (1, 0))),
            outcome_service_pb2.PhaseOutcomes(generation=4, stable=arm(5, 0), candidate=arm(5, 0)),
        ]
    )

    counts = convert_outcomes.counts([one, two], {"y": 2})

    assert counts == convert_outcomes.counts([two, one], {"y": 2})
    assert counts[3] == (Counts(99, 99, {"INTERNAL": 1}), Counts(11, 11, {"INTERNAL": 3}, {"y": (1, 0)}))
    assert counts[4] == (Counts(5, 5, {"INTERNAL": 0}), Counts(5, 5, {"INTERNAL": 0}))


def test_the_slowest_answer_that_can_be_reported_can_be_told_to_gateways():
    """A time that no message holds would end the routing of all endpoints."""
    slowest = percentile_us({convert_outcomes.MAX_BUCKET: 100}, 0.99)
    assert resources_pb2.RolloutDirective(p99_us=slowest).p99_us == slowest


def test_bins_that_do_not_belong_to_the_rollout_are_let_go():
    """A gateway that counts in other bins, by whatever mistake, must not stop everybody's judge."""
    strange = outcomes(phases=[outcome_service_pb2.PhaseOutcomes(generation=3, stable=arm(9, 0, (4, 5, 6)))])

    (stable, _) = convert_outcomes.counts([strange], {"y": 2})[3]

    assert stable.bins == {}


def test_samples_of_gateways_weigh_as_much_as_they_saw():
    """A gateway with a tenth of the traffic must not make half of the deciles."""
    profile = outcome_service_pb2.StableProfile
    sample = outcome_service_pb2.OutputSample
    much = outcomes(profile=profile(outputs=[sample(output="y", values=[1.0] * 256, seen=90_000)]))
    little = outcomes(profile=profile(outputs=[sample(output="y", values=[2.0] * 256, seen=10_000)]))

    known = convert_outcomes.profile([much, little])

    assert known.seen == {"y": 100_000}
    assert math.isclose(sum(value == 2.0 for value in known.outputs["y"]) / len(known.outputs["y"]), 0.1, abs_tol=0.01)


def mirror(
    pairs: int, mean: float, elements: int, *distances: float, agreeing: int | None = None
) -> outcome_service_pb2.MirrorOutcomes:
    """Comparisons of one gateway; all agree unless it is said how many."""
    figures = rollouts_pb2.MirrorFigures(
        primary_version="models/m/versions/1",
        mirrored_version="models/m/versions/2",
        pairs=pairs,
        agreeing=pairs if agreeing is None else agreeing,
        primary_errors=1,
        outputs=[rollouts_pb2.OutputFigures(output="y", pairs=pairs, mean_absolute=mean, max_absolute=mean * 2)],
        examples=[rollouts_pb2.MirrorExample(distance=distance) for distance in distances],
    )
    latency = outcome_service_pb2.LatencyHistogram(buckets=[1], counts=[pairs])
    return outcome_service_pb2.MirrorOutcomes(figures=figures, elements=[elements], primary_latency=latency)


def test_comparisons_of_gateways_are_merged_and_the_worst_kept():
    """People look at the worst pairs of all gateways, and at means that are means."""
    reports = [
        outcomes(mirrors=[mirror(30, 1.0, 300, *range(15))]),
        outcomes(mirrors=[mirror(10, 3.0, 100, *range(100, 115))]),
    ]
    rollout = Rollout("m", 1, Spec(("m", 2)), ("m", 1), "s", NOW)

    shown = convert_figures.full_message(rollout, Sight(Facts(NOW), reports))
    (pairs,) = convert_outcomes.mirrors(reports).values()

    (merged,) = shown.mirrors
    assert (merged.pairs, merged.agreeing, merged.primary_errors) == (40, 40, 2)
    assert [example.distance for example in merged.examples] == [*range(114, 99, -1), *range(14, 9, -1)]
    assert (merged.outputs[0].mean_absolute, merged.outputs[0].max_absolute) == (1.5, 6.0)
    assert merged.agreement_upper_bound == 1.0
    assert pairs == Pairs(40, 40, 2, 0, {1: 40}, {})


@pytest.mark.parametrize(
    "wrong",
    [
        outcomes(phases=[outcome_service_pb2.PhaseOutcomes(stable=outcome_service_pb2.ArmOutcomes(events={"x": -1}))]),
        outcomes(mirrors=[outcome_service_pb2.MirrorOutcomes()]),
        outcomes(mirrors=[mirror(-1, 0.0, 1)]),
        outcomes(mirrors=[mirror(1, 0.0, 1, agreeing=2)]),
        outcomes(phases=[outcome_service_pb2.PhaseOutcomes(stable=outcome_service_pb2.ArmOutcomes(units=2**62))]),
        outcomes(
            profile=outcome_service_pb2.StableProfile(outputs=[outcome_service_pb2.OutputSample(values=[0.0] * 257)])
        ),
        outcomes(
            profile=outcome_service_pb2.StableProfile(
                latency=outcome_service_pb2.LatencyHistogram(buckets=[1001], counts=[1])
            )
        ),
        outcomes(brake_reason="x" * 2000),
    ],
)
def test_a_report_that_would_spoil_the_sums_is_refused(wrong: outcome_service_pb2.RolloutOutcomes):
    """What is stored is added up every half second, by every registry."""
    with pytest.raises((InvalidField, InvalidName)):
        convert_outcomes.check(outcome_service_pb2.ReportOutcomesRequest(gateway="g", outcomes=[wrong]))


X, Y = TensorSpec("x", Datatype.FP32, (-1, 4)), TensorSpec("y", Datatype.FP32, (-1, 2))
STATE_IN, STATE_OUT = TensorSpec("h", Datatype.FP32, (-1, 8)), TensorSpec("h_next", Datatype.FP32, (-1, 8))


def version(*signatures: Signature, state: bool = False) -> ModelVersion:
    """A version."""
    bound = (StateBinding("serve", "h", "h_next"),) if state else ()
    config, manifest = VersionConfig(state=bound), Manifest((), "d")
    return ModelVersion("m", 1, VersionState.PUBLISHED, Runtime.ONNX, manifest, signatures, config, NOW, 1)


def serving(inputs: tuple[TensorSpec, ...] = (X,), outputs: tuple[TensorSpec, ...] = (Y,)) -> Signature:
    """A signature."""
    return Signature("serve", inputs, outputs)


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        (version(serving()), ""),
        (version(serving(), Signature("more", (X,), (Y,))), "name no signature have 'serve'"),
        (version(serving(outputs=(Y, TensorSpec("z", Datatype.INT64, None)))), ""),
        (version(serving((TensorSpec("x", Datatype.FP32, (-1, -1)),))), ""),
        (version(serving((TensorSpec("x", Datatype.FP32, None),))), ""),
        (version(serving(outputs=(TensorSpec("y", Datatype.FP32, None),))), ""),
        (version(serving((X, STATE_IN), (Y, STATE_OUT)), state=True), "'serve' keeps state"),
        (version(serving((X, STATE_IN), (Y, STATE_OUT))), "needs an input 'h'"),
        (version(Signature("other", (X,), (Y,))), "no signature 'serve'"),
        (version(serving((TensorSpec("x", Datatype.FP64, (-1, 4)),))), "FP64 for input 'x'"),
        (version(serving((TensorSpec("x", Datatype.FP32, (8, 4)),))), "input 'x' in shape [8, 4]"),
        (version(serving((TensorSpec("x", Datatype.FP32, (-1, 4, 1)),))), "input 'x' in shape [-1, 4, 1]"),
        (version(serving((TensorSpec("x", Datatype.FP32, (-1, 4), forbid_nan=True),))), "refuses NaN in input 'x'"),
        (version(serving(outputs=(TensorSpec("y", Datatype.FP32, (-1, 3)),))), "output 'y' in shape [-1, 3]"),
        (version(serving(outputs=())), "no output 'y'"),
    ],
)
def test_callers_are_given_only_what_they_can_use(candidate: ModelVersion, problem: str):
    """Any other version would fail every call that reaches it, and the refusal says why."""
    found = incompatibility(version(serving()), candidate)

    assert problem in found
    assert bool(problem) == bool(found)


def test_a_version_may_have_further_signatures_if_callers_who_name_none_get_the_same():
    """Most callers name none: one more signature must not leave them without the one that they had."""
    default, more = replace(serving(), name="serving_default"), Signature("more", (X,), (Y,))

    assert incompatibility(version(default), version(default, more)) == ""
    assert incompatibility(version(serving(), more), version(serving(), more)) == ""
    assert incompatibility(version(serving()), version(serving(), default)) != ""


def test_a_version_may_keep_state_where_the_one_before_did():
    """Its callers begin sessions; to those of any other signature nothing is new."""
    stateful, default = serving((X, STATE_IN), (Y, STATE_OUT)), replace(serving(), name="serving_default")

    assert incompatibility(version(stateful, state=True), version(stateful, state=True)) == ""
    assert incompatibility(version(default), version(default, stateful, state=True)) == ""
