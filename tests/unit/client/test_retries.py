"""When calls are repeated, with time and chance under control."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import InferwayError, InvalidField, QueueFull, Unreachable, VersionNotReady
from inferway_client.retries import REDIAL_SECONDS, Retrier, RetryBudget, RetryPolicy


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


async def test_a_spent_budget_stops_retries_until_ten_seconds_have_passed():
    """When everything fails, repeating everything makes it worse."""
    clock = Clock()
    budgeted = retrier(clock, RetryPolicy(budget_share=0.0, budget_per_second=0.2, initial_backoff_seconds=0.0))
    attempts = [Attempt(*[QueueFull("full", retry_after_seconds=0.0)] * 3) for _ in range(3)]
    for attempt in attempts:
        with pytest.raises(QueueFull):
            await budgeted.run(attempt, 10.0)
        clock.now += 5.0
    assert [len(attempt.seconds) for attempt in attempts] == [3, 1, 3]


async def test_calls_that_fail_together_pay_before_they_wait():
    """Counted only when they come back, all would pass the budget and come back together."""
    woken, asleep = asyncio.Event(), []

    async def sleep(seconds: float) -> None:
        asleep.append(seconds)
        await woken.wait()

    policy = RetryPolicy(budget_share=0.2, budget_per_second=0.0, max_attempts=2)
    together = Retrier(policy, clock=Clock(), sleep=sleep)
    attempts = [Attempt(QueueFull("full"), QueueFull("full")) for _ in range(100)]
    calls = [asyncio.ensure_future(together.run(attempt, 10.0)) for attempt in attempts]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    woken.set()
    await asyncio.wait(calls)
    assert len(asleep) == 20
    assert sum(len(attempt.seconds) for attempt in attempts) == 120


@pytest.mark.parametrize(("repeat_lost", "attempts"), [(True, 2), (False, 1)])
async def test_a_lost_call_is_repeated_unless_the_model_has_effects(repeat_lost: bool, attempts: int):
    """It may have been computed: only the caller knows whether that can be done twice."""
    attempt = Attempt(Unreachable("lost", retry_after_seconds=0.0))
    call = retrier(Clock(), RetryPolicy(repeat_lost=repeat_lost)).run(attempt, 10.0)
    if repeat_lost:
        assert await call == "done"
    else:
        with pytest.raises(Unreachable):
            await call
    assert len(attempt.seconds) == attempts


async def test_a_connection_that_fails_twice_is_given_time_to_come_back():
    """A gateway that restarts is away for longer than two attempts in a row take."""
    clock = Clock()
    lost = [Unreachable("refused", retry_after_seconds=0.0) for _ in range(2)]
    assert await retrier(clock, RetryPolicy(initial_backoff_seconds=0.0)).run(Attempt(*lost), 10.0) == "done"
    assert clock.slept == [0.0, REDIAL_SECONDS]


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300))
def test_repetitions_never_exceed_their_share_of_calls_and_the_floor(events: list[tuple[float, bool]]):
    """The law of the budget, against a count that forgets nothing."""
    clock = Clock()
    budget, calls, paid = RetryBudget(0.2, 3.0, clock), [], []
    for seconds, is_call in events:
        clock.now += seconds
        if is_call:
            budget.count_call()
            calls.append(clock.now)
        elif budget.withdraw():
            paid.append(clock.now)
    for at in paid:
        window = [t for t in paid if at - 9 <= t <= at]
        assert len(window) <= 0.2 * len([t for t in calls if at - 10 <= t <= at]) + 30
