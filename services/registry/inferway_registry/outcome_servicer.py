"""`OutcomeService`: converts, calls, converts."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

from dataclasses import dataclass

from inferway import names
from inferway.registry.v1 import outcome_service_pb2 as pb
from inferway_registry import convert_outcomes, convert_splits
from inferway_registry.outcomes import Outcomes
from inferway_registry.splits import Splits


@dataclass(frozen=True, slots=True)
class OutcomeServicer:
    """What gateways tell of rollouts, and of splits without one."""

    outcomes: Outcomes
    splits: Splits

    async def ReportOutcomes(self, request: pb.ReportOutcomesRequest, _: object) -> pb.ReportOutcomesResponse:
        convert_outcomes.check(request)
        reports = {names.parse_rollout(each.rollout): each.SerializeToString() for each in request.outcomes}
        splits = convert_splits.reports(request.splits)
        braked = any(each.brake_reason for each in request.outcomes)
        await self.outcomes.report(request.gateway, reports, braked=braked)
        await self.splits.report(request.gateway, splits)
        return pb.ReportOutcomesResponse()
