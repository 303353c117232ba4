"""What became of every request, counted per arm: plain integers, cumulative since the start of the process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence
from typing import NamedTuple

OK = "OK"


class ArmKey(NamedTuple):
    """Whose requests are counted together. `arm` is empty for requests that pinned their version."""

    endpoint: str
    arm: str
    version: str


class ArmOutcomes:
    """Counts of one arm. Latency is from receipt to result in seconds, of answered requests only."""

    __slots__ = ("bounds", "by_code", "latency_counts", "latency_sum", "retries")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper edges of the latency buckets, ascending."""
        self.bounds = bounds
        self.by_code: dict[str, int] = {}
        self.latency_counts = [0] * (len(bounds) + 1)
        """The last one is for all above the highest bound."""
        self.latency_sum = 0.0
        self.retries = 0

    def answered(self, seconds: float) -> None:
        """One request got its outputs."""
        self.by_code[OK] = self.by_code.get(OK, 0) + 1
        self.latency_counts[bisect_left(self.bounds, seconds)] += 1
        self.latency_sum += seconds

    def failed(self, code: str) -> None:
        """One request ended with an error of that code."""
        self.by_code[code] = self.by_code.get(code, 0) + 1


class Outcomes:
    """The counts of all arms."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Empty; `bounds` as in ArmOutcomes."""
        self._bounds = bounds
        self.arms: dict[ArmKey, ArmOutcomes] = {}
        self.copies = ArmOutcomes(bounds)
        """Of requests that nobody waits for; they are no arm's."""

    def keep(self, endpoints: Container[str], versions: Container[str]) -> None:
        """Forgets the arms whose endpoint or version is not among these: a name may come back as something else."""
        for key in list(self.arms):
            if key.endpoint not in endpoints or key.version not in versions:
                del self.arms[key]

    def of(self, endpoint: str, arm: str, version: str) -> ArmOutcomes:
        """The counts of one arm."""
        key = ArmKey(endpoint, arm, version)
        found = self.arms.get(key)
        if found is None:
            found = self.arms[key] = ArmOutcomes(self._bounds)
        return found
