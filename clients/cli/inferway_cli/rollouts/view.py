"""A rollout on a terminal: all of it as lines, or how it goes in one. Pure: a rollout and the time in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.rollouts.figures import (
    VERDICTS,
    clock,
    errors,
    findings,
    fullness,
    latency,
    odds_of,
    share,
    total_errors,
)
from inferway_cli.rollouts.named import is_over, shown, state_name
from inferway_cli.rollouts.spec import percent, seconds, short, strategy_name, with_defaults

Rollout = rollouts_pb2.Rollout
BAR_COLUMNS = 40
EVIDENCE_COLUMNS = 20
WORTH_SAYING = 0.25
"""Of what it must reach; less evidence than that is noise."""
_COLOURS = {
    Rollout.STATE_SUCCEEDED: "green",
    Rollout.STATE_PAUSED: "yellow",
    Rollout.STATE_ROLLING_BACK: "red",
    Rollout.STATE_ROLLED_BACK: "red",
    Rollout.STATE_FAILED: "red",
}
_VERDICT_COLOURS = {
    rollouts_pb2.RolloutJudgement.VERDICT_HARM: "red",
    rollouts_pb2.RolloutJudgement.VERDICT_MISMATCH: "yellow",
    rollouts_pb2.RolloutJudgement.VERDICT_NO_DATA: "yellow",
    rollouts_pb2.RolloutJudgement.VERDICT_SAFE: "green",
}


def frame(rollout: Rollout, now: datetime, *, in_full: bool) -> RenderableType:
    """Everything, the most important first, as a terminal may be short.

    `in_full` has the sentence of every metric, otherwise only of those that say something.
    """
    parts: list[RenderableType] = [_title(rollout, now), *_weights(rollout), *_words(rollout), Text(), _arms(rollout)]
    if rollout.judgement.findings:
        parts += [Text(), Text("evidence; a full bar decides", style="bold"), _evidence(rollout)]
        parts += _sentences(rollout, in_full=in_full)
    for mirror in rollout.mirrors:
        parts += [Text(), *_mirror(rollout, mirror)]
    return Group(*parts)


def line(rollout: Rollout, now: datetime) -> str:
    """How it goes, in one line."""
    stable, candidate = rollout.stable, rollout.candidate
    parts = [f"{shown(rollout)} {where(rollout)} for {clock(_in_state(rollout, now))}"]
    if stable.units or candidate.units:
        parts.append(f"units {stable.units:,} and {candidate.units:,}")
    if stable.requests or candidate.requests:
        parts.append(f"errors {_share_of_errors(stable)} and {_share_of_errors(candidate)}")
        parts.append(f"p99 {latency(stable.latency.p99_us)} and {latency(candidate.latency.p99_us)}")
    nearest = max(rollout.judgement.findings, key=fullness, default=None)
    if nearest is not None and fullness(nearest) >= WORTH_SAYING:
        parts.append(f"{nearest.metric} {odds_of(nearest)}")
    parts += [
        f"{mirror.pairs:,} pairs, {share(mirror.agreeing, mirror.pairs)} agree"
        for mirror in rollout.mirrors[-1:]
        if mirror.pairs
    ]
    return "; ".join(parts)


def where(rollout: Rollout) -> str:
    """`RUNNING step 2 of 3, 25%`."""
    state = state_name(rollout.state)
    steps = rollout.spec.canary.steps
    weight = percent(rollout.candidate_weight_basis_points)
    if rollout.state == Rollout.STATE_RUNNING and steps:
        return f"{state} step {rollout.step + 1} of {len(steps)}, {weight}"
    return state if is_over(rollout) else f"{state}, {weight}"


def change(rollout: Rollout) -> str:
    """`digits/1 -> digits/2, canary`."""
    stable, candidate = short(rollout.stable_version), short(rollout.spec.candidate_version)
    return f"{stable} -> {candidate}, {strategy_name(rollout.spec)}"


def _title(rollout: Rollout, now: datetime) -> Text:
    title = Text(f"rollout {shown(rollout)}: {change(rollout)}\n", style="bold")
    title.append(where(rollout), style=_COLOURS.get(rollout.state, "cyan"))
    return title.append(f" for {clock(_in_state(rollout, now))}", style="not bold")


def _weights(rollout: Rollout) -> Iterator[Text]:
    points = rollout.candidate_weight_basis_points
    filled = round(points / 10_000 * BAR_COLUMNS) or (1 if points else 0)
    bar = Text("█" * filled, style="cyan").append("░" * (BAR_COLUMNS - filled), style="dim")
    candidate, stable = short(rollout.spec.candidate_version), short(rollout.stable_version)
    yield bar.append(f"  {percent(points)} {candidate}, {percent(10_000 - points)} {stable}", style="default not dim")
    steps = with_defaults(rollout.spec).canary.steps
    if steps:
        told = [f"{percent(step.weight_basis_points)} for {seconds(step.hold)}" for step in steps]
        now = rollout.state == Rollout.STATE_RUNNING
        marked = [f"[{text}]" if now and number == rollout.step else text for number, text in enumerate(told)]
        yield Text(f"steps: {' · '.join(marked)} · 100%", style="dim")


def _arms(rollout: Rollout) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    arms = (rollout.stable, rollout.candidate)
    table.add_column("")
    table.add_column(f"{short(rollout.stable_version)} (stable)", overflow="fold")
    table.add_column(f"{short(rollout.spec.candidate_version)} (candidate)", overflow="fold")
    rows = {
        "units": [f"{arm.units:,}" for arm in arms],
        "requests": [f"{arm.requests:,}" for arm in arms],
        "errors": [errors(arm) for arm in arms],
        "p50": [latency(arm.latency.p50_us) for arm in arms],
        "p95": [latency(arm.latency.p95_us) for arm in arms],
        "p99": [latency(arm.latency.p99_us) for arm in arms],
    }
    for name, cells in rows.items():
        table.add_row(name, *map(Text, cells))
    return table


def _evidence(rollout: Rollout) -> Table:
    table = Table.grid(padding=(0, 2))
    for wraps in (True, False, False, False):
        table.add_column(no_wrap=not wraps)
    for finding in findings(rollout):
        colour = _VERDICT_COLOURS.get(finding.verdict, "cyan")
        filled = round(fullness(finding) * EVIDENCE_COLUMNS)
        bar = Text("█" * filled, style=colour).append("░" * (EVIDENCE_COLUMNS - filled), style="dim")
        shown_bar = (bar, Text(odds_of(finding))) if finding.log_threshold > 0 else (Text(), Text())
        table.add_row(Text(finding.metric), *shown_bar, Text(VERDICTS.get(finding.verdict, "?"), style=colour))
    return table


def _sentences(rollout: Rollout, *, in_full: bool) -> Iterator[Text]:
    quiet = rollouts_pb2.RolloutJudgement.VERDICT_CONTINUE
    for finding in findings(rollout):
        if in_full or finding.verdict != quiet:
            yield Text(f"  {finding.reason}", style="dim" if finding.verdict == quiet else "")


def _mirror(rollout: Rollout, mirror: rollouts_pb2.MirrorFigures) -> Iterator[Text]:
    full = with_defaults(rollout.spec)
    asked = (full.shadow if full.HasField("shadow") else full.blue_green).mirror.min_agreement
    primary, copied = short(mirror.primary_version), short(mirror.mirrored_version)
    yield Text(f"copies: users get {primary}, copies go to {copied}", style="bold")
    if not mirror.pairs:
        yield Text("  no pair of answers yet")
        return
    low, high = mirror.agreement_lower_bound, mirror.agreement_upper_bound
    yield Text(
        f"  {mirror.pairs:,} pairs, {share(mirror.agreeing, mirror.pairs)} agree; {100 * low:.1f}% to "
        f"{100 * high:.1f}% with confidence 95%, {100 * asked:g}% is asked for"
    )
    failures = f"  failed alone: {primary} {mirror.primary_errors:,}, {copied} {mirror.mirrored_errors:,}"
    yield Text(f"{failures}; copies not made, as too many waited: {mirror.dropped:,}")
    pair = (mirror.primary_latency, mirror.mirrored_latency)
    told = (f"{name} {' and '.join(latency(getattr(one, f'{name}_us')) for one in pair)}" for name in ("p50", "p99"))
    yield Text(f"  of the same requests: {', '.join(told)}")


def _words(rollout: Rollout) -> Iterator[Text]:
    for title, text in (("why", rollout.reason), ("judge", rollout.judgement.reason), ("next", rollout.next)):
        if text and not (title != "why" and is_over(rollout)):
            yield Text(f"{title:<6}", style="bold").append(text, style="not bold")


def _share_of_errors(arm: rollouts_pb2.ArmFigures) -> str:
    return share(total_errors(arm), arm.requests)


def _in_state(rollout: Rollout, now: datetime) -> float:
    return (now - rollout.state_time.ToDatetime(UTC)).total_seconds() if rollout.HasField("state_time") else 0.0
