"""The verdict on a canary: all evidence so far against its thresholds. Pure; may be asked every second.

What counts is the first time that evidence reaches its threshold. Whoever asks acts on it: evidence may fall again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import log

from inferway.errors import InvalidField
from inferway_chassis import ratio
from inferway_registry.judge import split, wording
from inferway_registry.judge.counts import Counts, Phase
from inferway_registry.judge.plan import Drift, Metric, Plan, Rate


class Verdict(Enum):
    """What may be said of the canary, or of one of its metrics."""

    CONTINUE = "continue"
    """No harm was found so far. A step whose units and time are complete may end with this."""
    HARM = "harm"
    """The canary is worse by more than the margin: roll back."""
    MISMATCH = "mismatch"
    """Units do not reach the arms as assigned, so counts mislead: pause. Harm beyond what that explains is HARM."""
    NO_DATA = "no data"
    """Too little was seen: wait or pause, neither promote nor roll back."""
    SAFE = "safe"
    """Proven to be within the margin of each metric that asks for it (`Rate.not_inferior`)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one metric."""

    name: str
    verdict: Verdict
    log_e: float
    """Natural logarithm of the evidence: that the canary is worse, or, for SAFE, that it is not."""
    threshold: float
    """What that must reach."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on the canary, in numbers and in words."""

    verdict: Verdict
    sentence: str
    """Why, in plain English."""
    findings: tuple[Finding, ...]
    """Of the metrics in the order of the plan, of the split, and of the units."""


_ORDER = (Verdict.HARM, Verdict.MISMATCH, Verdict.NO_DATA)
"""The first of these that is found decides."""
_MEANING = {
    Verdict.CONTINUE: "No harm so far.",
    Verdict.HARM: "The candidate does harm.",
    Verdict.MISMATCH: "Units do not reach the arms as assigned.",
    Verdict.NO_DATA: "Too little was seen.",
    Verdict.SAFE: "The candidate is proven safe.",
}


def judge(plan: Plan, phases: Sequence[Phase]) -> Judgement:
    """Judges what was counted since the rollout began; `phases` are its settings of the weights, the last is in force.

    Under no harm, HARM is ever returned in at most `plan.alpha` of all rollouts, whenever and however often it is
    asked. SAFE where not all metrics within their margins is ever returned in at most `plan.alpha`: as all of them
    must be proven, each is tested at the whole of it (R. L. Berger, "Multiparameter hypothesis testing and acceptance
    sampling", Technometrics 1982).
    """
    balance = _balance(plan, phases)
    seen = phases if balance.verdict is Verdict.CONTINUE else tuple(map(_as_measured, phases))
    metrics = tuple(_finding(plan, metric, seen) for metric in plan.metrics)
    findings = (*metrics, balance, _enough(plan, phases))
    verdict = next((each for each in _ORDER if any(each is found.verdict for found in findings)), None)
    if verdict is None:
        verdict = _safe_or_continue(plan, metrics)
    return Judgement(verdict, _why(verdict, metrics if verdict is Verdict.CONTINUE else findings), findings)


def _safe_or_continue(plan: Plan, metrics: Iterable[Finding]) -> Verdict:
    asked = {metric.name for metric in plan.metrics if isinstance(metric, Rate) and metric.not_inferior is not None}
    proven = {found.name for found in metrics if found.verdict is Verdict.SAFE}
    return Verdict.SAFE if asked and asked <= proven else Verdict.CONTINUE


def _why(verdict: Verdict, findings: Iterable[Finding]) -> str:
    """The finding that made the verdict, if several the strongest; for CONTINUE the one that is nearest to harm."""
    those = (found for found in findings if found.verdict is verdict)
    nearest = max(those, key=lambda found: found.log_e - found.threshold, default=None)
    return f"{_MEANING[verdict]} {nearest.sentence if nearest else ''}".rstrip()


def _as_measured(phase: Phase) -> Phase:
    """With the share that the canary's newcomers had in place of the assigned one."""
    return replace(phase, share=split.measured(_arrivals(phase))[0])


def _finding(plan: Plan, metric: Metric, phases: Sequence[Phase]) -> Finding:
    match metric:
        case Rate():
            return _rate(plan, metric, phases)
        case Drift():
            return _drift(plan, metric, phases)


def _rate(plan: Plan, metric: Rate, phases: Sequence[Phase]) -> Finding:
    arms = ((_share(metric, phase), phase.canary.events, phase.stable.events) for phase in phases)
    tallies = [(share, _sum(metric.kinds, canary), _sum(metric.kinds, stable)) for share, canary, stable in arms]
    harm, threshold = ratio.log_e(tallies, metric.margin, ratio.ABOVE), -log(metric.alpha)
    if harm >= threshold:
        return Finding(metric.name, Verdict.HARM, harm, threshold, wording.events(metric, tallies, harm, threshold))
    if metric.most_stable_share is not None and _stable_share(metric, phases) > metric.most_stable_share:
        return Finding(metric.name, Verdict.NO_DATA, harm, threshold, wording.stable_fails(metric))
    if metric.not_inferior is not None:
        proof, enough = ratio.log_e(tallies, metric.not_inferior, ratio.NEAR_BELOW), -log(plan.alpha)
        if proof >= enough:
            sentence = wording.not_inferior(metric, tallies, proof, enough)
            return Finding(metric.name, Verdict.SAFE, proof, enough, sentence)
    return Finding(metric.name, Verdict.CONTINUE, harm, threshold, wording.events(metric, tallies, harm, threshold))


def _sum(kinds: Iterable[str], events: Mapping[str, int]) -> int:
    return sum(events.get(kind, 0) for kind in kinds)


def _share(metric: Rate, phase: Phase) -> float:
    """The canary's, of the units that could have the event."""
    if not metric.without:
        return phase.share
    canary, stable = (1 - _frequency(metric.without, arm) for arm in (phase.canary, phase.stable))
    both = phase.share * canary + (1 - phase.share) * stable
    return phase.share * canary / both if both > 0 else 0.0


def _frequency(kinds: Iterable[str], arm: Counts) -> float:
    return min(1.0, _sum(kinds, arm.events) / max(1, arm.units))


def _stable_share(metric: Rate, phases: Sequence[Phase]) -> float:
    """Of the stable arm's units under the weights in force, how many had the event."""
    stable = phases[-1].stable if phases else Counts()
    return _frequency(metric.kinds, stable)


def _drift(plan: Plan, metric: Drift, phases: Sequence[Phase]) -> Finding:
    bins = _bins(metric.output or metric.name, phases)
    evidence, threshold = ratio.log_any(bins, metric.margin), -log(metric.alpha)
    canary = sum(tally[1] for tallies in bins for tally in tallies)
    if evidence >= threshold:
        worst = max(range(len(bins)), key=lambda number: ratio.log_either(bins[number], metric.margin))
        sentence = wording.shifted(metric, worst, bins[worst], evidence, threshold)
        return Finding(metric.name, Verdict.HARM, evidence, threshold, sentence)
    if canary < plan.min_units:
        sentence = wording.few_outputs(metric, canary, plan.min_units)
        return Finding(metric.name, Verdict.NO_DATA, evidence, threshold, sentence)
    return Finding(metric.name, Verdict.CONTINUE, evidence, threshold, wording.alike(metric, evidence, threshold))


def _bins(name: str, phases: Sequence[Phase]) -> list[list[ratio.Tally]]:
    """For each bin the tallies of all phases. Raises InvalidField if arms or phases have different bins.

    The share is that of the outputs that were seen, not of the units: how many units get an answer at all is no matter
    of what it is. That makes evidence a little less than it might be, as a shifted bin is among those that it is
    compared with.
    """
    rows = [(phase.share, phase.canary.bins.get(name, ()), phase.stable.bins.get(name, ())) for phase in phases]
    count = max((len(counts) for _, *arms in rows for counts in arms), default=0)
    if any(counts and len(counts) != count for _, *arms in rows for counts in arms):
        raise InvalidField.at(f"bins[{name}]", "the arms have different numbers of bins")
    none = (0,) * count
    filled = [(_seen_share(*row), row[1] or none, row[2] or none) for row in rows]
    return [[(share, canary[number], stable[number]) for share, canary, stable in filled] for number in range(count)]


def _seen_share(share: float, canary: Sequence[int], stable: Sequence[int]) -> float:
    both = sum(canary) + sum(stable)
    return sum(canary) / both if both and 0 < share < 1 else 0.0


def _balance(plan: Plan, phases: Sequence[Phase]) -> Finding:
    evidence, threshold = split.log_e(map(_arrivals, phases)), -log(plan.split_alpha)
    verdict = Verdict.MISMATCH if evidence >= threshold else Verdict.CONTINUE
    tallies = [(phase.share, phase.canary.newcomers, phase.stable.newcomers) for phase in phases]
    return Finding("split", verdict, evidence, threshold, wording.split(tallies, evidence, threshold))


def _arrivals(phase: Phase) -> split.Arrivals:
    """The canary's first."""
    return (phase.share, phase.canary.newcomers), (1 - phase.share, phase.stable.newcomers)


def _enough(plan: Plan, phases: Sequence[Phase]) -> Finding:
    """Whether both arms met anybody. One unit of the stable arm will do: far too few of them are a mismatch."""
    phase = phases[-1] if phases else Phase(0)
    silent = phase.share < 1 and not phase.stable.units
    verdict = Verdict.NO_DATA if silent or phase.canary.units < plan.min_units else Verdict.CONTINUE
    sentence = wording.units(phase.canary.units, plan.min_units, silent=silent)
    return Finding("units", verdict, 0.0, 0.0, sentence)
