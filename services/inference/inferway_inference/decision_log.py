"""The last decisions of a scheduler, and how to say them in words. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from inferway_inference.work import DispatchReason

LAST = 64


class Cause(Enum):
    """What led to a batch, where the reason alone does not tell."""

    USUAL = ""
    BISECTED = "a batch failed, and this is one half of it: so the request at fault is found"
    TRIAL = "trial: another size than the best one known, to see whether it is better by now"
    SUSPECT = "it runs alone because the model crashed while it was computed"


@dataclass(slots=True)
class Dispatch:
    """One batch. Times are in seconds; `at` on the worker's clock."""

    at: float
    signature: str
    requests: int
    rows: int
    reason: DispatchReason
    cause: Cause
    waited_seconds: float
    """Of its oldest request."""
    expected_seconds: float
    """0 if nothing was known."""
    left_rows: int
    """Of its kind, that still waited when it closed."""
    held_seconds: float
    """How long it was held open on purpose."""
    wait_costs_seconds: float | None
    """What waiting for one more request would have cost beyond what it saved; None if that was no question."""
    compute_seconds: float = 0.0
    """0 while it is under way."""
    failed: bool = False
    """The model raised an error, or its process ended, before or while it computed."""


class DecisionLog:
    """The last ones only."""

    def __init__(self) -> None:
        """Nothing was decided."""
        self._last: deque[Dispatch] = deque(maxlen=LAST)

    def __iter__(self) -> Iterator[Dispatch]:
        """Oldest first."""
        return iter(self._last)

    def dispatched(self, dispatch: Dispatch) -> None:
        """A batch left; who dispatched it writes down when it was computed."""
        self._last.append(dispatch)


def in_words(dispatch: Dispatch) -> str:
    """Why the batch left when it did, for people, and whether it failed."""
    why = _WORDS[dispatch.reason](dispatch) if dispatch.cause is Cause.USUAL else str(dispatch.cause.value)
    return f"{why}; it failed" if dispatch.failed else why


def _full(dispatch: Dispatch) -> str:
    left = f"; {_rows(dispatch.left_rows)} left for the next" if dispatch.left_rows else ""
    return f"full: more than {_rows(dispatch.rows)} would not pay or fit{left}"


def _idle(dispatch: Dispatch) -> str:
    held = f" after it was held open for {_ms(dispatch.held_seconds)}" if dispatch.held_seconds else ""
    costs = dispatch.wait_costs_seconds
    if costs is None:
        return f"idle: the model was free{held}, and nothing was to be gained by waiting"
    return f"idle: the model was free{held}, and waiting would have cost {_ms(costs)} more than it saved"


def _deadline(dispatch: Dispatch) -> str:
    if dispatch.left_rows:
        return f"deadline: more than {_rows(dispatch.rows)} would have made a request late"
    return "deadline: waiting for more would have made a request late"


def _delay_bound(dispatch: Dispatch) -> str:
    return f"delay bound: it was held open for {_ms(dispatch.held_seconds)}; longer does not pay or is not permitted"


def _unbatched(dispatch: Dispatch) -> str:
    del dispatch
    return "unbatched: requests of this signature are computed one by one"


_WORDS: dict[DispatchReason, Callable[[Dispatch], str]] = {
    DispatchReason.FULL: _full,
    DispatchReason.IDLE: _idle,
    DispatchReason.DEADLINE: _deadline,
    DispatchReason.DELAY_BOUND: _delay_bound,
    DispatchReason.UNBATCHED: _unbatched,
}


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.0995 else f"{seconds * 1e3:.0f} ms"  # noqa: PLR2004 - three digits
