"""Who is not let in again after a crash."""

from __future__ import annotations

import pytest

from inferway.errors import Quarantined
from inferway_inference.quarantine import MAX_KNOWN, Quarantine
from inferway_inference.work import Request
from tests.unit.inference.requests import admitted, floats


def asking(seed: int, request_id: int = 0) -> Request:
    request = admitted(request_id, rows=2)
    request.inputs = [floats(2, seed=seed)]
    return request


def test_a_request_is_known_by_what_it_asks_not_by_who_sends_it():
    """Gateways give each attempt an id of its own."""
    quarantine = Quarantine()
    for attempt in (1, 2):
        quarantine.crashed([asking(7, request_id=attempt)], alone=True)

    with pytest.raises(Quarantined) as caught:
        quarantine.admit(asking(7, request_id=3))
    assert caught.value.metadata == {"model": "m", "version": "1"}
    assert not caught.value.retryable
    assert not quarantine.admit(asking(8))


def test_who_only_shared_batches_with_the_guilty_is_never_quarantined():
    """However often the runner crashes beside it."""
    quarantine = Quarantine()
    for _ in range(5):
        quarantine.crashed([asking(1), asking(2)], alone=False)

    assert quarantine.admit(asking(1)), "a suspect: it runs alone"


def test_a_suspect_that_is_computed_is_a_suspect_no_more():
    """One crash of another's making must not slow it down for ever."""
    quarantine = Quarantine()
    quarantine.crashed([asking(1)], alone=True)
    quarantine.cleared(asking(1))

    assert not quarantine.admit(asking(1))


def test_memory_for_suspects_is_bounded():
    """An attacker may send a new killer each time."""
    quarantine = Quarantine()
    for _ in range(2):
        quarantine.crashed([asking(0)], alone=True)
    quarantine.crashed([asking(seed) for seed in range(1, MAX_KNOWN + 1)], alone=False)

    assert not quarantine.admit(asking(0)), "the longest unseen is forgotten"
    assert quarantine.admit(asking(MAX_KNOWN))
