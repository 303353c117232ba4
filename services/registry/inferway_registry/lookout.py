"""What is known of a rollout at this moment: from workers' leases, gateways' reports and the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from inferway import names
from inferway.registry.v1.outcome_service_pb2 import RolloutOutcomes
from inferway_registry import convert_outcomes
from inferway_registry.fleet import Fleet, VersionReport, Worker
from inferway_registry.ledger import WallClock
from inferway_registry.resources import VersionState
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.store.reader import GatewayReport, Reader

GATEWAY_SECONDS = 5.0
"""A gateway that has not reported for so long is not waited for; what it counted stays."""
MAX_FAILURE_CHARACTERS = 1_024
"""Of why a worker could not load a version, what becomes the reason of a rollout; runtimes may write pages."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known, and the reports that it was read from."""

    facts: Facts
    outcomes: Sequence[RolloutOutcomes]


class Lookout:
    """Keeps nothing, so it sees the same after a restart as soon as workers have reported again."""

    def __init__(self, fleet: Fleet, now: WallClock) -> None:
        """`now` must go on evenly: it measures how long steps take."""
        self._fleet = fleet
        self.now = now
        self._began = now()

    async def look(self, rows: Reader, rollout: Rollout) -> Sight:
        """All of it, in the transaction of `rows`."""
        reports = await rows.reports(rollout.endpoint, rollout.number)
        candidate = await rows.version(*rollout.spec.candidate)
        outcomes = [RolloutOutcomes.FromString(report.report) for report in reports]
        live = [one for one, report in zip(outcomes, reports, strict=True) if self._is_live(report)]
        needed, ready, holders, failure = self._workers(rollout)
        edges = rollout.thresholds.edges if rollout.thresholds else {}
        facts = Facts(
            now=self.now(),
            needed_workers=needed,
            ready_workers=ready,
            holders=holders,
            load_failure=failure,
            published=candidate is not None and candidate.state is VersionState.PUBLISHED,
            generation=min((one.generation for one in live), default=0),
            gateways=len(live),
            brake=next((one.brake_reason for one in outcomes if one.brake_reason), ""),
            counts=convert_outcomes.counts(outcomes, {output: len(those) + 1 for output, those in edges.items()}),
            profile=convert_outcomes.profile(outcomes),
            mirrors=convert_outcomes.mirrors(outcomes),
            listened_seconds=(self.now() - self._began).total_seconds(),
        )
        return Sight(facts, outcomes)

    def _is_live(self, report: GatewayReport) -> bool:
        return self.now() - report.reported_at <= timedelta(seconds=GATEWAY_SECONDS)

    def _workers(self, rollout: Rollout) -> tuple[int, int, int, str]:
        """How many need the candidate, how many of them have it, how many have it at all, and why none can load it."""
        stable, candidate = names.version_name(*rollout.stable), names.version_name(*rollout.spec.candidate)
        staying = [worker for worker in self._fleet.workers() if not worker.draining]
        needing = sum(_has(worker, stable) for worker in staying)
        having = [worker for worker in staying if _has(worker, candidate)]
        failures = [one.failure for worker in staying for one in _on(worker, candidate) if one.failure]
        both = sum(_has(worker, stable) for worker in having)
        return needing, both, len(having), failures[0][:MAX_FAILURE_CHARACTERS] if failures and not having else ""


def _has(worker: Worker, version: str) -> bool:
    return any(report.ready for report in _on(worker, version))


def _on(worker: Worker, version: str) -> list[VersionReport]:
    return [report for report in worker.versions if report.version == version]
