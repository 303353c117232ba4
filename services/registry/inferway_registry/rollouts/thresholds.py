"""How the stable version answers, frozen before anything moves: what counts as slow, and the bins of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import quantiles

from inferway_registry.rollouts.facts import Profile
from inferway_registry.rollouts.rollout import Thresholds

MIN_ANSWERS = 100
"""Fewer say too little about a 99th percentile."""
MIN_VALUES = 20
"""Fewer say too little about deciles."""
MIN_SEEN = 0.5
"""Of the answers with the most frequent output: rarer outputs are not judged, as they would hold every step."""
MAX_CLASSES = 20
FIRST_BUCKET_US, BUCKET_FACTOR = 10, 1.05
_HUGE = 1e300
"""So large values are no figures, nor are those that are not finite: no mean of them could be taken."""
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5
"""Values that are nearer to each other are the same, up to the arithmetic of another build of the model."""


def thresholds(profile: Profile) -> Thresholds:
    """What `profile` says, of at least `MIN_ANSWERS` answers; with fewer latency is not judged."""
    edges = {output: output_edges(values) for output, values in _frequent(profile).items()}
    known = {output: found for output, found in edges.items() if found}
    if profile.answers < MIN_ANSWERS:
        return Thresholds(edges=known)
    return Thresholds(percentile_us(profile.latency, 0.95), percentile_us(profile.latency, 0.99), known)


def percentile_us(latency: Mapping[int, int], share: float) -> int:
    """The upper edge of the bucket in which `share` of the answers is reached, in microseconds; 0 if there are none."""
    needed, seen = share * sum(latency.values()), 0
    for bucket in sorted(latency):
        seen += latency[bucket]
        if seen >= needed and seen:
            return round(FIRST_BUCKET_US * BUCKET_FACTOR**bucket)
    return 0


def output_edges(values: Sequence[float]) -> tuple[float, ...]:
    """Where one bin of an output ends and the next begins, ascending; empty if too little was seen.

    Few whole numbers are classes, and each gets a bin. Other values are cut at their deciles. A value that several
    deciles fall on (a constant output, a probability that is nearly always 1) gets a bin of its own, a little wider
    than itself, so that arithmetic alone does not move answers out of it.
    """
    finite = sorted(value for value in values if abs(value) < _HUGE)
    if len(finite) < MIN_VALUES:
        return ()
    classes = set(finite)
    if len(classes) <= MAX_CLASSES and all(value.is_integer() for value in classes):
        return tuple(sorted({value + side for value in classes for side in (-0.5, 0.5)}))
    return _around(quantiles(finite, n=10, method="inclusive"))


def _around(deciles: Sequence[float]) -> tuple[float, ...]:
    groups: list[list[float]] = []
    for decile in deciles:
        if groups and decile - groups[-1][0] <= _tolerance(decile):
            groups[-1].append(decile)
        else:
            groups.append([decile])
    pairs = ((group[0], group[-1], _tolerance(group[0]) if len(group) > 1 else 0.0) for group in groups)
    return tuple(sorted({edge for first, last, width in pairs for edge in (first - width, last + width)}))


def _tolerance(value: float) -> float:
    return _ABSOLUTE + _RELATIVE * abs(value)


def _frequent(profile: Profile) -> Mapping[str, Sequence[float]]:
    seen = {output: profile.seen.get(output, len(values)) for output, values in profile.outputs.items()}
    most = max(seen.values(), default=0)
    return {output: values for output, values in profile.outputs.items() if seen[output] >= MIN_SEEN * most}
