"""Repeats calls that failed, where that is safe and cannot make an overload worse.

A call is repeated if the server said that it may be (RetryInfo or gRPC's pushback, which set
`InferwayError.retryable`), or if there was no connection; within the caller's deadline, a few times, after a wait with
full jitter, and while the budget lasts. The budget is a share of the client's own calls in the last ten seconds, and
is paid before the wait: calls that fail together cannot all pass it and come back together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from inferway.errors import InferwayError, Unreachable
from inferway_client.recent import Clock, Recent

T = TypeVar("T")
BUDGET_SECONDS = 10
REDIAL_SECONDS = 0.5
"""A connection that could not be made twice is waited for so long: it is redialled meanwhile."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast a client repeats calls. `RetryPolicy(max_attempts=1)` never repeats."""

    max_attempts: int = 3
    """Calls in all, the first included."""
    initial_backoff_seconds: float = 0.05
    """The longest wait before the second attempt; it doubles with each further one."""
    max_backoff_seconds: float = 1.0
    """The longest wait, unless the server asks for a longer one."""
    budget_share: float = 0.2
    """Repetitions as a share of calls, over ten seconds."""
    budget_per_second: float = 3.0
    """Repetitions that are permitted beside that share."""
    repeat_lost: bool = True
    """Repeat calls whose connection could not be made or was lost, though in the second case they may have been
    computed: a model without effects outside its answer, as models are unless their publisher says otherwise, takes no
    harm from that."""


class RetryBudget:
    """Shared by all calls of a client: a server in trouble is not asked twice as often."""

    def __init__(self, share: float, per_second: float, clock: Clock) -> None:
        """No calls yet; the floor permits repetitions at once."""
        self._share, self._floor = share, per_second * BUDGET_SECONDS
        self._calls, self._repetitions = Recent(BUDGET_SECONDS, clock), Recent(BUDGET_SECONDS, clock)

    def count_call(self) -> None:
        """A caller's own call, not a repetition."""
        self._calls.add()

    def withdraw(self) -> bool:
        """Takes one repetition; False if there is none."""
        if self._repetitions.total + 1 > self._share * self._calls.total + self._floor:
            return False
        self._repetitions.add()
        return True


class Retrier:
    """Runs calls under a policy and one budget."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Takes time and chance as arguments; `jitter` returns numbers in [0, 1)."""
        self._policy = policy
        self._budget = RetryBudget(policy.budget_share, policy.budget_per_second, clock)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def run(self, attempt: Callable[[float], Awaitable[T]], timeout_seconds: float) -> T:
        """Calls `attempt` with the seconds left until it succeeds or its error must be raised."""
        deadline = self._clock() + timeout_seconds
        self._budget.count_call()
        number = 1
        while True:
            try:
                return await attempt(max(0.0, deadline - self._clock()))
            except InferwayError as error:
                wait = self._wait_seconds(number, error)
                if wait is None or self._clock() + wait >= deadline or not self._budget.withdraw():
                    raise
            number += 1
            await self._sleep(wait)

    def _wait_seconds(self, number: int, error: InferwayError) -> float | None:
        asked, policy = error.retry_after_seconds, self._policy
        was_lost = isinstance(error, Unreachable)
        if asked is None or number >= policy.max_attempts or (was_lost and not policy.repeat_lost):
            return None
        if was_lost and number > 1:
            asked = max(asked, REDIAL_SECONDS)
        backoff: float = policy.initial_backoff_seconds * 2 ** (number - 1)
        return asked + self._jitter() * min(backoff, policy.max_backoff_seconds)
