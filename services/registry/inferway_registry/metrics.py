"""What the registry counts besides its rpcs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferway_registry.fleet import Fleet
from inferway_registry.resources import FULL_WEIGHT
from inferway_registry.rollouts.rollout import ENDS, State
from inferway_registry.routing import RoutingSnapshot
from inferway_registry.split_check import Mismatch
from inferway_registry.splits import Splits
from inferway_registry.watch import Broadcast


def register(registry: CollectorRegistry, routing: Broadcast[RoutingSnapshot], fleet: Fleet, splits: Splits) -> None:
    """Adds gauges that read their value when they are asked."""
    revision = Gauge("inferway_registry_revision", "Routing revision last published.", registry=registry)
    revision.set_function(lambda: routing.latest.revision)
    rollouts = Gauge("inferway_registry_rollouts", "Rollouts that have not ended.", ["state"], registry=registry)
    for state in State:
        if state not in ENDS:
            rollouts.labels(state.name.lower()).set_function(partial(_count, routing, state))
    registry.register(Weights(routing))
    wrong = Gauge(
        "inferway_registry_split_mismatches",
        "Endpoints without a rollout whose units are not assigned, or not answered, as the weights say.",
        ["mismatch"],
        registry=registry,
    )
    for mismatch in (Mismatch.ASSIGNED, Mismatch.ANSWERED):
        wrong.labels(mismatch.name.lower()).set_function(partial(splits.count, mismatch))
    workers = Gauge("inferway_registry_workers", "Workers whose lease holds.", registry=registry)
    workers.set_function(lambda: len(fleet.workers()))
    watchers = Gauge("inferway_registry_watchers", "Streams that follow the routing or the events.", registry=registry)
    watchers.set_function(lambda: routing.watchers)


class Weights(Collector):
    """How far each rollout is."""

    def __init__(self, routing: Broadcast[RoutingSnapshot]) -> None:
        """Reads what is published when somebody asks."""
        self._routing = routing

    def collect(self) -> Iterator[Metric]:
        """One family; what has ended is not in it."""
        weights = GaugeMetricFamily(
            "inferway_registry_rollout_weight", "The candidate's share of the traffic, 0 to 1.", labels=["rollout"]
        )
        for endpoint in self._routing.latest.endpoints:
            if endpoint.rollout is not None:
                weights.add_metric([endpoint.rollout.name], endpoint.rollout.weight_basis_points / FULL_WEIGHT)
        yield weights


def _count(routing: Broadcast[RoutingSnapshot], state: State) -> int:
    driven = (endpoint.rollout for endpoint in routing.latest.endpoints)
    return sum(rollout is not None and rollout.state is state for rollout in driven)
