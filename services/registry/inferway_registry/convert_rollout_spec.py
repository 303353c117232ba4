"""Specs of rollouts between messages and values, both ways. Checks the form of what comes in."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from inferway import names
from inferway.errors import InvalidField
from inferway.registry.v1 import rollouts_pb2 as pb
from inferway_registry.rollouts.spec import (
    BlueGreen,
    Canary,
    ExamplePolicy,
    HeaderMatch,
    Judging,
    Mirror,
    OnInconclusive,
    Shadow,
    Spec,
    Step,
    Strategy,
)
from inferway_registry.wording import has_control_characters

MAX_TEXT_CHARACTERS = 4_096
MAX_HEADER_CHARACTERS = 256
_HEADER = re.compile(r"[a-z0-9._-]+")
"""What gRPC takes as the key of metadata: no call could ever bring another."""
_EXAMPLES = frozenset(map(int, ExamplePolicy)) | {0}
_INCONCLUSIVE = frozenset(map(int, OnInconclusive)) | {0}


def spec(message: pb.RolloutSpec, field: str = "rollout.spec") -> Spec:
    """What is asked for; absent fields have their defaults. What numbers may be is checked later.

    Raises InvalidName or InvalidField.
    """
    if message.on_inconclusive not in _INCONCLUSIVE:
        expected = "expected ON_INCONCLUSIVE_PAUSE or ON_INCONCLUSIVE_ROLL_BACK"
        raise InvalidField.at(f"{field}.on_inconclusive", expected)
    default = Spec(names.parse_version(message.candidate_version, f"{field}.candidate_version"))
    return Spec(
        candidate=default.candidate,
        strategy=_strategy(message, field),
        judging=_judging(message.judging),
        baseline_seconds=_seconds(message, "baseline", default.baseline_seconds),
        bake_seconds=_seconds(message, "bake", default.bake_seconds),
        prepare_seconds=_seconds(message, "prepare_timeout", default.prepare_seconds),
        match=_matches(message, field),
        on_inconclusive=OnInconclusive(message.on_inconclusive or OnInconclusive.PAUSE),
        description=text(message.description, f"{field}.description"),
    )


def text(value: str, field: str) -> str:
    """Free text, if it may be shown and kept; raises InvalidField at `field`."""
    if len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidField.at(field, f"longer than {MAX_TEXT_CHARACTERS} characters")
    if has_control_characters(value.replace("\n", "")):
        raise InvalidField.at(field, "control characters other than line ends are not permitted")
    return value


def header_match(message: pb.HeaderMatch, field: str) -> HeaderMatch:
    """A header and what it must be; raises InvalidField."""
    header, kind = message.header, message.WhichOneof("value")
    if len(header) > MAX_HEADER_CHARACTERS or not _HEADER.fullmatch(header):
        raise InvalidField.at(f"{field}.header", f"expected 1 to {MAX_HEADER_CHARACTERS} of a-z, 0-9, '.', '_' and '-'")
    if kind is None:
        raise InvalidField.at(field, "set exact or prefix")
    value = message.prefix if kind == "prefix" else message.exact
    if not 0 < len(value) <= MAX_HEADER_CHARACTERS or has_control_characters(value):
        raise InvalidField.at(f"{field}.{kind}", f"expected 1 to {MAX_HEADER_CHARACTERS} characters")
    return HeaderMatch(header, value, is_prefix=kind == "prefix")


def spec_message(asked: Spec) -> pb.RolloutSpec:
    """A spec, with every default filled in."""
    message = pb.RolloutSpec(
        candidate_version=names.version_name(*asked.candidate),
        judging=_judging_message(asked.judging),
        baseline=_duration(asked.baseline_seconds),
        bake=_duration(asked.bake_seconds),
        prepare_timeout=_duration(asked.prepare_seconds),
        match=map(header_match_message, asked.match),
        on_inconclusive=pb.OnInconclusive.ValueType(asked.on_inconclusive),
        description=asked.description,
    )
    match asked.strategy:
        case Canary(steps):
            message.canary.steps.extend(
                pb.CanaryStep(weight_basis_points=step.weight_basis_points, hold=_duration(step.hold_seconds))
                for step in steps
            )
        case BlueGreen(mirror, pairs):
            message.blue_green.CopyFrom(pb.BlueGreenStrategy(mirror=mirror_message(mirror), min_pairs=pairs))
        case Shadow(mirror, pairs, hold):
            shadow = pb.ShadowStrategy(mirror=mirror_message(mirror), min_pairs=pairs, hold=_duration(hold))
            message.shadow.CopyFrom(shadow)
    return message


def mirror_message(mirror: Mirror) -> pb.MirrorSpec:
    """How copies are taken and compared."""
    return pb.MirrorSpec(
        sample_basis_points=mirror.sample_basis_points,
        absolute_tolerance=mirror.absolute_tolerance,
        relative_tolerance=mirror.relative_tolerance,
        min_agreement=mirror.min_agreement,
        examples=pb.ExamplePolicy.ValueType(mirror.examples),
    )


def header_match_message(match: HeaderMatch) -> pb.HeaderMatch:
    """A header and what it must be."""
    if match.is_prefix:
        return pb.HeaderMatch(header=match.header, prefix=match.value)
    return pb.HeaderMatch(header=match.header, exact=match.value)


def _strategy(message: pb.RolloutSpec, field: str) -> Strategy:
    match message.WhichOneof("strategy"):
        case "canary":
            return _canary(message.canary)
        case "blue_green":
            blue_green = message.blue_green
            default = BlueGreen()
            mirror = _mirror(blue_green.mirror, default.mirror, f"{field}.blue_green.mirror")
            return BlueGreen(mirror, blue_green.min_pairs or default.min_pairs)
        case "shadow":
            return _shadow(message.shadow, field)
    raise InvalidField.at(field, "set canary, blue_green or shadow")


def _canary(message: pb.CanaryStrategy) -> Canary:
    hold = Step(0).hold_seconds
    steps = tuple(Step(step.weight_basis_points, _seconds(step, "hold", hold)) for step in message.steps)
    return Canary(steps) if steps else Canary()


def _shadow(message: pb.ShadowStrategy, field: str) -> Shadow:
    default = Shadow()
    mirror = _mirror(message.mirror, default.mirror, f"{field}.shadow.mirror")
    return Shadow(mirror, message.min_pairs or default.min_pairs, _seconds(message, "hold", default.hold_seconds))


def _mirror(message: pb.MirrorSpec, default: Mirror, field: str) -> Mirror:
    if message.examples not in _EXAMPLES:
        raise InvalidField.at(f"{field}.examples", "expected a policy such as EXAMPLE_POLICY_OUTPUTS")
    return Mirror(
        sample_basis_points=message.sample_basis_points or default.sample_basis_points,
        absolute_tolerance=_given(message, "absolute_tolerance", default.absolute_tolerance),
        relative_tolerance=_given(message, "relative_tolerance", default.relative_tolerance),
        min_agreement=_given(message, "min_agreement", default.min_agreement),
        examples=ExamplePolicy(message.examples or default.examples),
    )


def _judging(message: pb.JudgingSpec) -> Judging:
    default = Judging()
    return Judging(
        alpha=_given(message, "alpha", default.alpha),
        min_units=_given(message, "min_units", default.min_units),
        error_margin=_given(message, "error_margin", default.error_margin),
        p95_margin=_given(message, "p95_margin", default.p95_margin),
        p99_margin=_given(message, "p99_margin", default.p99_margin),
        output_margin=_given(message, "output_margin", default.output_margin),
        errors_not_inferior=_given(message, "errors_not_inferior", default.errors_not_inferior),
    )


def _matches(message: pb.RolloutSpec, field: str) -> tuple[HeaderMatch, ...]:
    return tuple(header_match(match, f"{field}.match[{index}]") for index, match in enumerate(message.match))


def _given(message: Message, name: str, default: Any) -> Any:
    """An optional field, or its default."""
    return getattr(message, name) if message.HasField(name) else default


def _seconds(message: Message, name: str, default: float) -> float:
    duration: Duration | None = _given(message, name, None)
    return default if duration is None else duration.seconds + duration.nanos / 1e9


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def _judging_message(judging: Judging) -> pb.JudgingSpec:
    return pb.JudgingSpec(
        alpha=judging.alpha,
        min_units=judging.min_units,
        error_margin=judging.error_margin,
        p95_margin=judging.p95_margin,
        p99_margin=judging.p99_margin,
        output_margin=judging.output_margin,
        errors_not_inferior=judging.errors_not_inferior,
    )
