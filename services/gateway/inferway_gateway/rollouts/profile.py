"""How the stable version answers before anything moves: what the candidate will be compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inferway_gateway.rollouts.histogram import Histogram

MOST_VALUES = 256
"""Figures that are kept of an output."""
MOST_OUTPUTS = 64
"""Of all signatures together; those that come later are not sampled."""


@dataclass(slots=True)
class OutputSample:
    """Some of the figures of one output, each with the same chance."""

    values: list[float] = field(default_factory=list)
    seen: int = 0


class Profile:
    """What was seen of the stable version."""

    def __init__(self, random: Callable[[], float]) -> None:
        """Nothing yet. `random` is uniform between 0 and 1."""
        self._random = random
        self.latency = Histogram()
        self.outputs: dict[str, OutputSample] = {}

    def add(self, seconds: float, figures: Iterable[tuple[str, float]]) -> None:
        """An answer, and the figures of its outputs by label."""
        self.latency.add(seconds)
        for label, value in figures:
            if label in self.outputs or len(self.outputs) < MOST_OUTPUTS:
                self._sample(self.outputs.setdefault(label, OutputSample()), value)

    def _sample(self, sample: OutputSample, value: float) -> None:
        """J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 1985: R."""
        sample.seen += 1
        if len(sample.values) < MOST_VALUES:
            sample.values.append(value)
            return
        place = int(self._random() * sample.seen)
        if place < MOST_VALUES:
            sample.values[place] = value
