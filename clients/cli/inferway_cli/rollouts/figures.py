"""Figures of rollouts as people read them: shares, odds, times, percentiles. Pure."""

from __future__ import annotations

from math import exp, log

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.rollouts.named import is_over
from inferway_cli.serving_words import duration

Verdict = rollouts_pb2.RolloutJudgement
_PLAIN_ODDS = 1e6
_MINUTE, _HOUR = 60, 3_600
VERDICTS = {
    Verdict.VERDICT_UNSPECIFIED: "not judged",
    Verdict.VERDICT_CONTINUE: "no harm so far",
    Verdict.VERDICT_HARM: "harm",
    Verdict.VERDICT_MISMATCH: "counts mislead",
    Verdict.VERDICT_NO_DATA: "too little seen",
    Verdict.VERDICT_SAFE: "proven safe",
}


def odds(log_evidence: float) -> str:
    """Evidence as odds, `12 to 1`; a power of ten where it is large."""
    if log_evidence > log(_PLAIN_ODDS):
        return f"10^{log_evidence / log(10):,.0f} to 1"
    value = exp(log_evidence)
    return f"{value:,.0f} to 1" if value >= 10 else f"{value:.2g} to 1"  # noqa: PLR2004 - two digits are enough


def odds_of(finding: rollouts_pb2.RolloutFinding) -> str:
    """Evidence beside what it must reach, `7.1 of 50 to 1`."""
    return f"{odds(finding.log_evidence).removesuffix(' to 1')} of {odds(finding.log_threshold)}"


def findings(rollout: rollouts_pb2.Rollout) -> list[rollouts_pb2.RolloutFinding]:
    """What the judge found; after the end, without what it would have waited for."""
    found = list(rollout.judgement.findings)
    if not is_over(rollout):
        return found
    return [one for one in found if one.log_threshold > 0 or one.verdict != Verdict.VERDICT_NO_DATA]


def fullness(finding: rollouts_pb2.RolloutFinding) -> float:
    """How much of what it must reach the evidence has, from 0 to 1; 0 for what is not measured by evidence."""
    if finding.log_threshold <= 0:
        return 0.0
    return min(1.0, max(0.0, finding.log_evidence / finding.log_threshold))


def total_errors(arm: rollouts_pb2.ArmFigures) -> int:
    """Of all reasons."""
    return sum(arm.errors.values())


def share(part: float, whole: float) -> str:
    """`0.52%`; `-` of nothing."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.3g}%" if percent < 99.5 else f"{percent:.2f}%".replace("100.00%", "100%")  # noqa: PLR2004 - 3 digits


def errors(arm: rollouts_pb2.ArmFigures) -> str:
    """`12 (0.3%): INTERNAL 12`."""
    total = total_errors(arm)
    if not total:
        return "none" if arm.requests else "-"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(arm.errors.items()))
    return f"{total:,} ({share(total, arm.requests)}): {reasons}"


def latency(microseconds: int) -> str:
    """`3.1 ms`; `-` where there were no answers."""
    return duration(microseconds) if microseconds else "-"


def clock(seconds: float) -> str:
    """`12s`, `3m 20s`, `1h 05m`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
