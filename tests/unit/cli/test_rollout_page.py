"""The page of a rollout, and its charts; pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from rich.console import Console

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.rollouts.drawing import HEIGHT, LEFT, RIGHT, WIDTH, Chart, Line, ticks
from inferway_cli.rollouts.page import page
from inferway_cli.rollouts.view import frame
from tests.unit.cli.fake_rollouts import CANDIDATE, STABLE, Judgement, Rollout, finding, rollout

EVIL = "<script>alert(1)</script>\x1b[2J"
NOW = datetime(2001, 9, 9, 2, 0, tzinfo=UTC)
VOID = {"meta", "br"}


class Tags(HTMLParser):
    """Checks that what opens is closed, and keeps what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Tags:
    """The page, if it is well formed."""
    tags = Tags()
    tags.feed(markup)
    assert tags.open == []
    return tags


def figures(requests: int, errors: int) -> rollouts_pb2.ArmFigures:
    """Of an arm whose p99 is 4 ms."""
    latency = rollouts_pb2.LatencyFigures(p50_us=1_000, p95_us=2_000, p99_us=4_000)
    return rollouts_pb2.ArmFigures(
        version=CANDIDATE, units=requests, requests=requests, errors={"INTERNAL": errors}, latency=latency
    )


def finished() -> Rollout:
    """A canary that was rolled back, with a sample every ten seconds, and names and words of somebody evil."""
    done = rollout(Rollout.STATE_ROLLED_BACK, reason=f"the canary does harm {EVIL}")
    done.spec.description = EVIL
    done.stable.CopyFrom(figures(1_000, 0))
    done.candidate.CopyFrom(figures(100, 5))
    done.judgement.findings.append(finding(EVIL, Judgement.VERDICT_HARM, 5.0))
    for at, weight in ((0, 0), (10, 500), (20, 500), (30, 0)):
        sample = done.samples.add(candidate_weight_basis_points=weight)
        sample.sample_time.FromSeconds(done.create_time.seconds + at)
        sample.stable.CopyFrom(figures(100 * at, 0))
        sample.candidate.CopyFrom(figures(10 * at, at // 10))
        sample.findings.append(finding("errors", Judgement.VERDICT_CONTINUE, at * 3.91 / 30))
    for state, at in ((Rollout.STATE_RUNNING, 5), (Rollout.STATE_ROLLED_BACK, 30)):
        step = done.transitions.add(state=state, reason=EVIL, principal="controller")
        step.transition_time.FromSeconds(done.create_time.seconds + at)
    mirror = done.mirrors.add(primary_version=STABLE, mirrored_version=CANDIDATE, pairs=400, agreeing=398)
    mirror.outputs.add(output=EVIL, pairs=400, within_tolerance=300, rows=400, same_top_rows=398, max_absolute=0.25)
    mirror.examples.add(prediction_id=EVIL, distance=0.25).tensors.add(name=EVIL, role="mirrored", elements=EVIL)
    return done


def test_the_page_needs_nothing_else_and_runs_nothing():
    """It is sent by mail, kept for years, and shows what callers sent."""
    markup = page(finished(), NOW)
    tags = read(markup)

    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags.seen}
    assert not {"src", "href", "onload", "style"} & {name for _, attributes in tags.seen for name in attributes}
    assert "url(" not in markup
    assert "\x1b" not in markup
    assert tags.text.count("<script>alert(1)</script>\\x1b[2J") >= 8


def test_the_page_says_what_happened_and_why():
    """In the order in which a person asks."""
    text = read(page(finished(), NOW)).text

    for part in (
        "Rollout affine/1: affine/1 → affine/2, canary",
        "ROLLED_BACK",
        "What was asked for",
        "Requests that failed",
        "5 (5%): INTERNAL 5",
        "148 to 1",
        "Of 400 pairs of answers 99.50% agree",
        "same class on top",
        "RUNNING step 1",
        "30s",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("state", "told"), [(Rollout.STATE_RUNNING, True), (Rollout.STATE_SUCCEEDED, False), (Rollout.STATE_FAILED, False)]
)
def test_what_was_still_needed_is_told_until_the_end(state: Rollout.State.ValueType, told: bool):
    """`too little seen` beside SUCCEEDED says that nobody looked: after the end no unit is met under its weights."""
    one, needed = rollout(state), "0 of the 100 units needed"
    one.judgement.reason = f"Too little was seen. {needed}"
    one.judgement.findings.append(finding("errors", Judgement.VERDICT_NO_DATA, 0.0))
    one.judgement.findings.add(metric="units", verdict=Judgement.VERDICT_NO_DATA, reason=needed)
    terminal = Console(width=200)

    with terminal.capture() as captured:
        terminal.print(frame(one, NOW, in_full=True))
    texts = [read(page(one, NOW)).text, captured.get()]

    assert [needed in text for text in texts] == [told, told]
    assert all("errors" in text for text in texts)


def test_a_rollout_that_has_just_begun_has_a_page_too():
    """Nobody should have to know when it may be asked for."""
    assert "no figures yet" in read(page(rollout(Rollout.STATE_PENDING), NOW)).text


def test_the_curves_go_on_to_the_very_end():
    """What decided came after the last sample that was kept; a reader looks for it first."""
    done = finished()
    done.end_time.FromSeconds(done.create_time.seconds + 40)
    [evidence] = polylines(page(done, NOW).partition('aria-label="Evidence')[2].partition(EVIL[:4])[0])[-1:]
    weights = polylines(page(done, NOW))[0]

    assert evidence[-1][0] == weights[-1][0] == pytest.approx(WIDTH - RIGHT)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1.25, [0, 0.25, 0.5, 0.75, 1, 1.25]),
        (53.1, [0, 20, 40]),
        (311, [0, 100, 200, 300]),
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_axes_have_round_numbers(limit: float, expected: list[float]):
    """Nobody reads 13.3, 26.6, 39.9."""
    assert ticks(limit) == expected


@pytest.mark.parametrize("limit", [10 ** (exponent / 7) for exponent in range(-40, 60)])
def test_an_axis_has_neither_too_many_numbers_nor_too_few(limit: float):
    """Whatever its length."""
    assert 3 <= len(ticks(limit)) <= 6


def polylines(markup: str) -> list[list[tuple[float, float]]]:
    """The places of every curve."""
    found = re.findall(r'<polyline points="([^"]*)"', markup)
    return [[(float(x), float(y)) for x, y in (place.split(",") for place in one.split())] for one in found]


def test_a_chart_has_its_curves_where_their_values_are():
    """The first value at the left, the last at the right, the highest on top; what is too high stays on the paper."""
    chart = Chart("t", [Line("a", [(0, 0), (5, 50), (10, 500)])], most=100, level=(100.0, "enough"))
    [curve] = polylines(chart.svg())
    level = re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="[\d.]+" stroke="#222222"', chart.svg())

    assert curve[0][0] == LEFT
    assert LEFT < curve[1][0] < curve[2][0] < WIDTH
    assert HEIGHT > curve[0][1] > curve[1][1] > curve[2][1] == float(level[0])
    assert curve[0][1] - curve[1][1] == pytest.approx(curve[1][1] - curve[2][1], abs=0.2)


def test_steps_hold_until_the_next_one():
    """A weight does not grow between two steps."""
    [curve] = polylines(Chart("t", [Line("a", [(0, 5), (10, 25)])], stepped=True).svg())
    assert [y for _, y in curve][:2] == [curve[0][1]] * 2
    assert len(curve) == 3


def test_a_chart_without_values_says_so():
    """In place of an empty frame, which looks broken."""
    assert "no figures yet" in read(Chart("t", [Line("a", [])]).svg()).text
