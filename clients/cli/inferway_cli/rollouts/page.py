"""A rollout as one HTML page for people who were not there. Pure; needs no network and no scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from google.protobuf.timestamp_pb2 import Timestamp

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.console import escaped
from inferway_cli.rollouts.drawing import COLOURS, Chart, Line
from inferway_cli.rollouts.figures import VERDICTS, clock, errors, findings, latency, odds, share, total_errors
from inferway_cli.rollouts.named import is_over, shown, state_name
from inferway_cli.rollouts.spec import in_words, percent, short, strategy_name, with_defaults
from inferway_cli.views import timestamp

Rollout = rollouts_pb2.Rollout
Sample = rollouts_pb2.RolloutSample
MAX_EVIDENCE = 1.25
"""Of what rolls back; beyond it the curve says nothing more."""
_TONES = {
    Rollout.STATE_SUCCEEDED: "good",
    Rollout.STATE_ROLLED_BACK: "bad",
    Rollout.STATE_ROLLING_BACK: "bad",
    Rollout.STATE_FAILED: "bad",
}
_STRATEGIES = {
    "canary": "A growing share of the users gets the candidate, and what they meet is compared with what the users of "
    "the stable version meet at the same time.",
    "blue-green": "Copies of requests go to the candidate first, and both answers are compared. Then all users get it "
    "at one moment, while the version before stays one switch away.",
    "shadow": "Copies of requests go to the candidate, and both answers are compared. No user gets an answer of it.",
}
_EVIDENCE = (
    "Evidence says by how much what was seen is likelier if the candidate does harm than if it does none; of what is "
    "to be proven safe, the other way round. 50 to 1 is strong. Where the plot says 1 it decides. Looking often makes "
    "no false alarms likelier: their chance is fixed for the whole rollout."
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.3rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 0.5rem 0; } th { text-align: left; }
td, th { padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid #e2e2e2; vertical-align: top; }
.state { display: inline-block; padding: 0.1rem 0.6rem; border-radius: 0.3rem; color: #fff; background: #3d5a98; }
.good { background: #0b6e4f; } .bad { background: #c44536; } .quiet { color: #666; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } .charts svg { width: 28rem; max-width: 100%; }
svg { font: 11px sans-serif; } code { overflow-wrap: anywhere; }
"""


def page(rollout: Rollout, now: datetime) -> str:
    """The whole page, as of `now`."""
    title = f"Rollout {shown(rollout)}"
    parts = (_head(rollout), _asked(rollout), _charts(rollout, now), _judgement(rollout), _arms(rollout))
    body = "".join("".join(part) for part in (*parts, _mirrors(rollout), _history(rollout)))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>{body}"
        f'<p class="quiet">As of {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC.</p></body></html>\n'
    )


def _head(rollout: Rollout) -> Iterator[str]:
    strategy = strategy_name(rollout.spec)
    stable, candidate = short(rollout.stable_version), short(rollout.spec.candidate_version)
    yield f"<h1>Rollout {_safe(shown(rollout))}: {_safe(stable)} → {_safe(candidate)}, {_safe(strategy)}</h1>"
    yield f'<p><span class="state {_TONES.get(rollout.state, "")}">{_safe(state_name(rollout.state))}</span> '
    yield f"{_safe(rollout.reason)}</p>"
    if rollout.next and not is_over(rollout):
        yield f"<p>Next: {_safe(rollout.next)}</p>"
    if rollout.spec.description:
        yield f"<p>“{_safe(rollout.spec.description)}”</p>"
    yield f'<p class="quiet">{_safe(_STRATEGIES.get(strategy, ""))} <b>Stable</b> is the version that users had '
    yield "before, <b>candidate</b> the one that is tried.</p>"


def _asked(rollout: Rollout) -> Iterator[str]:
    yield "<h2>What was asked for</h2>"
    yield _table((), in_words(rollout.spec).items())


def _charts(rollout: Rollout, now: datetime) -> Iterator[str]:
    samples = [*rollout.samples, _last(rollout, now)]
    yield "<h2>How it went</h2>"
    times = [max(0.0, _since(rollout, sample.sample_time)) for sample in samples]
    charts = [
        _weights(rollout, times[-1]),
        _errors(samples, times),
        _latency(samples, times),
        _evidence(samples, times),
    ]
    yield f'<div class="charts">{"".join(chart.svg() for chart in charts)}</div>'
    yield f'<p class="quiet">Errors and latency are since the beginning of the rollout. {_safe(_EVIDENCE)}</p>'


def _last(rollout: Rollout, now: datetime) -> Sample:
    """The figures at the end, or now."""
    sample = Sample(stable=rollout.stable, candidate=rollout.candidate, findings=rollout.judgement.findings)
    sample.sample_time.CopyFrom(rollout.end_time)
    if not is_over(rollout):
        sample.sample_time.FromDatetime(now)
    return sample


def _weights(rollout: Rollout, end: float) -> Chart:
    points = [
        (_since(rollout, one.transition_time), one.candidate_weight_basis_points / 100) for one in rollout.transitions
    ]
    points.append((end, rollout.candidate_weight_basis_points / 100))
    return Chart(
        "The candidate's share of the traffic", [Line("candidate", points, colour=COLOURS[1])], "%", 100, stepped=True
    )


def _errors(samples: Sequence[Sample], times: Sequence[float]) -> Chart:
    def points(arm: Callable[[Sample], rollouts_pb2.ArmFigures]) -> list[tuple[float, float]]:
        figures = [(at, arm(sample)) for at, sample in zip(times, samples, strict=True)]
        return [(at, 100 * total_errors(one) / one.requests) for at, one in figures if one.requests]

    lines = [Line("stable", points(lambda one: one.stable)), Line("candidate", points(lambda one: one.candidate))]
    return Chart("Requests that failed", lines, "%")


def _latency(samples: Sequence[Sample], times: Sequence[float]) -> Chart:
    def line(name: str, arm: str, field: str, colour: str) -> Line:
        figures = [
            (at, getattr(getattr(sample, arm).latency, field)) for at, sample in zip(times, samples, strict=True)
        ]
        points = [(at, microseconds / 1e3) for at, microseconds in figures if microseconds]
        return Line(name, points, dashed=field == "p95_us", colour=colour)

    lines = [
        line(f"{arm} p{level}", arm, f"p{level}_us", colour)
        for arm, colour in (("stable", COLOURS[0]), ("candidate", COLOURS[1]))
        for level in (99, 95)
    ]
    return Chart("Latency: 99 and 95 of 100 answers are quicker", lines, " ms")


def _evidence(samples: Sequence[Sample], times: Sequence[float]) -> Chart:
    curves: dict[str, list[tuple[float, float]]] = {}
    for at, sample in zip(times, samples, strict=True):
        for finding in sample.findings:
            if finding.log_threshold > 0:
                value = finding.log_evidence / finding.log_threshold
                curves.setdefault(finding.metric, []).append((at, value))
    lines = [Line(metric, points) for metric, points in curves.items()]
    return Chart("Evidence, as a share of what decides (logarithm)", lines, most=MAX_EVIDENCE, level=(1.0, "enough"))


def _judgement(rollout: Rollout) -> Iterator[str]:
    judgement = rollout.judgement
    if not judgement.findings:
        return
    yield "<h2>What the judge says</h2>"
    if not is_over(rollout):
        yield f"<p>{_safe(judgement.reason)}</p>"
    rows = (
        (
            finding.metric,
            VERDICTS.get(finding.verdict, "?"),
            odds(finding.log_evidence) if finding.log_threshold > 0 else "",
            odds(finding.log_threshold) if finding.log_threshold > 0 else "",
            finding.reason.removeprefix(f"{finding.metric}: "),
        )
        for finding in findings(rollout)
    )
    yield _table(("metric", "verdict", "evidence", "enough", "in words"), rows)


def _arms(rollout: Rollout) -> Iterator[str]:
    arms = (rollout.stable, rollout.candidate)
    if not any(arm.requests for arm in arms):
        return
    yield "<h2>What users met</h2>"
    rows = (
        ("units (users with a key, else requests)", *(f"{arm.units:,}" for arm in arms)),
        ("requests", *(f"{arm.requests:,}" for arm in arms)),
        ("errors", *(errors(arm) for arm in arms)),
        *(
            (f"latency p{level}", *(latency(getattr(arm.latency, f"p{level}_us")) for arm in arms))
            for level in (50, 95, 99)
        ),
    )
    yield _table(("", f"{_version(rollout.stable)} (stable)", f"{_version(rollout.candidate)} (candidate)"), rows)


def _mirrors(rollout: Rollout) -> Iterator[str]:
    full = with_defaults(rollout.spec)
    asked = (full.shadow if full.HasField("shadow") else full.blue_green).mirror.min_agreement
    for mirror in rollout.mirrors:
        primary, copied = short(mirror.primary_version), short(mirror.mirrored_version)
        yield f"<h2>Copies: users got {_safe(primary)}, copies went to {_safe(copied)}</h2>"
        if not mirror.pairs:
            yield "<p>No pair of answers was compared.</p>"
            continue
        low, high = 100 * mirror.agreement_lower_bound, 100 * mirror.agreement_upper_bound
        yield (
            f"<p>Of {mirror.pairs:,} pairs of answers {share(mirror.agreeing, mirror.pairs)} agree. With confidence "
            f"95% the true share is between {low:.1f}% and {high:.1f}%; {100 * asked:g}% was asked for.</p>"
        )
        yield _table(("", primary, copied), _pair_rows(mirror))
        yield from _outputs(mirror)
        yield from _examples(mirror)


def _pair_rows(mirror: rollouts_pb2.MirrorFigures) -> Iterator[tuple[str, str, str]]:
    yield "failed alone", f"{mirror.primary_errors:,}", f"{mirror.mirrored_errors:,}"
    for level in (50, 95, 99):
        field = f"p{level}_us"
        one, other = getattr(mirror.primary_latency, field), getattr(mirror.mirrored_latency, field)
        yield f"latency p{level}", latency(one), latency(other)
    yield "copies not made, as too many waited", "", f"{mirror.dropped:,}"


def _outputs(mirror: rollouts_pb2.MirrorFigures) -> Iterator[str]:
    if not mirror.outputs:
        return
    yield "<h3>By output</h3>"
    head = ("output", "within tolerance", "same class on top", "largest difference", "relative", "mean", "divergence")
    yield _table(
        head,
        (
            (
                one.output,
                share(one.within_tolerance, one.pairs),
                share(one.same_top_rows, one.rows) if one.rows else "no classes",
                f"{one.max_absolute:.3g}",
                f"{one.max_relative:.3g}",
                f"{one.mean_absolute:.3g}",
                f"{one.mean_divergence:.3g} nats" if one.mean_divergence else "",
            )
            for one in mirror.outputs
        ),
    )


def _examples(mirror: rollouts_pb2.MirrorFigures) -> Iterator[str]:
    if not mirror.examples:
        return
    yield "<h3>The pairs that differ most</h3>"
    yield "<table><tr><th>difference</th><th>request</th><th>first elements</th></tr>"
    for example in mirror.examples:
        tensors = "<br>".join(
            f"{_safe(tensor.role)} {_safe(tensor.name)}: <code>{_safe(tensor.elements)}</code>"
            for tensor in example.tensors
        )
        request = f"<code>{_safe(example.prediction_id)}</code>"
        yield f"<tr><td>{example.distance:.3g}</td><td>{request}</td><td>{tensors or 'not kept'}</td></tr>"
    yield "</table>"


def _history(rollout: Rollout) -> Iterator[str]:
    yield "<h2>Every state and step</h2>"
    rows = (
        (
            timestamp(one.transition_time),
            clock(_since(rollout, one.transition_time)),
            state_name(one.state) + (f" step {one.step + 1}" if one.state == Rollout.STATE_RUNNING else ""),
            percent(one.candidate_weight_basis_points),
            one.reason,
            one.principal,
        )
        for one in rollout.transitions
    )
    yield _table(("when", "after", "state", "candidate", "why", "by"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = f"<tr>{''.join(f'<th>{_safe(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _version(arm: rollouts_pb2.ArmFigures) -> str:
    return short(arm.version)


def _since(rollout: Rollout, moment: Timestamp) -> float:
    return (moment.ToNanoseconds() - rollout.create_time.ToNanoseconds()) / 1e9


def _safe(text: str) -> str:
    return escape(escaped(text))
