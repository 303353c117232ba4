"""Which failures are worth another attempt, and when: within a budget, and never what may have taken effect."""

from __future__ import annotations

from collections.abc import Callable, Container

from inferway.errors import InferwayError
from inferway_chassis.clock import Clock
from inferway_gateway.envelope import Envelope
from inferway_gateway.lane import Flight
from inferway_gateway.retry_budget import RetryBudget

MAX_ATTEMPTS = dict.fromkeys(("WORKER_LOST", "RUNNER_CRASHED", "VERSION_NOT_READY", "NO_WORKER", "DRAINING"), 3)
"""Attempts in all, by the reason of the failure. Who crashes a runner is convicted at the second; the third attempt is
for those who were beside it both times."""
NOT_EXECUTED = frozenset({"VERSION_NOT_READY", "NO_WORKER", "DRAINING"})
"""The worker refused before it computed anything: repeating does no harm, whatever the model does."""
MAY_HAVE_RUN = frozenset({"WORKER_LOST", "RUNNER_CRASHED"})
"""The model may have computed some or all of it."""
BLAMES_WORKER = frozenset({"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"})
"""Codes of answers that speak against whoever gave them, unless the reason is in NOT_EXECUTED."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PAUSE_JITTER = 0.025, 0.25, 0.2
"""As gRPC's own retries pause (gRFC A6)."""


class Retries:
    """The budgets of all endpoints."""

    def __init__(self, clock: Clock) -> None:
        """Every budget starts full."""
        self._clock = clock
        self._budgets: dict[str, RetryBudget] = {}

    def count_first_attempt(self, envelope: Envelope) -> None:
        """A caller sent a request; copies of requests are nobody's."""
        if not envelope.is_copy:
            self._budget(envelope.endpoint).count_first_attempt()

    def permits(self, flight: Flight, error: InferwayError) -> bool:
        """Whether `flight`, which failed with `error`, may be repeated; if so, its endpoint has paid for that."""
        envelope = flight.envelope
        return (
            not envelope.is_copy
            and flight.attempt < MAX_ATTEMPTS.get(error.reason, 0)
            and (envelope.version.idempotent or error.reason in NOT_EXECUTED)
            and envelope.deadline > self._clock()
            and self._budget(envelope.endpoint).withdraw()
        )

    def keep(self, endpoints: Container[str]) -> None:
        """Forgets all other endpoints."""
        for endpoint in [name for name in self._budgets if name not in endpoints]:
            del self._budgets[endpoint]

    def _budget(self, endpoint: str) -> RetryBudget:
        budget = self._budgets.get(endpoint)
        if budget is None:
            budget = self._budgets[endpoint] = RetryBudget(self._clock)
        return budget


def pause_before(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait before the attempt of that number: none before the second, then more each time."""
    retries_before = attempt - 2
    if retries_before <= 0:
        return 0.0
    seconds = min(FIRST_PAUSE_SECONDS * 2.0**retries_before, LONGEST_PAUSE_SECONDS)
    return seconds * (1.0 + PAUSE_JITTER * (2.0 * random() - 1.0))


def blames_worker(error: InferwayError) -> bool:
    """Whether `error`, as a worker's answer, is a failure of that worker, as far as one answer can tell."""
    return error.code in BLAMES_WORKER and error.reason not in NOT_EXECUTED and error.reason != "QUARANTINED"
