"""The retry budget: 20 % of ten seconds' traffic, plus 30."""

from __future__ import annotations

from inferway_gateway.retry_budget import RetryBudget


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def withdrawals(budget: RetryBudget) -> int:
    count = 0
    while budget.withdraw():
        count += 1
    return count


def test_a_quiet_endpoint_may_retry_a_little() -> None:
    """Three requests a minute deserve their retries too."""
    assert withdrawals(RetryBudget(Clock())) == 30


def test_a_busy_endpoint_may_retry_a_fifth_of_its_traffic() -> None:
    """More would turn an outage into an overload."""
    budget = RetryBudget(Clock())
    for _ in range(1000):
        budget.count_first_attempt()

    assert withdrawals(budget) == 230


def test_the_window_forgets_after_ten_seconds() -> None:
    """Yesterday's traffic is no licence."""
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(1000):
        budget.count_first_attempt()
    withdrawals(budget)
    clock.now += 9
    before = budget.withdraw()
    clock.now += 2

    assert not before
    assert withdrawals(budget) == 30


def test_a_long_silence_costs_nothing() -> None:
    """The ring turns at most once."""
    clock = Clock()
    budget = RetryBudget(clock)
    withdrawals(budget)
    clock.now += 1e9

    assert withdrawals(budget) == 30
