"""What the registry counts besides its rpcs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from inferway_registry.fleet import Fleet
from inferway_registry.routing import RoutingSnapshot
from inferway_registry.watch import Broadcast


def register(registry: CollectorRegistry, routing: Broadcast[RoutingSnapshot], fleet: Fleet) -> None:
    """Adds gauges that read their value when they are asked."""
    revision = Gauge("inferway_registry_revision", "Routing revision last published.", registry=registry)
    revision.set_function(lambda: routing.latest.revision)
    workers = Gauge("inferway_registry_workers", "Workers whose lease holds.", registry=registry)
    workers.set_function(lambda: len(fleet.workers()))
    watchers = Gauge("inferway_registry_watchers", "Streams that follow the routing or the events.", registry=registry)
    watchers.set_function(lambda: routing.watchers)
