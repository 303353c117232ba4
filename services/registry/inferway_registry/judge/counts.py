"""What the judge is given: counts of both arms, for each setting of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from inferway.errors import InvalidField


@dataclass(frozen=True, slots=True)
class Counts:
    """What one arm has met. All are counts of units, never below zero.

    A unit is what is assigned to an arm: an affinity key, or a single request where there is none. The tests are exact
    because the arm of a unit is drawn independently of all others, so whatever a unit does may count once only:

    1. `units` are distinct units met under these weights.
    2. `newcomers` are those among them that this rollout had not met before, on either arm.
    3. An event counts at the first time that its unit has it in this rollout, on whichever arm that was. Counted once
       on each arm, units that move with the weights would count twice, and only against the canary.
    4. Of the outputs of a unit one counts, likewise, in the bin where it fell. Bins are the same on both arms. Where
       outputs are sampled, both arms are sampled with the same probability.
    5. All belong to the weights under which the unit was sent, not to those in force when the answer came.

    Without affinity keys every request is a unit and a newcomer. What callers sent to a version by name does not count.
    """

    units: int = 0
    newcomers: int = 0
    events: Mapping[str, int] = field(default_factory=dict)
    """By kind: errors of a kind, answers slower than a threshold, answers that break the schema."""
    bins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Histograms, by output: between fixed edges (quantiles of the stable arm), or by class."""

    def __post_init__(self) -> None:
        """Raises InvalidField if a count is negative."""
        for name, counts in self._all():
            if any(count < 0 for count in counts):
                raise InvalidField.at(name, "expected counts of at least 0")

    def _all(self) -> list[tuple[str, tuple[int, ...]]]:
        own = [("units", (self.units,)), ("newcomers", (self.newcomers,)), ("events", tuple(self.events.values()))]
        return own + [(f"bins[{name}]", counts) for name, counts in self.bins.items()]

    def __add__(self, other: Counts) -> Counts:
        """Both together, of two gateways or of two seconds. Raises InvalidField if bins differ in number."""
        kinds = self.events.keys() | other.events.keys()
        return Counts(
            self.units + other.units,
            self.newcomers + other.newcomers,
            {kind: self.events.get(kind, 0) + other.events.get(kind, 0) for kind in kinds},
            {name: _sum(name, self.bins, other.bins) for name in self.bins.keys() | other.bins.keys()},
        )


def _sum(name: str, one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if name not in one or name not in other:
        return one.get(name) or other.get(name, ())
    if len(one[name]) != len(other[name]):
        raise InvalidField.at(f"bins[{name}]", f"{len(one[name])} bins and {len(other[name])} cannot be added")
    return tuple(map(int.__add__, one[name], other[name]))


@dataclass(frozen=True, slots=True)
class Phase:
    """A time with the same weights, and what both arms met in it."""

    share: float
    """Of the units of both arms, what goes to the canary: 0 to 1. At 0 and at 1 there is nothing to compare."""
    stable: Counts = Counts()
    canary: Counts = Counts()

    def __post_init__(self) -> None:
        """Raises InvalidField if the share is none."""
        if not 0 <= self.share <= 1:
            raise InvalidField.at("share", f"{self.share}; expected 0 to 1")

    def plus(self, stable: Counts, canary: Counts) -> Phase:
        """With what has been met since."""
        return replace(self, stable=self.stable + stable, canary=self.canary + canary)
