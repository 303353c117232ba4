"""What can be seen of rollouts in one gateway."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferway_gateway.rollouts.reporter import Reporter
from inferway_gateway.rollouts.rollouts import Rollouts


class RolloutMetrics(Collector):
    """Read from the domain's own numbers when somebody asks."""

    def __init__(self, rollouts: Rollouts, reporter: Reporter) -> None:
        """Nothing is counted here."""
        self._rollouts, self._reporter = rollouts, reporter

    def collect(self) -> Iterator[Metric]:
        """All families of rollouts."""
        yield CounterMetricFamily(
            "inferway_gateway_rollout_brakes", "Candidates that this gateway stopped by itself.", self._rollouts.brakes
        )
        yield CounterMetricFamily(
            "inferway_gateway_rollout_reports_failed", "Reports that the registry did not take.", self._reporter.failed
        )
        braked = GaugeMetricFamily(
            "inferway_gateway_rollout_braked", "Whether the candidate is stopped here.", labels=["rollout"]
        )
        uncounted = GaugeMetricFamily(
            "inferway_gateway_rollout_uncounted",
            "Requests that the judge does not see: their units are more than can be remembered, or counting failed.",
            labels=["rollout"],
        )
        for trial in list(self._rollouts.trials):
            braked.add_metric([trial.plan.rollout], bool(trial.brake_reason))
            uncounted.add_metric([trial.plan.rollout], trial.tally.uncounted + trial.failures)
        yield from (braked, uncounted)
