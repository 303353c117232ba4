"""Which requests of a rollout are copied, what is sent as their copy, and what is made of its answer.

A copy is asked of the version that did not answer its user, after the answer is known, and nobody waits for it. Users
cannot tell: a copy is the last to be served and the first to be shed, is never repeated, and its errors are figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from inferway.datatypes import Datatype
from inferway.errors import DeadlineExceeded, InferwayError, WorkerLost
from inferway_gateway.admission import FieldNames, admit
from inferway_gateway.envelope import CRITICALITIES, Caller, Envelope, Observer
from inferway_gateway.rollouts.compare import Tolerances, compare
from inferway_gateway.rollouts.copier import Copier
from inferway_gateway.rollouts.examples import Examples, Subject
from inferway_gateway.rollouts.faults import is_versions_fault, was_shed
from inferway_gateway.rollouts.mirror_figures import MirrorFigures
from inferway_gateway.rollouts.plan import MirrorPlan, Sides
from inferway_gateway.routing import Version, bucket_of
from inferway_gateway.tensors import Answer, Tensor

SHADOW = "shadow"
"""Arm and tenant of copies, by which workers and traces know them."""
COPY = Caller(CRITICALITIES["sheddable"], SHADOW)
TIMES_THE_BUDGET = 2.0
"""How long a copy may take, compared with what the caller gave the request: it is served last."""
LONG_SECONDS = 10.0
"""A copy gets no more, unless the request itself had more."""
MAX_COPIES_OF_ONE = 200
"""Of a version, taken and not yet compared: one that does not answer has next to no work done for it, and the others'
copies find room."""
_SALT = "/mirror"
_NAMES = FieldNames("", "", "", "")
"""For errors that nobody reads."""
_DATATYPES = {int(datatype): datatype for datatype in Datatype}


class Question(NamedTuple):
    """What is asked a second time."""

    version: Version
    inputs: Sequence[Tensor]
    """In the order of the version's signature."""
    rows: int
    byte_count: int


class Mirror:
    """The copies that one version of a rollout gets. `figures` are cumulative."""

    def __init__(
        self,
        plan: MirrorPlan,
        sides: Sides,
        salt: str,
        version_of: Callable[[str], Version | None],
        copier: Copier,
        is_away: Callable[[str], bool],
    ) -> None:
        """`salt` is the endpoint's; `version_of` gives a version of the table that holds now by its name.

        `is_away` says of a name whether the version is missing only because its workers went away.
        """
        self.plan = plan
        """May be replaced by one for the same version."""
        self.mirrored_is_stable = plan.version == sides.stable
        primary = sides.candidate if self.mirrored_is_stable else sides.stable
        self.figures = MirrorFigures(primary, plan.version, Examples(plan.examples))
        self._salt, self._version_of, self._copier, self._is_away = salt + _SALT, version_of, copier, is_away
        self._copies = 0

    @property
    def is_away(self) -> bool:
        """The copies have nobody to answer them, through no fault of their version."""
        return self._is_away(self.plan.version)

    def offer(self, envelope: Envelope, unit: str, outcome: Answer | InferwayError, seconds: float) -> None:
        """A request has ended after so many seconds; its inputs are still there. Quick, and never raises.

        It is copied if the other version answered, `unit` (empty for a request alone) is sampled, and the
        mirrored version can be asked the same: sessions are not copied, for then their state would have to be.
        """
        if envelope.version.name != self.figures.primary_version:
            return
        if bucket_of(self._salt, unit or envelope.prediction_id) >= self.plan.sample_basis_points:
            return
        if isinstance(outcome, InferwayError) and (was_shed(outcome) or not is_versions_fault(outcome)):
            return
        if self._copies >= MAX_COPIES_OF_ONE or self._copier.is_full:  # first: the user waits meanwhile
            self.figures.dropped += 1
            return
        question = self._question(envelope)
        if question is None:
            return
        if self._copier.take(Pair(self, envelope, question, _taken(outcome), seconds), COPY.criticality):
            self._copies += 1
        else:
            self.figures.dropped += 1

    def compared(self) -> None:
        """One of its copies is done with."""
        self._copies -= 1

    def _question(self, envelope: Envelope) -> Question | None:
        """What to ask the mirrored version; None if that cannot be asked."""
        version, name = self._version_of(self.plan.version), envelope.signature
        if version is None or name in version.stateful or name in envelope.version.stateful:
            return None
        signature = version.signatures.get(name)
        if signature is None:
            return None
        try:
            inputs, rows, byte_count = admit(signature, envelope.inputs, envelope.outputs, _NAMES)
        except InferwayError:
            return None
        return Question(version, inputs, rows, byte_count)


class Mirrors:
    """The copies of one rollout, for each version that gets or got some."""

    def __init__(
        self,
        salt: str,
        version_of: Callable[[str], Version | None],
        copier: Copier,
        is_away: Callable[[str], bool],
    ) -> None:
        """As for `Mirror`. Nothing is copied."""
        self._salt, self._version_of, self._copier, self._is_away = salt, version_of, copier, is_away
        self._mirrors: dict[str, Mirror] = {}
        self._now: Mirror | None = None

    @property
    def figures(self) -> Sequence[MirrorFigures]:
        """Of all of them, cumulative."""
        return [mirror.figures for mirror in self._mirrors.values()]

    def follow(self, plan: MirrorPlan | None, sides: Sides) -> None:
        """Copies by `plan` from now on; None copies nothing."""
        if plan is None:
            self._now = None
            return
        mirror = self._mirrors.get(plan.version)
        if mirror is None:
            mirror = Mirror(plan, sides, self._salt, self._version_of, self._copier, self._is_away)
            self._mirrors[plan.version] = mirror
        mirror.plan, self._now = plan, mirror

    def offer(self, envelope: Envelope, unit: str, outcome: Answer | InferwayError, seconds: float) -> None:
        """See `Mirror.offer`."""
        if self._now is not None:
            self._now.offer(envelope, unit, outcome, seconds)


class Pair:
    """A request, and its copy: see `Copy`."""

    __slots__ = ("_mirror", "_primary", "_question", "_seconds", "_source", "byte_count")

    def __init__(
        self,
        mirror: Mirror,
        source: Envelope,
        question: Question,
        primary: Sequence[Tensor] | InferwayError,
        seconds: float,
    ) -> None:
        """`source` was answered by `primary` after so many seconds."""
        self._mirror, self._source, self._question = mirror, source, question
        self._primary, self._seconds = primary, seconds
        answer_bytes = 0 if isinstance(primary, InferwayError) else sum([len(tensor.raw) for tensor in primary])
        self.byte_count = question.byte_count + 2 * answer_bytes

    def envelope(self, now: float, observer: Observer) -> Envelope:
        """See `Copy`."""
        source, question = self._source, self._question
        return replace(
            source,
            version=question.version,
            inputs=question.inputs,
            rows=question.rows,
            byte_count=question.byte_count,
            deadline=now + self._seconds_given,
            received_at=now,
            caller=COPY,
            arm=SHADOW,
            propensity=0,
            prediction_id=f"{source.prediction_id}-{SHADOW}",
            traceparent="",
            tracestate="",
            observer=observer,
            is_copy=True,
        )

    @property
    def _budget(self) -> float:
        return self._source.deadline - self._source.received_at

    @property
    def _seconds_given(self) -> float:
        return min(TIMES_THE_BUDGET * self._budget, max(LONG_SECONDS, self._budget))

    def compare(self, outcome: Answer | InferwayError, seconds: float) -> None:
        """See `Copy`. Where neither was answered there is nothing to compare."""
        figures, primary = self._mirror.figures, self._primary
        self._mirror.compared()
        if isinstance(outcome, InferwayError):
            if was_shed(outcome) or self._met_what_users_do_not(outcome, seconds):
                figures.dropped += 1
            elif is_versions_fault(outcome) and not isinstance(primary, InferwayError):
                figures.only_copy_failed()
        elif not isinstance(primary, InferwayError):
            figures.primary_latency.add(self._seconds)
            figures.mirrored_latency.add(seconds)
            self._compare(primary, tensors_of(outcome))
        elif primary.reason != "DEADLINE_EXCEEDED" or seconds <= self._budget:
            figures.only_primary_failed()  # else the copy would not have been in time, either

    def _met_what_users_do_not(self, error: InferwayError, seconds: float) -> bool:
        """A user's request is repeated if its worker is lost, and is not the last to be served there.

        Only a worker that has not begun a request says that it is late, and says so before the time is over. And what
        users meet while nobody has loaded their version again is not counted, either.
        """
        was_late = isinstance(error, DeadlineExceeded) and seconds < self._seconds_given
        return was_late or isinstance(error, WorkerLost) or self._mirror.is_away

    def _compare(self, primary: Sequence[Tensor], mirrored: Sequence[Tensor]) -> None:
        mirror, source = self._mirror, self._source
        stable, candidate = (mirrored, primary) if mirror.mirrored_is_stable else (primary, mirrored)
        tolerances = Tolerances(mirror.plan.absolute_tolerance, mirror.plan.relative_tolerance)
        differences = compare(stable, candidate, self._question.rows, tolerances)
        subject = Subject(source.prediction_id, self._question.inputs, primary, mirrored)
        mirror.figures.both_answered(differences, source.signature, subject)


def _taken(outcome: Answer | InferwayError) -> Sequence[Tensor] | InferwayError:
    """What an answer says, without the message that it came in: others came in it, too."""
    return outcome if isinstance(outcome, InferwayError) else tensors_of(outcome)


def tensors_of(answer: Answer) -> list[Tensor]:
    """The outputs of `answer`; what has no known datatype is taken as it is, for bytes."""
    return [
        Tensor(output.name, _DATATYPES.get(output.datatype, Datatype.BYTES), tuple(output.shape), output.raw)
        for output in answer.outputs
    ]
