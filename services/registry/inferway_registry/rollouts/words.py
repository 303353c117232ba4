"""What people read of a rollout: why it stands where it stands, and what comes next, in plain English. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from inferway_registry.judge import Judgement
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts import agreement as confidence
from inferway_registry.rollouts.facts import Facts, Pairs
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.spec import Canary, Mirror
from inferway_registry.rollouts.thresholds import percentile_us

BY_HAND = "Promoted by hand."
FAILS = "Verdict: fails. It fails where the stable version does not."
DIFFERS = "Verdict: differs. Too few answers agree."
AGREES = "Verdict: agrees. Enough answers agree."
UNDECIDED = "Verdict: undecided. It is not known whether enough answers agree."
_MINUTE, _HOUR = 60, 3600


def version(of: tuple[str, int]) -> str:
    """`digits/2`, as commands take it."""
    return f"{of[0]}/{of[1]}"


def percent(basis_points: int) -> str:
    """`2.5 %`."""
    return f"{basis_points / (FULL_WEIGHT // 100):g} %"


def between(lower: float, upper: float) -> str:
    """`between 96.9 % and 100.0 %`, of two shares."""
    return f"between {lower * 100:.1f} % and {upper * 100:.1f} %"


def span(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`; rounded up, so that nothing happens later than was said."""
    whole = max(0, ceil(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE} s" if whole % _MINUTE else "")
    minutes = ceil(whole / _MINUTE)
    return f"{minutes // _MINUTE} h" + (f" {minutes % _MINUTE} min" if minutes % _MINUTE else "")


def begun(rollout: Rollout) -> str:
    """On a rollout that was just made."""
    candidate, stable = version(rollout.spec.candidate), version(rollout.stable)
    return f"Users of the endpoint {rollout.endpoint} get {stable}; {candidate} was asked for."


def preparing(rollout: Rollout) -> str:
    """While nothing moves yet."""
    return (
        f"Workers load {version(rollout.spec.candidate)}, and gateways learn how {version(rollout.stable)} answers. "
        "No traffic moves."
    )


def not_watched(rollout: Rollout) -> str:
    """When somebody has decided to go on without a baseline."""
    return f"{preparing(rollout)} {BY_HAND} As the stable version was not watched, only errors will be judged."


def not_loaded(rollout: Rollout, why: str) -> str:
    """On a candidate that workers fail to load."""
    return f"Workers cannot load {version(rollout.spec.candidate)}: {why}"


def loaded_too_late(rollout: Rollout, facts: Facts) -> str:
    """On a candidate that takes workers too long."""
    return (
        f"{facts.ready_workers} of {facts.needed_workers} workers have loaded {version(rollout.spec.candidate)} in "
        f"{span(rollout.spec.prepare_seconds)}. No traffic was moved."
    )


def no_workers(rollout: Rollout) -> str:
    """When there is nobody who could load the candidate."""
    return f"no data: no worker has {version(rollout.stable)} ready, so there is none to load the other."


def no_baseline(rollout: Rollout, facts: Facts, needed: int) -> str:
    """When the stable version was not asked enough to know how it answers."""
    seen = facts.profile.answers
    return f"no data: {version(rollout.stable)} gave {seen:,} answers while it was watched, {needed:,} are needed."


def unloaded(rollout: Rollout) -> str:
    """On a candidate that is gone."""
    return f"{version(rollout.spec.candidate)} was unloaded or deleted."


def brake(why: str) -> str:
    """On a candidate that a gateway stopped by itself."""
    return f"A gateway has stopped it: {why}"


def running(rollout: Rollout, step: int) -> str:
    """On a step of a canary, or on copies."""
    candidate, strategy = version(rollout.spec.candidate), rollout.spec.strategy
    if isinstance(strategy, Canary):
        share = percent(strategy.steps[step].weight_basis_points)
        return f"Step {step + 1} of {len(strategy.steps)}: {candidate} gets {share} of the users."
    return f"Copies of requests go to {candidate}; users get the answers of {version(rollout.stable)}."


def step_before(judgement: Judgement) -> str:
    """Why the next step begins."""
    return f"The step before: {judgement.sentence}"


def promoting(rollout: Rollout, why: str) -> str:
    """On a candidate that gets everything."""
    return f"All users get {version(rollout.spec.candidate)}. {why}"


def baking(rollout: Rollout, *, confirmed: bool) -> str:
    """After the switch."""
    who = "Every gateway sends" if confirmed else "Not every gateway has said so in time, but they shall send"
    return f"{who} all users to {version(rollout.spec.candidate)}; {version(rollout.stable)} stays loaded."


def succeeded(rollout: Rollout) -> str:
    """At the end of a bake."""
    return (
        f"{version(rollout.spec.candidate)} has had all users for {span(rollout.spec.bake_seconds)}, and no harm was "
        "found."
    )


def ended_by_hand(rollout: Rollout) -> str:
    """At a bake that somebody ended."""
    return f"{version(rollout.spec.candidate)} has all users; the bake was ended by hand."


def inconclusive(facts: Facts, judgement: Judgement, seconds: float) -> str:
    """When too little was seen for too long."""
    why = judgement.sentence if facts.holders else "No worker has the candidate ready."
    why = why if facts.gateways else "No gateway reports."
    return f"no data: nothing could be said in {span(seconds)}. {why}"


def mismatch(judgement: Judgement) -> str:
    """When counts mislead. Other programs look for the word before the colon."""
    return f"srm: {judgement.sentence}"


def disagreement(rollout: Rollout, pairs: Pairs, mirror: Mirror) -> str:
    """When copies are answered otherwise."""
    return f"{version(rollout.spec.candidate)} answers otherwise. {agreement(pairs, mirror)}"


def compared(verdict: str, pairs: Pairs, mirror: Mirror, judgement: Judgement) -> str:
    """The verdict on a shadow, with what it rests on: agreement, errors, latency."""
    latency = f"{_p95(pairs.primary_latency)} before, {_p95(pairs.mirrored_latency)} now"
    errors = judgement.findings[0].sentence
    return f"{verdict} {agreement(pairs, mirror)} {errors} p95: {latency}. No traffic was moved."


def agreement(pairs: Pairs, mirror: Mirror) -> str:
    """How many pairs agree, and how sure that is."""
    lower, upper = confidence.bounds(pairs.pairs, pairs.agreeing)
    return (
        f"{pairs.agreeing:,} of {pairs.pairs:,} pairs agree: {between(lower, upper)} do, with 95 % confidence; "
        f"{mirror.min_agreement * 100:g} % are asked for."
    )


def pairs(seen: int, needed: int) -> str:
    """How many pairs there are."""
    return f"{seen:,} of the {needed:,} pairs needed were compared."


def _p95(latency: Mapping[int, int]) -> str:
    return f"{percentile_us(latency, 0.95) / 1000:.3g} ms" if latency else "unknown"
