"""A registry in memory that has rollouts: they go as the test wrote it down, a look at a time."""

from __future__ import annotations

from typing import Any

from inferway import names
from inferway.errors import InferwayError, RolloutNotFound, Unavailable
from inferway.registry.v1 import resources_pb2, rollout_service_pb2, rollouts_pb2
from tests.unit.cli.fake_registry import FakeRegistry

Rollout = rollouts_pb2.Rollout
Judgement = rollouts_pb2.RolloutJudgement
STABLE, CANDIDATE = "models/affine/versions/1", "models/affine/versions/2"
STEPS = (500, 2_500)


def rollout(state: Rollout.State.ValueType = Rollout.STATE_RUNNING, **fields: Any) -> Rollout:
    """The first of endpoint `affine`, from version 1 to 2: a canary in two steps."""
    steps = [rollouts_pb2.CanaryStep(weight_basis_points=weight) for weight in STEPS]
    spec = rollouts_pb2.RolloutSpec(candidate_version=CANDIDATE, canary=rollouts_pb2.CanaryStrategy(steps=steps))
    made = Rollout(name="endpoints/affine/rollouts/1", spec=spec, state=state, stable_version=STABLE)
    made.create_time.FromSeconds(1_000_000_000)
    made.state_time.FromSeconds(1_000_000_010)
    made.MergeFrom(Rollout(**fields))
    return made


def finding(metric: str, verdict: Judgement.Verdict.ValueType, log_evidence: float) -> rollouts_pb2.RolloutFinding:
    """A finding whose threshold is 50 to 1."""
    return rollouts_pb2.RolloutFinding(
        metric=metric, verdict=verdict, log_evidence=log_evidence, log_threshold=3.91, reason=f"{metric}: in words."
    )


class RolloutRegistry(FakeRegistry):
    """Versions 1 and 2 of `affine`, and rollouts of its endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[Rollout | InferwayError] = []
        """What GetRollout answers, one after another; the last one again and again."""
        self.others: list[Rollout] = []
        """What ListRollouts has beside the last look."""
        self.requests: list[Any] = []
        """Every call that asks for something to be done, and every GetRollout."""
        for number in (1, 2):
            name = names.version_name("affine", number)
            published = resources_pb2.ModelVersion.STATE_PUBLISHED
            self.versions[name] = resources_pb2.ModelVersion(name=name, version=number, state=published)

    async def create_rollout(self, request: rollout_service_pb2.CreateRolloutRequest) -> Any:
        """Begins it."""
        self.requests.append(request)
        begun = rollout(Rollout.STATE_PENDING, next="workers load affine/2")
        begun.spec.CopyFrom(request.rollout.spec)
        if not request.validate_only:
            self.looks = self.looks or [begun]
        return rollout_service_pb2.CreateRolloutResponse(rollout=begun)

    async def get_rollout(self, request: rollout_service_pb2.GetRolloutRequest) -> Any:
        """The next look."""
        self.requests.append(request)
        if not self.looks:
            raise RolloutNotFound(f"no rollout {request.name}")
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, InferwayError):
            raise look
        return rollout_service_pb2.GetRolloutResponse(rollout=look)

    async def list_rollouts(self, request: rollout_service_pb2.ListRolloutsRequest) -> Any:
        """All of them."""
        self.requests.append(request)
        last = [look for look in self.looks[-1:] if isinstance(look, Rollout)]
        return rollout_service_pb2.ListRolloutsResponse(rollouts=[*last, *self.others])

    async def pause_rollout(self, request: rollout_service_pb2.PauseRolloutRequest) -> Any:
        """Does what the next look says."""
        return rollout_service_pb2.PauseRolloutResponse(rollout=await self._done(request))

    async def resume_rollout(self, request: rollout_service_pb2.ResumeRolloutRequest) -> Any:
        """The same."""
        return rollout_service_pb2.ResumeRolloutResponse(rollout=await self._done(request))

    async def promote_rollout(self, request: rollout_service_pb2.PromoteRolloutRequest) -> Any:
        """The same."""
        return rollout_service_pb2.PromoteRolloutResponse(rollout=await self._done(request))

    async def abort_rollout(self, request: rollout_service_pb2.AbortRolloutRequest) -> Any:
        """The same."""
        return rollout_service_pb2.AbortRolloutResponse(rollout=await self._done(request))

    async def retry_rollout(self, request: rollout_service_pb2.RetryRolloutRequest) -> Any:
        """The same."""
        return rollout_service_pb2.RetryRolloutResponse(rollout=await self._done(request))

    async def _done(self, request: Any) -> Rollout:
        self.requests.append(request)
        return rollout(Rollout.STATE_RUNNING, reason="as you said", next="the next step")


AWAY = Unavailable("the store is away")
