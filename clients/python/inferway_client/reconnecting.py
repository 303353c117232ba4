"""When a stream that was lost is opened again, and when it is given up. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from inferway.errors import InferwayError

MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How a stream goes on after its connection, its gateway or the way there was lost."""

    give_up_seconds: float = 60.0
    """After so long without a sign of life the loss is raised; in a session also after the server's grace."""
    initial_backoff_seconds: float = 0.05
    """The longest wait before the first attempt; it doubles with each further one."""
    max_backoff_seconds: float = 1.0
    """The longest wait, unless the server asks for a longer one."""
    resend: bool = True
    """Send what was unanswered again. Of a stateless model nobody knows whether such an item was computed; computing
    it twice does no harm unless the model has effects outside its answer. If False, each of these items gets the loss
    as its error. Sessions always send again: there each item is applied once."""


class Outage:
    """One time without a call that works; it ends with a sign of life, not with a mere connection."""

    def __init__(
        self, policy: ReconnectPolicy, now: float, max_seconds: float, jitter: Callable[[], float] = random.random
    ) -> None:
        """Began `now`, and may last `max_seconds`; `jitter` returns numbers in [0, 1)."""
        self._policy, self._jitter = policy, jitter
        self._give_up_time = now + max_seconds
        self._attempts = 0

    def wait_seconds(self, error: InferwayError, now: float) -> float | None:
        """How long to wait before the next attempt, with full jitter; None when that is too late, or of no use."""
        asked = error.retry_after_seconds
        if asked is None:
            return None
        backoff = self._policy.initial_backoff_seconds * 2 ** min(self._attempts, MAX_DOUBLINGS)
        self._attempts += 1
        wait = asked + self._jitter() * min(backoff, self._policy.max_backoff_seconds)
        return wait if now + wait < self._give_up_time else None

    def seconds_left(self, now: float) -> float:
        """Until it is given up."""
        return max(0.0, self._give_up_time - now)
