"""What came of the copies of one rollout: cumulative, in a form that gateways' figures can be added in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from inferway_gateway.rollouts.compare import Difference
from inferway_gateway.rollouts.examples import Examples, Subject
from inferway_gateway.rollouts.histogram import Histogram
from inferway_gateway.rollouts.outputs import label_of
from inferway_gateway.rollouts.plan import ExamplePolicy

MAX_OUTPUTS = 64
"""Of all signatures together; further ones count for agreement alone."""


@dataclass(slots=True)
class OutputTotals:
    """One output in all pairs that have it; see `Difference`."""

    pairs: int = 0
    within_tolerance: int = 0
    """Pairs."""
    rows: int = 0
    same_top_rows: int = 0
    max_absolute: float = 0.0
    max_relative: float = 0.0
    sum_absolute: float = 0.0
    elements: int = 0
    divergence: float = 0.0

    def add(self, difference: Difference) -> None:
        """One more pair."""
        self.pairs += 1
        self.within_tolerance += difference.within_tolerance
        self.rows += difference.rows
        self.same_top_rows += difference.same_top_rows
        self.max_absolute = max(self.max_absolute, difference.max_absolute)
        self.max_relative = max(self.max_relative, difference.max_relative)
        self.sum_absolute += difference.sum_absolute
        self.elements += difference.elements
        self.divergence += difference.divergence


@dataclass(slots=True)
class MirrorFigures:
    """A pair is a request of which at least one version gave an answer, and both were asked."""

    primary_version: str
    mirrored_version: str
    examples: Examples = field(default_factory=lambda: Examples(ExamplePolicy.OUTPUTS))
    pairs: int = 0
    agreeing: int = 0
    """Pairs."""
    primary_errors: int = 0
    """Pairs of which only the primary failed."""
    mirrored_errors: int = 0
    """Pairs of which only the copy failed."""
    dropped: int = 0
    """Copies that were not made, or that no worker got, because too many waited."""
    primary_latency: Histogram = field(default_factory=Histogram)
    """Of pairs with two answers."""
    mirrored_latency: Histogram = field(default_factory=Histogram)
    outputs: dict[str, OutputTotals] = field(default_factory=dict)
    """By label."""

    def only_primary_failed(self) -> None:
        """One more pair."""
        self.pairs += 1
        self.primary_errors += 1

    def only_copy_failed(self) -> None:
        """One more pair."""
        self.pairs += 1
        self.mirrored_errors += 1

    def both_answered(self, differences: Sequence[Difference], signature: str, subject: Subject) -> None:
        """One more pair."""
        agrees = all(difference.agrees for difference in differences)
        self.pairs += 1
        self.agreeing += agrees
        for difference in differences:
            name = label_of(signature, difference.output)
            if name in self.outputs or len(self.outputs) < MAX_OUTPUTS:
                self.outputs.setdefault(name, OutputTotals()).add(difference)
        if not (agrees and all(difference.within_tolerance for difference in differences)):
            self.examples.offer(max(difference.max_absolute for difference in differences), subject)
