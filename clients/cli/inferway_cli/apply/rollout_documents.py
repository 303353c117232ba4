"""What documents say of rollouts: versions to bring to the users of endpoints, and how. Checked like the others.

kind: Rollout
endpoint: digits
to: 2                            # or digits/2, digits/champion, `this` (the version of the model's `path`), `latest`
strategy: canary                 # or blue-green, shadow
steps: [{weight: 5%, hold: 20s}, {weight: 25%, hold: 20s}]
baseline: 10s                    # the stable version is watched first
bake: 30s                        # the version before stays loaded, one switch away
judge: {min_units: 100, error_margin: 1, p95_margin: 1.25, output_margin: 0}
match: [{header: x-tester, exact: "1"}]      # these callers get the candidate at once
on_inconclusive: pause           # or roll-back
description: More epochs

For blue-green and shadow, in place of steps:

mirror: {sample: 100%, min_agreement: 0.98, absolute_tolerance: 1e-5, relative_tolerance: 1e-3, examples: outputs}
min_pairs: 500
hold: 20s                        # shadow alone
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from math import inf, nan
from typing import Any

from google.protobuf.duration_pb2 import Duration

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.apply import values
from inferway_cli.apply.nodes import Place, Section, Unfit
from inferway_cli.rollouts.spec import EXAMPLES, ON_INCONCLUSIVE, STRATEGIES, Spec

MAX_SECONDS = 30 * 24 * 3_600
MAX_STEPS = 100
MAX_MATCHES = 32
MAX_TEXT_CHARACTERS = 1_024
MAX_MARGIN = 1_000
MIN_ALPHA, MAX_ALPHA = 1e-9, 0.5
_COMMON = ("kind", "endpoint", "to", "strategy", "baseline", "bake", "prepare_timeout", "judge", "match")
_KEYS = {
    "canary": (*_COMMON, "on_inconclusive", "description", "supersede", "steps"),
    "blue-green": (*_COMMON, "on_inconclusive", "description", "supersede", "mirror", "min_pairs"),
    "shadow": (*_COMMON, "on_inconclusive", "description", "supersede", "mirror", "min_pairs", "hold"),
}
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3_600)}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_HEADER = re.compile(r"[a-z0-9._-]+")
"""What gRPC takes as the key of metadata."""
_STEP = "a step is {weight: 5%, hold: 30s}"


@dataclass(frozen=True, slots=True)
class RolloutDocument:
    """A rollout as it is asked for."""

    name: str
    """Of the endpoint."""
    place: Place
    spec: Spec
    """All but the candidate."""
    model: str = ""
    """Empty for the one whose version the endpoint has."""
    to: values.Label | None = None
    """None only where it may come from elsewhere."""
    supersede: bool = False
    to_place: Place | None = None


def read_rollout(section: Section, endpoint: str) -> RolloutDocument:
    """The document; whatever is wrong is noted in the section's problems."""
    strategy = section.read("strategy", values.one_of(*STRATEGIES), "canary")
    section.only(_KEYS[strategy])
    version = section.read("to", values.version, None)
    model, to = version or ("", None)
    spec = Spec(description=section.read("description", _description, ""), match=_matches(section))
    for key in ("baseline", "bake", "prepare_timeout"):
        _set(spec, section, key, duration)
    spec.on_inconclusive = section.read("on_inconclusive", _choice(ON_INCONCLUSIVE), spec.on_inconclusive)
    judge = section.section("judge")
    if judge is not None:
        _read_judging(judge, spec.judging)
    _read_strategy(section, spec, STRATEGIES[strategy])
    supersede = section.read("supersede", values.truth, False)
    return RolloutDocument(endpoint, section.place, spec, model, to, supersede, section.where("to"))


def duration(value: object) -> Duration:
    """A time such as `20s`, `500ms`, `2m`, `1h`, or a number of seconds."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        amount = Decimal(found[1]) * _SECONDS[found[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        amount = Decimal(str(value))
    else:
        raise Unfit("a time such as 20s, 500ms or 2m")
    if not (amount.is_finite() and 0 < amount <= MAX_SECONDS):
        raise Unfit(f"a time of more than 0s, and of {MAX_SECONDS // 3_600}h at most")
    return Duration(seconds=int(amount), nanos=int(amount % 1 * 10**9))


def steps_of(weights: Iterable[tuple[int, Duration | None]]) -> list[rollouts_pb2.CanaryStep]:
    """Steps of a canary; raises Unfit unless their weights ascend between nothing and everything."""
    steps = [rollouts_pb2.CanaryStep(weight_basis_points=weight, hold=hold) for weight, hold in weights]
    shares = [step.weight_basis_points for step in steps]
    if (
        not 0 < len(shares) <= MAX_STEPS
        or shares != sorted(set(shares))
        or not 0 < shares[0] <= shares[-1] < values.FULL_WEIGHT
    ):
        raise Unfit("steps whose weights ascend between 0% and 100%; everything comes after the last one")
    return steps


def _read_strategy(section: Section, spec: Spec, strategy: str) -> None:
    chosen = getattr(spec, strategy)
    chosen.SetInParent()
    if strategy == "canary":
        chosen.steps.extend(_steps(section))
        return
    _set(chosen, section, "min_pairs", lambda value: values.number(value, "a number of pairs, from 1"))
    if strategy == "shadow":
        _set(chosen, section, "hold", duration)
    mirror = section.section("mirror")
    if mirror is not None:
        _read_mirror(mirror, chosen.mirror)


def _steps(section: Section) -> list[rollouts_pb2.CanaryStep]:
    if "steps" not in section:
        return []
    found: list[tuple[int, Duration | None]] = []
    for entry in section.sections("steps"):
        entry.only(("weight", "hold"))
        if "weight" not in entry:
            entry.complain("weight", f"weight is missing; {_STEP}")
        weight = entry.read("weight", values.weight, None)
        if weight is None:
            return []
        found.append((weight, entry.read("hold", duration, None)))
    return section.read("steps", lambda _: steps_of(found), [])


def _read_mirror(section: Section, mirror: rollouts_pb2.MirrorSpec) -> None:
    section.only(("sample", "examples", *_COMPARED))
    mirror.sample_basis_points = section.read("sample", _sample, 0)
    mirror.examples = section.read("examples", _choice(EXAMPLES), mirror.examples)
    for key, parse in _COMPARED.items():
        _set(mirror, section, key, parse)


def _read_judging(section: Section, judging: rollouts_pb2.JudgingSpec) -> None:
    section.only((*_JUDGED, "min_units"))
    _set(judging, section, "min_units", lambda value: values.number(value, "a number of units, from 1"))
    for key, parse in _JUDGED.items():
        _set(judging, section, key, parse)
    if 0 < judging.errors_not_inferior <= (judging.error_margin or 1):
        section.complain("errors_not_inferior", "errors_not_inferior must be more than error_margin")


def _matches(section: Section) -> list[rollouts_pb2.HeaderMatch]:
    if len(section.sections("match")) > MAX_MATCHES:
        section.complain("match", f"match has more than {MAX_MATCHES} entries")
    return [match for entry in section.sections("match") if (match := read_match(entry)) is not None]


def read_match(section: Section, *more: str) -> rollouts_pb2.HeaderMatch | None:
    """A header by which calls are sent to an arm; None if it is no good, which is noted. `more` are further keys."""
    section.only(("header", "exact", "prefix", *more))
    header = section.read("header", _header, "")
    given = [key for key in ("exact", "prefix") if key in section]
    if not header or len(given) != 1:
        section.complain("header", 'a match is {header: x-tester, exact: "1"}, or with prefix in place of exact')
        return None
    return rollouts_pb2.HeaderMatch(header=header, **{given[0]: section.read(given[0], values.text, "")})


def _set(message: Any, section: Section, key: str, parse: Callable[[object], Any]) -> None:
    """Sets the field of the key's name, if the key is there."""
    value = section.read(key, parse, None)
    if isinstance(value, Duration):
        getattr(message, key).CopyFrom(value)
    elif value is not None:
        setattr(message, key, value)


def _choice(words: tuple[str, ...]) -> Callable[[object], Any]:
    """A parser for an enum whose values are numbered from 1 in the words' order."""
    return lambda value: words.index(values.one_of(*words)(value)) + 1


def _number(wanted: str, fits: Callable[[float], bool]) -> Callable[[object], float]:
    """A parser for numbers; YAML reads 1e-5 as text."""

    def parse(value: object) -> float:
        try:
            figure = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else nan
        except (ValueError, OverflowError):
            figure = nan
        if not fits(figure):
            raise Unfit(wanted)
        return figure

    return parse


def _sample(value: object) -> int:
    if not values.weight(value):
        raise Unfit("more than 0%")
    return values.weight(value)


def _header(value: object) -> str:
    if not _HEADER.fullmatch(values.text(value)):
        raise Unfit("in lower case, of a-z, 0-9, '.', '_' and '-'")
    return values.text(value)


def _description(value: object) -> str:
    if len(values.text(value)) > MAX_TEXT_CHARACTERS:
        raise Unfit(f"text of at most {MAX_TEXT_CHARACTERS} characters")
    return values.text(value)


_MARGIN = _number(f"a number of times, from 1 to {MAX_MARGIN}", lambda figure: 1 <= figure <= MAX_MARGIN)
_JUDGED = {
    "alpha": _number(f"from {MIN_ALPHA:g} to {MAX_ALPHA}", lambda figure: MIN_ALPHA <= figure <= MAX_ALPHA),
    "error_margin": _MARGIN,
    "p95_margin": _MARGIN,
    "p99_margin": _MARGIN,
    "output_margin": _number(f"0, or from 1 to {MAX_MARGIN}", lambda figure: figure == 0 or 1 <= figure <= MAX_MARGIN),
    "errors_not_inferior": _number(f"more than 1, and at most {MAX_MARGIN}", lambda figure: 1 < figure <= MAX_MARGIN),
}
_COMPARED = {
    "absolute_tolerance": _number("a number of at least 0", lambda figure: 0 <= figure < inf),
    "relative_tolerance": _number("a number from 0 to 1", lambda figure: 0 <= figure <= 1),
    "min_agreement": _number("more than 0, and at most 1", lambda figure: 0 < figure <= 1),
}
