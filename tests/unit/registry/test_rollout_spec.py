"""What may be asked for of a rollout."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from inferway.errors import InvalidField
from inferway_registry.rollouts.spec import BlueGreen, Canary, HeaderMatch, Judging, Mirror, Shadow, Spec, Step
from inferway_registry.rollouts.spec_check import check
from tests.unit.registry.rollout_facts import CANDIDATE, spec

FINE = Spec(CANDIDATE)
MATCH = HeaderMatch("x-tester", "yes")


@pytest.mark.parametrize(
    "asked",
    [
        FINE,
        spec(),
        Spec(CANDIDATE, BlueGreen(), match=(MATCH,)),
        Spec(CANDIDATE, Shadow(), Judging(output_margin=0.0, errors_not_inferior=2.0)),
        Spec(CANDIDATE, Canary((Step(1, 0.5), Step(9999))), Judging(alpha=0.5, min_units=1)),
        Spec(CANDIDATE, BlueGreen(Mirror(10_000, 0.0, 0.0, 1.0))),
    ],
)
def test_what_makes_sense_passes(asked: Spec):
    """The defaults, and the ends of what is permitted."""
    check(asked)


def judged(**changes: float) -> Spec:
    """Judged otherwise."""
    return replace(FINE, judging=Judging(**changes))  # type: ignore[arg-type] # min_units is whole in none of these


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (replace(FINE, baseline_seconds=0.0), "baseline"),
        (replace(FINE, bake_seconds=nan), "bake"),
        (replace(FINE, prepare_seconds=1e9), "prepare_timeout"),
        (Spec(CANDIDATE, Canary(())), "canary.steps"),
        (Spec(CANDIDATE, Canary(tuple(Step(number + 1) for number in range(101)))), "canary.steps"),
        (Spec(CANDIDATE, Canary((Step(0),))), "canary.steps[0].weight_basis_points"),
        (Spec(CANDIDATE, Canary((Step(10_000),))), "canary.steps[0].weight_basis_points"),
        (Spec(CANDIDATE, Canary((Step(500), Step(500)))), "canary.steps[1].weight_basis_points"),
        (Spec(CANDIDATE, Canary((Step(500, -1.0),))), "canary.steps[0].hold"),
        (Spec(CANDIDATE, BlueGreen(Mirror(0))), "blue_green.mirror.sample_basis_points"),
        (Spec(CANDIDATE, BlueGreen(min_pairs=0)), "blue_green.min_pairs"),
        (Spec(CANDIDATE, Shadow(Mirror(1, absolute_tolerance=-1.0))), "shadow.mirror.absolute_tolerance"),
        (Spec(CANDIDATE, Shadow(Mirror(1, relative_tolerance=nan))), "shadow.mirror.relative_tolerance"),
        (Spec(CANDIDATE, Shadow(Mirror(1, min_agreement=0.0))), "shadow.mirror.min_agreement"),
        (Spec(CANDIDATE, Shadow(min_pairs=-5)), "shadow.min_pairs"),
        (Spec(CANDIDATE, Shadow(hold_seconds=0.0)), "shadow.hold"),
        (judged(alpha=0.0), "judging.alpha"),
        (judged(alpha=0.6), "judging.alpha"),
        (judged(alpha=5e-324), "judging.alpha"),
        (judged(alpha=nan), "judging.alpha"),
        (judged(min_units=0), "judging.min_units"),
        (judged(error_margin=0.99), "judging.error_margin"),
        (judged(p95_margin=0.5), "judging.p95_margin"),
        (judged(p99_margin=nan), "judging.p99_margin"),
        (judged(output_margin=0.5), "judging.output_margin"),
        (judged(errors_not_inferior=1.0), "judging.errors_not_inferior"),
        (replace(FINE, match=(MATCH,) * 33), "match"),
        (Spec(CANDIDATE, Shadow(), match=(MATCH,)), "match"),
        (replace(FINE, match=(HeaderMatch("X-Tester", "yes"),)), "match[0].header"),
        (replace(FINE, match=(MATCH, HeaderMatch("x-tester", ""))), "match[1]"),
        (replace(FINE, description="a" * 1025), "description"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(asked: Spec, field: str):
    """A typo in a file is found before anything begins, and named as the file names it."""
    with pytest.raises(InvalidField) as refused:
        check(asked)
    assert refused.value.violations[0].field == f"rollout.spec.{field}"
