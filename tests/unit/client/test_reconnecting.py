"""How long and how often a lost stream is opened again."""

from __future__ import annotations

import pytest

from inferway.errors import Draining, SessionTakenOver, Unreachable
from inferway_client import ReconnectPolicy
from inferway_client.reconnecting import Outage

POLICY = ReconnectPolicy(give_up_seconds=10.0, initial_backoff_seconds=0.1, max_backoff_seconds=0.5)
LOST = Unreachable("gone", retry_after_seconds=0.0)


def outage(jitter: float = 1.0) -> Outage:
    """One that began at second 100, with the same chance each time."""
    return Outage(POLICY, 100.0, POLICY.give_up_seconds, lambda: jitter)


def test_waits_double_up_to_a_bound():
    """A gateway that restarts is not asked by everybody all the time."""
    away = outage()
    assert [away.wait_seconds(LOST, 100.0) for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_waits_are_spread():
    """A thousand streams of one gateway do not come back in the same millisecond."""
    assert outage(jitter=0.0).wait_seconds(LOST, 100.0) == 0.0
    assert outage(jitter=0.5).wait_seconds(LOST, 100.0) == 0.05


def test_a_server_that_asks_for_more_time_gets_it():
    """It knows when it will be back."""
    assert outage().wait_seconds(Draining("going", retry_after_seconds=3.0), 100.0) == 3.1


@pytest.mark.parametrize(("now", "waits"), [(109.8, True), (109.95, False), (111.0, False)])
def test_there_is_an_end(now: float, waits: bool):
    """An attempt that would come too late is not waited for."""
    assert (outage().wait_seconds(LOST, now) is not None) == waits


def test_what_cannot_be_mended_is_not_tried_again():
    """A session that somebody else has taken over is theirs."""
    assert outage().wait_seconds(SessionTakenOver("theirs"), 100.0) is None


def test_many_attempts_do_not_overflow():
    """A long outage with short waits makes thousands of attempts."""
    away = outage()
    assert all(away.wait_seconds(LOST, 100.0) is not None for _ in range(5000))
