"""Where a rollout stands, as an immutable value: all that the controller remembers between two looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum

from inferway import names
from inferway_registry.rollouts.spec import Spec


class State(IntEnum):
    """Values equal those of the protocol, which draws the transitions."""

    PENDING = 1
    PREPARING = 2
    RUNNING = 3
    PROMOTING = 4
    BAKING = 5
    SUCCEEDED = 6
    PAUSED = 7
    ROLLING_BACK = 8
    ROLLED_BACK = 9
    FAILED = 10


ENDS = frozenset({State.SUCCEEDED, State.ROLLED_BACK, State.FAILED})
OF_CONTROLLER = "controller"
"""The principal of transitions that nobody asked for."""
OF_GATEWAY = "gateway"
"""That of a brake."""
MAX_TRANSITIONS = 1000
"""So many are kept, the newest: people may pause and resume as often as they like."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A state or step that it came to."""

    at: datetime
    state: State
    step: int
    weight_basis_points: int
    """The candidate's, from then on."""
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the stable version's answers were before anything moved; frozen with the first step."""

    p95_us: int = 0
    """0: too few answers were seen to know."""
    p99_us: int = 0
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of the bins of each output, ascending."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """See the module."""

    endpoint: str
    number: int
    spec: Spec
    stable: tuple[str, int]
    """Model and number of the version that had all traffic when it began."""
    salt: str
    """Assigns units to arms while it lasts; new for each rollout, so that not always the same users come first."""
    create_time: datetime
    state: State = State.PENDING
    reason: str = ""
    step: int = 0
    weight_basis_points: int = 0
    """The candidate's share, as published."""
    phases: tuple[tuple[int, int], ...] = ()
    """Generation of the endpoint, and the candidate's weight under it; the last one is in force."""
    paused_from: State | None = None
    thresholds: Thresholds | None = None
    state_time: datetime | None = None
    """When it came to this state or step, or was resumed."""
    end_time: datetime | None = None
    transitions: tuple[Transition, ...] = ()
    revision: int = 0

    @property
    def name(self) -> str:
        """`endpoints/{endpoint}/rollouts/{rollout}`."""
        return names.rollout_name(self.endpoint, self.number)

    @property
    def active(self) -> bool:
        """It has not come to an end."""
        return self.state not in ENDS

    @property
    def acts_as(self) -> State:
        """The state, or while it is paused the one that it was paused from: what gateways do is the same."""
        return self.paused_from if self.paused_from is not None else self.state

    def seconds_in_state(self, now: datetime) -> float:
        """Since it came to this state or step, or was resumed; 0 if the clock was set back."""
        return max(0.0, (now - (self.state_time or self.create_time)).total_seconds())

    def to(
        self,
        state: State,
        now: datetime,
        reason: str,
        principal: str = OF_CONTROLLER,
        *,
        step: int | None = None,
        weight: int | None = None,
    ) -> Rollout:
        """In another state, or another step of the same one, with the transition that says so."""
        step, weight = self.step if step is None else step, self.weight_basis_points if weight is None else weight
        made = Transition(now, state, step, weight, reason, principal)
        return replace(
            self,
            state=state,
            reason=reason,
            step=step,
            weight_basis_points=weight,
            paused_from=self.state if state is State.PAUSED else None,
            state_time=now,
            end_time=now if state in ENDS else None,
            transitions=(*self.transitions, made)[-MAX_TRANSITIONS:],
        )

    def published(self, generation: int) -> Rollout:
        """With the generation of the endpoint under which its present weight is in force."""
        if self.phases and self.phases[-1] == (generation, self.weight_basis_points):
            return self
        return replace(self, phases=(*self.phases, (generation, self.weight_basis_points)))
