"""What is known when the controller looks: of workers, gateways and users. Values, gathered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from inferway_registry.judge import Counts

LISTEN_SECONDS = 15.0
"""So long after its start a registry leaves workers and gateways to find it again."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How the stable version answers, of all gateways together."""

    latency: Mapping[int, int] = field(default_factory=dict)
    """Answers by the number of their bucket, see `LatencyHistogram`."""
    outputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """A sample of each output's figures."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Of how many each sample was drawn; an output that is missing is all in its sample."""

    @property
    def answers(self) -> int:
        """How many were seen."""
        return sum(self.latency.values())


@dataclass(frozen=True, slots=True)
class Pairs:
    """Comparisons of copies with what users got, of all gateways together."""

    pairs: int = 0
    agreeing: int = 0
    primary_errors: int = 0
    """Pairs of which only the primary failed."""
    mirrored_errors: int = 0
    """Pairs of which only the copy failed."""
    primary_latency: Mapping[int, int] = field(default_factory=dict)
    """Of the primary's answers to the same requests, by the number of their bucket."""
    mirrored_latency: Mapping[int, int] = field(default_factory=dict)
    """Of the copies' answers."""


@dataclass(frozen=True, slots=True)
class Facts:
    """At one moment."""

    now: datetime
    """Aware; never runs backwards while a controller lives, and jumps only when one starts."""
    needed_workers: int = 0
    """Workers that have the stable version ready and are not leaving."""
    ready_workers: int = 0
    """Those among them that have the candidate ready, too."""
    holders: int = 0
    """Workers that have the candidate ready, whatever else they have."""
    load_failure: str = ""
    """Why workers could not load the candidate; empty unless one has failed to and none has it ready."""
    published: bool = True
    """The candidate's version is there, and was not unloaded."""
    generation: int = 0
    """The least that a gateway routes by, of those that have reported lately."""
    gateways: int = 0
    """How many gateways have reported lately."""
    brake: str = ""
    """Why a gateway has stopped the candidate; empty if none has."""
    counts: Mapping[int, tuple[Counts, Counts]] = field(default_factory=dict)
    """By generation of the endpoint: of the stable version and of the candidate."""
    profile: Profile = Profile()
    mirrors: Mapping[tuple[str, int], Pairs] = field(default_factory=dict)
    """By the version that got the copies."""
    listened_seconds: float = inf
    """Since the registry that looks has started."""

    @property
    def served(self) -> bool:
        """Some worker has the candidate ready, and some gateway tells what its users meet."""
        return self.holders > 0 and self.gateways > 0

    @property
    def everybody_had_time(self) -> bool:
        """Who lives has reported to this registry: what it has not heard is silence, and not its own absence."""
        return self.listened_seconds >= LISTEN_SECONDS
