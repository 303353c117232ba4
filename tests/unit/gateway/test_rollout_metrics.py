"""What an operator sees of rollouts in one gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inferway.errors import ModelFailed
from inferway_gateway.rollouts.metrics import RolloutMetrics
from inferway_gateway.rollouts.reporter import Reporter
from tests.unit.gateway.rollout_bed import ROLLOUT, Bed


async def test_a_brake_is_seen_by_who_watches_the_gateway():
    """It may be pulled while the registry is away; then nobody else knows."""
    bed, registry = Bed(), CollectorRegistry()
    registry.register(RolloutMetrics(bed.rollouts, Reporter("127.0.0.1:1", "boot", bed.rollouts)))
    labels = {"rollout": ROLLOUT}
    assert registry.get_sample_value("inferway_gateway_rollout_braked", labels) == 0

    while not bed.braked:
        bed.ask("v2", ModelFailed("broken"))

    assert registry.get_sample_value("inferway_gateway_rollout_braked", labels) == 1
    assert registry.get_sample_value("inferway_gateway_rollout_brakes_total") == 1
    assert registry.get_sample_value("inferway_gateway_rollout_uncounted", labels) == 0
    assert registry.get_sample_value("inferway_gateway_rollout_reports_failed_total") == 0
