"""What a snapshot says of a rollout, as the gateway reads it."""

from __future__ import annotations

import pytest

from inferway.registry.v1.resources_pb2 import Arm, Endpoint, MatchRule, MirrorDirective, OutputEdges, RolloutDirective
from inferway.registry.v1.rollouts_pb2 import EXAMPLE_POLICY_REDACTED, HeaderMatch, MirrorSpec
from inferway_gateway import matching
from inferway_gateway.convert import to_table
from inferway_gateway.rollouts.plan import ExamplePolicy, MirrorPlan, RolloutPlan
from inferway_gateway.routing import Endpoint as Read
from inferway_gateway.routing import TableRefused
from tests.integration.gateway.snapshots import snapshot, version

V2 = "models/echo/versions/2"
DIRECTIVE = RolloutDirective(rollout="endpoints/echo/rollouts/1", stable_arm="v1", candidate_arm="v2")


def read(directive: RolloutDirective | None = None, *rules: MatchRule) -> Read:
    arms = [
        Arm(arm="v2", version=V2, weight_basis_points=0),
        Arm(arm="v1", version="models/echo/versions/1", weight_basis_points=10_000),
    ]
    endpoint = Endpoint(name="endpoints/echo", arms=arms, rollout=directive, match_rules=rules)
    return to_table(snapshot(versions=[version(1), version(2)], endpoints=[endpoint])).endpoint("echo")


def directive(**changes: object) -> RolloutDirective:
    changed = RolloutDirective(**changes)  # type: ignore[arg-type]
    changed.MergeFrom(DIRECTIVE)
    return changed


def mirror(**changes: object) -> RolloutDirective:
    spec = MirrorSpec(**{"sample_basis_points": 1_000, **changes})  # type: ignore[arg-type]
    return directive(mirror=MirrorDirective(version=V2, mirror=spec))


def test_an_endpoint_without_a_rollout_has_no_plan() -> None:
    """An absent message is not an empty one."""
    assert read().rollout is None
    assert not read().is_split


def test_a_directive_becomes_a_plan() -> None:
    """Durations in seconds, edges by output."""
    asked = directive(
        counts=True,
        profiles=True,
        p95_us=1_500,
        p99_us=2_500_000,
        output_edges=[OutputEdges(output="y", edges=[-1.0, 0.5])],
        brake_alpha=0.005,
    )

    assert read(asked).rollout == RolloutPlan(
        "endpoints/echo/rollouts/1", "v1", "v2", True, True, 0.0015, 2.5, {"y": (-1.0, 0.5)}, 0.005
    )


def test_a_mirror_has_the_tolerances_that_are_promised_and_keeps_as_little_as_was_said() -> None:
    """A tolerance of 0 is one; an example that nobody may see is not kept."""
    plan, strict = (
        read(mirror()).rollout,
        read(mirror(absolute_tolerance=0.0, examples=EXAMPLE_POLICY_REDACTED)).rollout,
    )

    assert plan is not None
    assert strict is not None
    assert plan.mirror == MirrorPlan(V2, 1_000, 1e-5, 1e-3, ExamplePolicy.OUTPUTS)
    assert strict.mirror == MirrorPlan(V2, 1_000, 0.0, 1e-3, ExamplePolicy.REDACTED)


def test_a_policy_that_a_newer_registry_knows_keeps_nothing() -> None:
    """Data that was kept by mistake cannot be taken back."""
    plan = read(mirror(examples=9)).rollout

    assert plan is not None
    assert plan.mirror is not None
    assert plan.mirror.examples is ExamplePolicy.REDACTED


def test_rules_are_read_in_their_order() -> None:
    """Exact values and prefixes."""
    rules = [
        MatchRule(match=HeaderMatch(header="x-ring", exact="testers"), arm="v2"),
        MatchRule(match=HeaderMatch(header="user-agent", prefix="probe/"), arm="v1"),
    ]

    assert read(None, *rules).match_rules == (
        matching.MatchRule("x-ring", "testers", is_prefix=False, arm="v2"),
        matching.MatchRule("user-agent", "probe/", is_prefix=True, arm="v1"),
    )


@pytest.mark.parametrize(
    "refused",
    [
        lambda: read(None, MatchRule(match=HeaderMatch(header="x-ring"), arm="v2")),
        lambda: read(None, MatchRule(match=HeaderMatch(exact="testers"), arm="v2")),
        lambda: read(directive(output_edges=[OutputEdges(output="y", edges=[1.0, 1.0])])),
        lambda: read(directive(output_edges=[OutputEdges(output="y", edges=[float("nan"), 1.0])])),
        lambda: read(mirror(sample_basis_points=0)),
        lambda: read(mirror(sample_basis_points=10_001)),
    ],
)
def test_what_cannot_be_meant_is_refused(refused: object) -> None:
    """The last good snapshot is better than half of a new one."""
    assert callable(refused)
    with pytest.raises(TableRefused):
        refused()
