"""The books of what is due when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_inference.backlog import Backlog, Newcomer, rounded
from inferway_inference.work import Part
from tests.unit.inference.requests import admitted


def part(deadline: float, work: float = 0.1, **fields: Any) -> Part:
    request = admitted(1, deadline=deadline)
    return Part(request, deadline, 1, 0, work_seconds=work, **fields)


def newcomer(deadline: float, criticality: int = 2, tenant: str = "") -> Newcomer:
    """Asks for a tenth of a second in batches of a tenth."""
    return Newcomer(criticality, tenant, deadline, 0.1, 0.1, 0.1, 0.1, 0.1)


def late_by(waiting: list[Part], who: Newcomer) -> float:
    backlog = Backlog()
    for one in waiting:
        backlog.add(one, now=0.0)
    return backlog.too_late_by(who, free_at=0.0)


def test_only_what_is_due_before_goes_before():
    """Nearest deadline first: a patient crowd does not keep an urgent request out."""
    patient = [part(64.0) for _ in range(20)]

    assert late_by(patient, newcomer(0.2)) <= 0
    assert late_by(patient, newcomer(64.0)) <= 0
    assert late_by([part(0.125) for _ in range(20)], newcomer(1.0)) == pytest.approx(1.1)


def test_who_would_make_somebody_behind_it_late_is_not_let_in():
    """Those who wait were promised an answer."""
    waiting = [part(1.0) for _ in range(9)]

    assert late_by(waiting, newcomer(0.5)) <= 0.0 + 1e-9
    assert late_by([*waiting, part(1.0)], newcomer(0.5)) == pytest.approx(0.1)


def test_the_share_of_a_tenant_goes_by_its_weight():
    """The door must promise what the queue keeps."""

    def late(weights: dict[str, float]) -> float:
        backlog = Backlog(weights)
        for _ in range(30):
            backlog.add(part(64.0, tenant="crowd"), now=0.0)
        for _ in range(4):
            backlog.add(part(64.0, tenant="gold"), now=0.0)
        return backlog.too_late_by(newcomer(64.0, tenant="gold"), free_at=0.0)

    assert late({}) - late({"gold": 4.0}) == pytest.approx(0.3, abs=0.1)


def test_the_less_critical_do_not_count():
    """They give way."""
    assert late_by([part(0.125, criticality=3) for _ in range(20)], newcomer(0.2, criticality=1)) <= 0
    assert late_by([part(64.0, criticality=1) for _ in range(20)], newcomer(0.2, criticality=3)) > 1


def test_another_tenant_counts_for_no_more_than_its_share():
    """However much a busy tenant has waiting, a quiet one gets every second turn."""
    busy = [part(0.125, tenant="busy") for _ in range(50)]

    assert late_by(busy, newcomer(0.25, tenant="quiet")) <= 0


@given(st.floats(0.0, 1e6), st.floats(1e-6, 1e3))
def test_rounding_is_down_and_by_little(now: float, left: float):
    """Late is late; and a sixteenth of patience is a small price for short books."""
    assert now + left * (1 - 1 / 16) - 1e-6 <= rounded(now + left, now) <= now + left


@given(st.lists(st.tuples(st.floats(0.01, 50), st.sampled_from("ab"), st.integers(1, 4)), max_size=50))
def test_nothing_is_left_in_the_books_when_everybody_left(parts: list[tuple[float, str, int]]):
    """What stayed would refuse people for ever."""
    backlog = Backlog()
    waiting = [part(deadline, tenant=tenant, criticality=criticality) for deadline, tenant, criticality in parts]
    for one in waiting:
        backlog.add(one, now=0.0)
    for one in waiting:
        backlog.remove(one)

    assert backlog.total_seconds == 0
    assert backlog.seconds(4) == 0
