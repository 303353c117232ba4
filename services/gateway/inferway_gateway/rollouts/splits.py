"""What reaches the arms of endpoints whose weights somebody set, counted so that the registry can test the split.

Chance gives each unit its arm, so units are counted once: an affinity key or a stream when it comes first, a request
alone always. What became of them is counted in batches, in the order in which they came, and only when everybody in a
batch has ended: on an arm that takes longer its units would seem to be missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from inferway.errors import InferwayError
from inferway_gateway.envelope import Envelope, Observer
from inferway_gateway.routing import Decision, Endpoint, RoutingTable
from inferway_gateway.tensors import Answer

MOST_SPLITS = 32
"""Endpoints that are counted; others are served."""
MOST_UNITS = 20_000
"""Keys and streams that are remembered of each, in some 3 MiB. Those that come later are not counted, whichever arm
they get: that costs power, and misleads nobody."""
MOST_BATCHES = 600
"""Batches that wait, one a second. Whoever holds them up for longer is taken for unanswered."""
_GROWTH = 1.02
"""A split is worth telling again when so many times as much was counted: a large one rarely."""


@dataclass(slots=True)
class ArmTotal:
    """All that came to an arm; see the protocol's `SplitArm`."""

    units: int = 0
    answered: int = 0
    keyed_units: int = 0
    keyed_answered: int = 0


class Batch:
    """Who came between two looks."""

    __slots__ = ("alone", "keyed", "units", "waiting")

    def __init__(self, arms: Collection[str]) -> None:
        """Nobody."""
        self.units = 0
        self.waiting = 0
        """Units whose first request has not ended."""
        self.alone = {arm: Answers(self) for arm in arms}
        self.keyed = {arm: Answers(self) for arm in arms}


class Answers:
    """Those that units of a batch got, of one kind and on one arm. Observes the first request of each."""

    __slots__ = ("_batch", "count")

    def __init__(self, batch: Batch) -> None:
        """None yet."""
        self._batch = batch
        self.count = 0

    def expect(self) -> Answers:
        """A unit came."""
        self._batch.units += 1
        self._batch.waiting += 1
        return self

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """What became of it."""
        del envelope, now
        self._batch.waiting -= 1
        if not isinstance(outcome, InferwayError):
            self.count += 1


class Split:
    """An endpoint under the weights of one generation."""

    def __init__(self, endpoint: Endpoint, most_units: int = MOST_UNITS) -> None:
        """Nobody came."""
        self.endpoint, self.generation = endpoint.name, endpoint.generation
        self.arms = {arm: ArmTotal() for arm in _weights(endpoint)}
        self._weights = _weights(endpoint)
        self._most_units = most_units
        self._known: set[int] = set()
        self._batches = deque([Batch(self.arms)])
        self._told = 0

    def is_of(self, endpoint: Endpoint) -> bool:
        """Whether these are still the weights of `endpoint`."""
        return endpoint.generation == self.generation and _weights(endpoint) == self._weights

    def meet(self, decision: Decision) -> Observer | None:
        """A request is sent by chance; who wants to know what becomes of it, if anybody."""
        arm, unit = decision.arm, decision.unit
        if decision.generation != self.generation or self._weights.get(arm) != decision.propensity:
            return None
        total, batch = self.arms[arm], self._batches[-1]
        if not unit:
            total.units += 1
            return batch.alone[arm].expect()
        if not self._is_new(hash(unit)):
            return None
        total.units += 1
        total.keyed_units += 1
        return batch.keyed[arm].expect()

    def look(self) -> int:
        """Counts the answers of what has ended; returns how much was counted if that is worth telling, else 0."""
        if self._batches[-1].units:
            self._batches.append(Batch(self.arms))
        while len(self._batches) > 1 and (not self._batches[0].waiting or len(self._batches) > MOST_BATCHES):
            self._close(self._batches.popleft())
        size = sum(arm.units + arm.answered for arm in self.arms.values())
        return size if size > self._told * _GROWTH else 0

    def told(self, size: int) -> None:
        """The registry knows what was counted when that was so much."""
        self._told = size

    def _is_new(self, key: int) -> bool:
        if key in self._known or len(self._known) >= self._most_units:
            return False
        self._known.add(key)
        return True

    def _close(self, batch: Batch) -> None:
        for arm, total in self.arms.items():
            total.answered += batch.alone[arm].count + batch.keyed[arm].count
            total.keyed_answered += batch.keyed[arm].count


class Splits:
    """All of them in this gateway's routing table, by what `Rollouts` says of it."""

    def __init__(self) -> None:
        """There is none."""
        self._splits: dict[str, Split] = {}

    def __len__(self) -> int:
        """How many are counted."""
        return len(self._splits)

    def apply(self, table: RoutingTable) -> bool:
        """Begins and forgets as `table` says, and keeps what has not changed; returns whether any began."""
        split = {each.name: each for each in table.endpoints.values() if each.is_split and each.rollout is None}
        kept = {name: each for name, each in self._splits.items() if name in split and each.is_of(split[name])}
        new = [endpoint for name, endpoint in split.items() if name not in kept][: MOST_SPLITS - len(kept)]
        self._splits = kept | {endpoint.name: Split(endpoint) for endpoint in new}
        return bool(new)

    def observe(self, endpoint: Endpoint, decision: Decision) -> Observer | None:
        """Who wants to know what becomes of a request that chance gave an arm of `endpoint`."""
        split = self._splits.get(endpoint.name)
        return None if split is None else split.meet(decision)

    def grown(self) -> dict[Split, int]:
        """Those that are worth telling, and how much was counted of each."""
        sizes = {split: split.look() for split in self._splits.values()}
        return {split: size for split, size in sizes.items() if size}


def _weights(endpoint: Endpoint) -> dict[str, int]:
    return {arm.name: arm.weight for arm in endpoint.arms if arm.weight}
