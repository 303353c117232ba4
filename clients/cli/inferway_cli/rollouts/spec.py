"""What is asked for of a rollout: what unset fields stand for, and all of it in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from inferway import names
from inferway.registry.v1 import rollouts_pb2

Spec = rollouts_pb2.RolloutSpec
STRATEGIES = {"canary": "canary", "blue-green": "blue_green", "shadow": "shadow"}
"""As people type them, and the fields of the protocol."""
EXAMPLES = ("redacted", "outputs", "inputs-and-outputs")
"""What may be kept of single requests."""
ON_INCONCLUSIVE = ("pause", "roll-back")
"""What may be done if nothing can be said."""
_STEPS = (100, 500, 1_000, 2_500, 5_000)
_HOLD_SECONDS = 60
_BASELINE_SECONDS = 30
_BAKE_SECONDS = 600
_PREPARE_SECONDS = 600
_JUDGING = {
    "alpha": 0.05,
    "min_units": 300,
    "error_margin": 1.0,
    "p95_margin": 1.25,
    "p99_margin": 1.5,
    "output_margin": 1.25,
}
_MIRROR = {"absolute_tolerance": 1e-5, "relative_tolerance": 1e-3, "min_agreement": 0.98}
_UNITS = ((3_600, "h"), (60, "m"))


def with_defaults(spec: Spec) -> Spec:
    """The same, with everything said that `rollouts.proto` says of unset fields; so that two can be compared."""
    full = Spec()
    full.CopyFrom(spec)
    _hold(full, "baseline", _BASELINE_SECONDS)
    _hold(full, "bake", _BAKE_SECONDS)
    _hold(full, "prepare_timeout", _PREPARE_SECONDS)
    full.on_inconclusive = spec.on_inconclusive or rollouts_pb2.ON_INCONCLUSIVE_PAUSE
    _fill(full.judging, _JUDGING)
    match full.WhichOneof("strategy"):
        case "canary":
            _fill_steps(full.canary)
        case "blue_green":
            _fill_mirror(full.blue_green.mirror, 1_000)
            full.blue_green.min_pairs = full.blue_green.min_pairs or 300
        case "shadow":
            _fill_mirror(full.shadow.mirror, 10_000)
            full.shadow.min_pairs = full.shadow.min_pairs or 1_000
            _hold(full.shadow, "hold", _HOLD_SECONDS)
    return full


def in_words(spec: Spec) -> dict[str, str]:
    """Everything that holds, by the key under which documents say it."""
    full = with_defaults(spec)
    told = {"to": short(full.candidate_version), **_strategy(full)}
    told["baseline"], told["bake"] = seconds(full.baseline), seconds(full.bake)
    told["prepare_timeout"] = seconds(full.prepare_timeout)
    told["judge"] = ", ".join(f"{field.name} {value:g}" for field, value in full.judging.ListFields())
    told["match"] = ", ".join(map(match_in_words, full.match))
    told["on_inconclusive"] = ON_INCONCLUSIVE[full.on_inconclusive - 1]
    told["description"] = full.description
    return {key: text for key, text in told.items() if text}


def strategy_name(spec: Spec) -> str:
    """`canary`, `blue-green` or `shadow`."""
    return (spec.WhichOneof("strategy") or "").replace("_", "-")


def short(version: str) -> str:
    """`models/digits/versions/3` as `digits/3`."""
    return "/".join(map(str, names.parse_version(version))) if version else ""


def seconds(duration: Duration) -> str:
    """`500ms`, `20s`, `2m`: as documents have it."""
    value = duration.ToMilliseconds() / 1e3
    if 0 < value < 1:
        return f"{value * 1e3:g}ms"
    return next((f"{value / unit:g}{name}" for unit, name in _UNITS if value and value % unit == 0), f"{value:g}s")


def percent(basis_points: int) -> str:
    """`12.5%`."""
    return f"{basis_points / 100:g}%"


def match_in_words(match: rollouts_pb2.HeaderMatch) -> str:
    """`x-tester=1`, or `x-tester^=1` for how a value begins."""
    sign = "=" if match.WhichOneof("value") == "exact" else "^="
    return f"{match.header}{sign}{match.exact or match.prefix}"


def _hold(message: Any, field: str, default: int) -> None:
    if not message.HasField(field):
        getattr(message, field).FromSeconds(default)


def _fill(message: Any, defaults: Mapping[str, float]) -> None:
    for field, value in defaults.items():
        if not message.HasField(field):
            setattr(message, field, value)


def _fill_steps(canary: rollouts_pb2.CanaryStrategy) -> None:
    if not canary.steps:
        canary.steps.extend(rollouts_pb2.CanaryStep(weight_basis_points=weight) for weight in _STEPS)
    for step in canary.steps:
        _hold(step, "hold", _HOLD_SECONDS)


def _fill_mirror(mirror: rollouts_pb2.MirrorSpec, sample_basis_points: int) -> None:
    mirror.sample_basis_points = mirror.sample_basis_points or sample_basis_points
    mirror.examples = mirror.examples or rollouts_pb2.EXAMPLE_POLICY_OUTPUTS
    _fill(mirror, _MIRROR)


def _strategy(full: Spec) -> dict[str, str]:
    told = {"strategy": strategy_name(full)}
    match full.WhichOneof("strategy"):
        case "canary":
            told["steps"] = ", ".join(
                f"{percent(step.weight_basis_points)} for {seconds(step.hold)}" for step in full.canary.steps
            )
        case "blue_green":
            told |= _mirror(full.blue_green.mirror, full.blue_green.min_pairs)
        case "shadow":
            told |= {**_mirror(full.shadow.mirror, full.shadow.min_pairs), "hold": seconds(full.shadow.hold)}
    return told


def _mirror(mirror: rollouts_pb2.MirrorSpec, min_pairs: int) -> dict[str, str]:
    parts = [f"sample {percent(mirror.sample_basis_points)}", f"min_agreement {mirror.min_agreement:g}"]
    parts.append(f"tolerances {mirror.absolute_tolerance:g} and {mirror.relative_tolerance:g}")
    parts.append(f"examples {EXAMPLES[mirror.examples - 1]}")
    return {"mirror": ", ".join(parts), "min_pairs": f"{min_pairs:,}"}
