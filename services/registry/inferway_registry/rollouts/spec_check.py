"""Whether a spec may be asked for: every number within its bounds. Raises errors that name the field."""

from __future__ import annotations

from inferway.errors import InvalidField
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts.spec import BlueGreen, Canary, Judging, Mirror, Shadow, Spec

MAX_SECONDS = 30 * 86_400.0
MAX_STEPS = 100
MAX_COUNT = 10**12
MAX_MARGIN = 1000.0
MIN_ALPHA, MAX_ALPHA = 1e-9, 0.5
MAX_MATCHES = 32
MAX_TEXT_CHARACTERS = 1024


def check(spec: Spec, field: str = "rollout.spec") -> None:
    """Raises InvalidField at the first thing in `spec` that is out of bounds; `field` is where the spec stands."""
    _check_seconds(spec.baseline_seconds, f"{field}.baseline")
    _check_seconds(spec.bake_seconds, f"{field}.bake")
    _check_seconds(spec.prepare_seconds, f"{field}.prepare_timeout")
    match spec.strategy:
        case Canary():
            _check_canary(spec.strategy, f"{field}.canary")
        case BlueGreen(mirror, min_pairs):
            _check_mirror(mirror, f"{field}.blue_green.mirror")
            _check_between(min_pairs, 1, MAX_COUNT, f"{field}.blue_green.min_pairs")
        case Shadow(mirror, min_pairs, hold_seconds):
            _check_mirror(mirror, f"{field}.shadow.mirror")
            _check_between(min_pairs, 1, MAX_COUNT, f"{field}.shadow.min_pairs")
            _check_seconds(hold_seconds, f"{field}.shadow.hold")
    _check_judging(spec.judging, f"{field}.judging")
    _check_matches(spec, f"{field}.match")
    if len(spec.description) > MAX_TEXT_CHARACTERS:
        raise InvalidField.at(f"{field}.description", f"expected at most {MAX_TEXT_CHARACTERS} characters")


def _check_canary(canary: Canary, field: str) -> None:
    if not 0 < len(canary.steps) <= MAX_STEPS:
        raise InvalidField.at(f"{field}.steps", f"{len(canary.steps)} steps; expected 1 to {MAX_STEPS}")
    before = 0
    for index, step in enumerate(canary.steps):
        where = f"{field}.steps[{index}]"
        _check_between(step.weight_basis_points, 1, FULL_WEIGHT - 1, f"{where}.weight_basis_points")
        if step.weight_basis_points <= before:
            raise InvalidField.at(f"{where}.weight_basis_points", f"expected more than the {before} of the step before")
        _check_seconds(step.hold_seconds, f"{where}.hold")
        before = step.weight_basis_points


def _check_mirror(mirror: Mirror, field: str) -> None:
    _check_between(mirror.sample_basis_points, 1, FULL_WEIGHT, f"{field}.sample_basis_points")
    _check_between(mirror.absolute_tolerance, 0.0, float("1e300"), f"{field}.absolute_tolerance")
    _check_between(mirror.relative_tolerance, 0.0, 1.0, f"{field}.relative_tolerance")
    if not 0 < mirror.min_agreement <= 1:
        raise InvalidField.at(f"{field}.min_agreement", f"{mirror.min_agreement}; expected more than 0, at most 1")


def _check_judging(judging: Judging, field: str) -> None:
    _check_between(judging.alpha, MIN_ALPHA, MAX_ALPHA, f"{field}.alpha")
    _check_between(judging.min_units, 1, MAX_COUNT, f"{field}.min_units")
    _check_between(judging.error_margin, 1.0, MAX_MARGIN, f"{field}.error_margin")
    _check_between(judging.p95_margin, 1.0, MAX_MARGIN, f"{field}.p95_margin")
    _check_between(judging.p99_margin, 1.0, MAX_MARGIN, f"{field}.p99_margin")
    if judging.output_margin != 0:
        _check_between(judging.output_margin, 1.0, MAX_MARGIN, f"{field}.output_margin")
    proof = judging.errors_not_inferior
    if proof is not None and not judging.error_margin < proof <= MAX_MARGIN:
        raise InvalidField.at(
            f"{field}.errors_not_inferior", f"{proof}; expected more than error_margin, at most {MAX_MARGIN:g}"
        )


def _check_matches(spec: Spec, field: str) -> None:
    if spec.match and isinstance(spec.strategy, Shadow):
        raise InvalidField.at(field, "nobody gets the answers of a shadow; leave this out, or choose another strategy")
    if len(spec.match) > MAX_MATCHES:
        raise InvalidField.at(field, f"{len(spec.match)} matches; expected at most {MAX_MATCHES}")
    for index, match in enumerate(spec.match):
        if not match.header or match.header != match.header.lower() or len(match.header) > MAX_TEXT_CHARACTERS:
            raise InvalidField.at(f"{field}[{index}].header", "expected a name in lower case")
        if not match.value or len(match.value) > MAX_TEXT_CHARACTERS:
            raise InvalidField.at(f"{field}[{index}]", f"expected a value of 1 to {MAX_TEXT_CHARACTERS} characters")


def _check_seconds(seconds: float, field: str) -> None:
    if not 0 < seconds <= MAX_SECONDS:
        raise InvalidField.at(field, f"{seconds:g} s; expected more than 0, at most {MAX_SECONDS:g} s")


def _check_between(value: float, least: float, most: float, field: str) -> None:
    if not least <= value <= most:
        raise InvalidField.at(field, f"{value:g}; expected {least:g} to {most:g}")
