"""One rollout as one gateway sees it: who is counted, for what, and when its candidate is stopped.

    sent by chance ─► a unit of its arm, under the weights of then
    failed ─► an error ─► the brake is asked
    given up ─► too slow?
    answered ─► schema ─► too slow? ─► in which bin?

The stable version's answers make its profile as long as that is learned, and whatever ended is offered for a copy.
While workers that went away load the two versions again, there is a truce: nothing of this is done.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from inferway.errors import Cancelled, InferwayError
from inferway_gateway.envelope import Envelope
from inferway_gateway.rollouts.brake import why_stop
from inferway_gateway.rollouts.faults import is_versions_fault
from inferway_gateway.rollouts.mirror import Mirrors
from inferway_gateway.rollouts.outputs import OutputReader
from inferway_gateway.rollouts.plan import RolloutPlan, Sides
from inferway_gateway.rollouts.profile import Profile
from inferway_gateway.rollouts.tally import ABOVE_P95, ABOVE_P99, ERROR, SCHEMA, ArmTally, Tally
from inferway_gateway.rollouts.truce import Truce
from inferway_gateway.roster import SLOW_START_SECONDS
from inferway_gateway.routing import WHOLE, Decision, Endpoint
from inferway_gateway.tensors import Answer

_LOG = logging.getLogger(__name__)


class Trial:
    """See the module."""

    def __init__(
        self,
        plan: RolloutPlan,
        mirrors: Mirrors,
        truce: Truce,
        on_brake: Callable[[Trial], None],
        random: Callable[[], float],
    ) -> None:
        """Nothing was met. `on_brake` is called once, if the candidate is to get nothing from now on."""
        self.plan, self.mirrors = plan, mirrors
        self._truce, self._sides = truce, Sides("", "")
        self._on_brake = on_brake
        self.tally = Tally()
        self.profile = Profile(random)
        self.generation = 0
        """Of the endpoint, now."""
        self.brake_reason = ""
        self.failures = 0
        """Requests that could not be counted, by a fault of this code."""
        self._edges: dict[str, tuple[float, ...]] = {}
        self._warm_at = inf
        self._readers: dict[tuple[str, str], OutputReader] = {}

    def follow(self, endpoint: Endpoint, plan: RolloutPlan) -> bool:
        """Goes by the weights and the plan of now; returns whether the weights are others."""
        is_new = endpoint.generation != self.generation
        self.plan, self.generation = plan, endpoint.generation
        stable, candidate = endpoint.arm(plan.stable_arm), endpoint.arm(plan.candidate_arm)
        assert stable is not None
        assert candidate is not None
        self._sides = Sides(stable.version, candidate.version)
        self.mirrors.follow(plan.mirror, self._sides)
        for output, edges in plan.edges.items():
            self._edges.setdefault(output, edges)  # counts of other bins could not be added
        if is_new:
            self.tally.begin(endpoint.generation, candidate.weight / WHOLE)
        return is_new

    def meet(self, decision: Decision, envelope: Envelope) -> Watch | None:
        """A request is sent by chance; who wants to know what becomes of it, if anybody."""
        phase = self.tally.phase(decision.generation)
        if phase is None or decision.arm not in (self.plan.stable_arm, self.plan.candidate_arm):
            return None
        is_candidate = decision.arm == self.plan.candidate_arm
        if is_candidate:
            self._warm_at = min(self._warm_at, envelope.received_at + SLOW_START_SECONDS)
        arm = phase.candidate if is_candidate else phase.stable
        is_judged = self.plan.counts and not self.brake_reason and self.is_fair(envelope, envelope.received_at)
        if is_judged:
            self.tally.meet(arm, decision.generation, decision.unit)
        return Watch(self, arm, decision.unit, is_candidate, is_judged)

    def is_fair(self, envelope: Envelope, now: float) -> bool:
        """Whether what becomes of it says anything of its version: there was no truce since it came."""
        return envelope.received_at >= self._truce.fair_from(self._sides, now)

    def failed(self, watch: Watch, envelope: Envelope, error: InferwayError, seconds: float) -> None:
        """It ended with an error."""
        watch.arm.count_error(error.reason)
        if isinstance(error, Cancelled) and self._is_compared(watch, envelope):
            self._time(watch, seconds)  # whoever hangs up on a version that hangs would never meet an error
        if not (watch.is_judged and is_versions_fault(error) and self.tally.is_first(watch.unit, ERROR)):
            return
        watch.arm.count_error_of_unit(error.reason)
        if watch.is_candidate:
            self._consider_braking()

    def answered(self, watch: Watch, envelope: Envelope, answer: Answer, seconds: float) -> None:
        """It was answered."""
        watch.arm.count_answer(seconds)
        is_profiled = self.plan.profiles and not watch.is_candidate
        if not (watch.is_judged or is_profiled):
            return
        is_compared = self._is_compared(watch, envelope)
        wants_figures = is_profiled or (is_compared and bool(self._edges))
        reading = self._reader(envelope).read(answer, figures=wants_figures)
        if is_profiled:
            self.profile.add(seconds, reading.figures)
        if reading.breaks_schema and watch.is_judged:
            self._count(watch, SCHEMA)
        if is_compared:
            self._time(watch, seconds)
            self._place(watch, reading.figures)

    def _is_compared(self, watch: Watch, envelope: Envelope) -> bool:
        """After each load a version is slow at first; if both were loaded at the same time, both are."""
        warm_at = max(self._warm_at, self._truce.uneven_until + SLOW_START_SECONDS)
        return watch.is_judged and envelope.received_at >= warm_at

    def _time(self, watch: Watch, seconds: float) -> None:
        """It was not answered before."""
        if seconds > self.plan.p95_seconds > 0:
            self._count(watch, ABOVE_P95)
        if seconds > self.plan.p99_seconds > 0:
            self._count(watch, ABOVE_P99)

    def _place(self, watch: Watch, figures: Sequence[tuple[str, float]]) -> None:
        for label, value in figures:
            edges = self._edges.get(label)
            if edges is not None and self.tally.is_first(watch.unit, f"bins of {label}"):
                watch.arm.count_bin(label, bisect_right(edges, value), len(edges) + 1)

    def _count(self, watch: Watch, kind: str) -> None:
        if self.tally.is_first(watch.unit, kind):
            watch.arm.count_event(kind)

    def _reader(self, envelope: Envelope) -> OutputReader:
        key = envelope.version.name, envelope.signature
        found = self._readers.get(key)
        if found is None:
            found = self._readers[key] = OutputReader(envelope.version.signatures[envelope.signature])
        return found

    def _consider_braking(self) -> None:
        """Only an error of the candidate speaks against it, so nothing is missed if nobody asks at other times."""
        if self.brake_reason or not self.plan.brake_alpha:
            return
        self.brake_reason = why_stop(self.tally.phases, self.plan.brake_alpha)
        if self.brake_reason:
            self._on_brake(self)


@dataclass(slots=True)
class Watch:
    """Waits for the end of one request."""

    trial: Trial
    arm: ArmTally
    unit: str
    """Empty for a request alone."""
    is_candidate: bool
    is_judged: bool

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """Counts. A fault in here must not cost anybody the answer."""
        trial, seconds = self.trial, now - envelope.received_at
        try:
            outcome = _as_callers_get_it(envelope, outcome)
            is_fair = trial.is_fair(envelope, now)
            self.is_judged = self.is_judged and is_fair
            if isinstance(outcome, InferwayError):
                trial.failed(self, envelope, outcome, seconds)
            else:
                trial.answered(self, envelope, outcome, seconds)
            if is_fair:
                trial.mirrors.offer(envelope, self.unit, outcome, seconds)
        except Exception:  # noqa: BLE001 - whatever it is, callers come first
            trial.failures += 1
            if trial.failures == 1:
                _LOG.exception("a request of a rollout could not be counted", extra={"rollout": trial.plan.rollout})


def _as_callers_get_it(envelope: Envelope, outcome: Answer | InferwayError) -> Answer | InferwayError:
    """An answer that leaves a session no state to go on with is an error to whoever asked."""
    plan = envelope.version.stateful.get(envelope.signature)
    if plan is None or isinstance(outcome, InferwayError):
        return outcome
    try:
        plan.split(outcome, envelope.rows)
    except InferwayError as error:
        return error
    return outcome
