"""From sending a position to its answer: of all of them, and of the last seconds."""

from __future__ import annotations

from collections import deque

import numpy as np

from inferway_cli.histogram import LatencyHistogram

RECENT_SECONDS = 10.0


class Latencies:
    """All times in seconds; `now` never goes back."""

    def __init__(self) -> None:
        """None yet."""
        self.all = LatencyHistogram()
        self._recent: deque[tuple[float, float]] = deque()

    def add(self, now: float, seconds: float) -> None:
        """An answer came."""
        self.all.add(seconds)
        self._recent.append((now, seconds))
        self._forget(now)

    def recent(self, now: float) -> tuple[int, float, float]:
        """Answers within RECENT_SECONDS, and their 50th and 99th percentile."""
        self._forget(now)
        if not self._recent:
            return 0, np.nan, np.nan
        median, late = np.percentile([seconds for _, seconds in self._recent], [50, 99])
        return len(self._recent), float(median), float(late)

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - RECENT_SECONDS:
            self._recent.popleft()
