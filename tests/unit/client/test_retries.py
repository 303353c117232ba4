"""When calls are repeated, with time and chance under control."""

from __future__ import annotations

import pytest

from inferway.errors import InferwayError, InvalidField, QueueFull, VersionNotReady
from inferway_client.retries import Retrier, RetryBudget, RetryPolicy


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """The time now."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Lets time pass at once."""
        self.slept.append(seconds)
        self.now += seconds


def retrier(clock: Clock, policy: RetryPolicy | None = None) -> Retrier:
    """A retrier whose jitter is always half."""
    return Retrier(policy or RetryPolicy(), clock=clock, sleep=clock.sleep, jitter=lambda: 0.5)


class Attempt:
    """Fails with each error in turn, then succeeds; remembers the seconds it was given."""

    def __init__(self, *errors: InferwayError) -> None:
        self.errors = list(errors)
        self.seconds: list[float] = []

    async def __call__(self, seconds_left: float) -> str:
        """One attempt."""
        self.seconds.append(seconds_left)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_the_wait_is_what_the_server_asks_plus_growing_jitter():
    """Clients that failed together do not come back together."""
    clock = Clock()
    errors = [QueueFull("full", retry_after_seconds=0.1), QueueFull("full", retry_after_seconds=0.1)]
    assert await retrier(clock, RetryPolicy(initial_backoff_seconds=0.2)).run(Attempt(*errors), 10.0) == "done"
    assert clock.slept == pytest.approx([0.2, 0.3])


async def test_each_attempt_gets_what_is_left_of_the_deadline():
    """Retries never take longer than the caller allowed."""
    clock, attempt = Clock(), Attempt(VersionNotReady("loading", retry_after_seconds=1.0))
    await retrier(clock, RetryPolicy(initial_backoff_seconds=0.0)).run(attempt, 10.0)
    assert attempt.seconds == [10.0, 9.0]


async def test_the_error_is_raised_at_once_if_the_wait_would_pass_the_deadline():
    """Waiting for nothing helps nobody."""
    clock = Clock()
    with pytest.raises(VersionNotReady):
        await retrier(clock).run(Attempt(VersionNotReady("loading", retry_after_seconds=5.0)), 2.0)
    assert clock.slept == []


async def test_errors_of_the_request_are_not_repeated():
    """It can never succeed as it is."""
    attempt = Attempt(InvalidField.at("inputs", "wrong"))
    with pytest.raises(InvalidField):
        await retrier(Clock()).run(attempt, 10.0)
    assert len(attempt.seconds) == 1


async def test_a_spent_budget_stops_retries_until_calls_succeed_again():
    """When everything fails, repeating everything makes it worse."""
    clock = Clock()
    budgeted = retrier(clock, RetryPolicy(budget_tokens=4.0, initial_backoff_seconds=0.0))
    failing = [QueueFull("full", retry_after_seconds=0.0) for _ in range(3)]
    with pytest.raises(QueueFull):
        await budgeted.run(Attempt(*failing), 10.0)
    attempt = Attempt(QueueFull("full", retry_after_seconds=0.0))
    with pytest.raises(QueueFull):
        await budgeted.run(attempt, 10.0)
    assert len(attempt.seconds) == 1


def test_a_success_earns_a_tenth_of_a_retry_and_no_more_than_the_budget():
    """So that at most one call in ten is a repetition, in the long run."""
    budget = RetryBudget(4.0)
    for _ in range(3):
        budget.failed()
    assert not budget.left
    for _ in range(11):
        budget.succeeded()
    assert budget.left
