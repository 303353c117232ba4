"""Repeats calls that failed, where that is safe and cannot make an overload worse.

A call is repeated only if the server said that it may be (RetryInfo, which sets `InferwayError.retryable`), within
the caller's deadline, a few times, after a wait with full jitter, and while the budget lasts. The budget is gRPC's
retry throttling (gRFC A6): a failure costs a token, a success earns a tenth, and below half there are no retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from inferway.errors import InferwayError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast a client repeats calls. `RetryPolicy(max_attempts=1)` never repeats."""

    max_attempts: int = 3
    """Calls in all, the first included."""
    initial_backoff_seconds: float = 0.05
    """The longest wait before the second attempt; it doubles with each further one."""
    max_backoff_seconds: float = 1.0
    """The longest wait, unless the server asks for a longer one."""
    budget_tokens: float = 20.0
    """Size of the budget; no call is repeated once more than half of it is spent."""


class RetryBudget:
    """Tokens shared by all calls of a client: a server in trouble is not asked twice as often."""

    SUCCESS_TOKENS = 0.1

    def __init__(self, tokens: float) -> None:
        """Starts full."""
        self._full = self._tokens = tokens

    def succeeded(self) -> None:
        """Earns a tenth of a token."""
        self._tokens = min(self._full, self._tokens + self.SUCCESS_TOKENS)

    def failed(self) -> None:
        """Spends a token."""
        self._tokens = max(0.0, self._tokens - 1.0)

    @property
    def left(self) -> bool:
        """More than half of the tokens are left."""
        return self._tokens > self._full / 2


class Retrier:
    """Runs calls under a policy and one budget."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Takes time and chance as arguments; `jitter` returns numbers in [0, 1)."""
        self._policy = policy
        self._budget = RetryBudget(policy.budget_tokens)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def run(self, attempt: Callable[[float], Awaitable[T]], timeout_seconds: float) -> T:
        """Calls `attempt` with the seconds left until it succeeds or its error must be raised."""
        deadline = self._clock() + timeout_seconds
        number = 1
        while True:
            try:
                result = await attempt(max(0.0, deadline - self._clock()))
            except InferwayError as error:
                wait = self._wait_seconds(number, error)
                if wait is None or self._clock() + wait >= deadline:
                    raise
            else:
                self._budget.succeeded()
                return result
            number += 1
            await self._sleep(wait)

    def _wait_seconds(self, number: int, error: InferwayError) -> float | None:
        if error.retry_after_seconds is None:
            return None
        self._budget.failed()
        if number >= self._policy.max_attempts or not self._budget.left:
            return None
        backoff: float = self._policy.initial_backoff_seconds * 2 ** (number - 1)
        return error.retry_after_seconds + self._jitter() * min(backoff, self._policy.max_backoff_seconds)
