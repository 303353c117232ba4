"""What both arms of a rollout meet, counted so that the judge's tests are exact (see the registry's `judge.counts`).

A unit that comes again is known by a 64-bit hash. It counts once under each setting of the weights, and each kind of
event once in the whole rollout, on whichever arm it comes first. A request alone is a unit of its own and needs no
memory. A unit that comes to two gateways is new to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from inferway_gateway.rollouts.histogram import Histogram

MOST_UNITS = 200_000
"""Units that are remembered, in some 35 MiB. Those that come later are not counted at all, whichever arm they get: that
costs power, and misleads nobody."""
MOST_PHASES = 128
"""Settings of the weights that are counted; a rollout has at most a hundred steps."""
ERROR, ABOVE_P95, ABOVE_P99, SCHEMA = "error", "above_p95", "above_p99", "schema"
"""Kinds of events, of which a unit has each once. An error is counted under its reason."""


@dataclass(slots=True)
class ArmTally:
    """What one arm met under the same weights; see `ArmOutcomes`."""

    units: int = 0
    newcomers: int = 0
    errors_of_units: int = 0
    """The sum of the events that are errors."""
    events: dict[str, int] = field(default_factory=dict)
    bins: dict[str, list[int]] = field(default_factory=dict)
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)

    def count_event(self, kind: str) -> None:
        """A unit had it for the first time."""
        self.events[kind] = self.events.get(kind, 0) + 1

    def count_error_of_unit(self, reason: str) -> None:
        """A unit had its first error."""
        self.errors_of_units += 1
        self.count_event(reason)

    def count_bin(self, output: str, number: int, of: int) -> None:
        """The output of a unit fell into bin `number` of so many."""
        bins = self.bins.get(output)
        if bins is None:
            bins = self.bins[output] = [0] * of
        bins[number] += 1

    def count_error(self, reason: str) -> None:
        """A request failed."""
        self.requests += 1
        self.errors[reason] = self.errors.get(reason, 0) + 1

    def count_answer(self, seconds: float) -> None:
        """A request was answered."""
        self.requests += 1
        self.latency.add(seconds)


@dataclass(slots=True)
class PhaseTally:
    """A setting of the weights."""

    generation: int
    share: float
    """The candidate's, of all units."""
    stable: ArmTally = field(default_factory=ArmTally)
    candidate: ArmTally = field(default_factory=ArmTally)


class Tally:
    """All of one rollout."""

    def __init__(self, most_units: int = MOST_UNITS) -> None:
        """Nothing was met."""
        self._phases: dict[int, PhaseTally] = {}
        self._most_units = most_units
        self._met: dict[int, int] = {}
        """The last generation of each unit."""
        self._had: dict[int, int] = {}
        """What units had, as bits."""
        self._bits: dict[str, int] = {}
        self.uncounted = 0
        """Requests of units that were too many to be counted."""

    @property
    def phases(self) -> Sequence[PhaseTally]:
        """First to last."""
        return list(self._phases.values())

    def begin(self, generation: int, share: float) -> None:
        """From now on these weights are in force."""
        if len(self._phases) < MOST_PHASES:
            self._phases.setdefault(generation, PhaseTally(generation, share))

    def phase(self, generation: int) -> PhaseTally | None:
        """The counts of what is sent under that generation; None if that is not counted."""
        return self._phases.get(generation)

    def meet(self, arm: ArmTally, generation: int, unit: str) -> None:
        """A request of `unit`, which is empty for a request alone, is sent to `arm`."""
        if not unit:
            arm.units += 1
            arm.newcomers += 1
            return
        key = hash(unit)
        last = self._met.get(key)
        if last is None:
            if len(self._met) >= self._most_units:
                self.uncounted += 1
                return
            arm.newcomers += 1
        elif last >= generation:
            return
        self._met[key] = generation
        arm.units += 1

    def is_first(self, unit: str, kind: str) -> bool:
        """Whether an event of `kind` is to be counted: the unit is, and has not had one before. Remembers it."""
        if not unit:
            return True
        key = hash(unit)
        if key not in self._met:
            return False
        bit = self._bits.setdefault(kind, 1 << len(self._bits))
        had = self._had.get(key, 0)
        self._had[key] = had | bit
        return not had & bit
