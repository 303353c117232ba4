"""The routing snapshot: all that gateways and workers need to know, whole, as of one revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferway_registry import policy
from inferway_registry.fleet import Fleet, Worker
from inferway_registry.resources import Alias, Endpoint, ModelVersion
from inferway_registry.store.sql import Store
from inferway_registry.watch import Broadcast


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """Everything ordered by name; `wanted` are the versions that workers shall hold."""

    epoch: str
    revision: int
    membership_revision: int
    endpoints: tuple[Endpoint, ...]
    versions: tuple[ModelVersion, ...]
    wanted: frozenset[policy.VersionKey]
    aliases: Mapping[str, tuple[Alias, ...]]
    workers: tuple[Worker, ...]

    @property
    def position(self) -> tuple[str, int, int]:
        """What tells this snapshot from every other."""
        return (self.epoch, self.revision, self.membership_revision)


async def take_snapshot(store: Store, fleet: Fleet) -> RoutingSnapshot:
    """Reads the catalogue at one moment, and the fleet of that moment; raises StoreUnavailable."""
    async with store.reading() as rows:
        counters = await rows.counters()
        endpoints = tuple(await rows.endpoints())
        versions = tuple(await rows.all_versions())
        aliases = await rows.all_aliases()
        policies = await rows.all_policies()
    return RoutingSnapshot(
        epoch=counters.epoch,
        revision=counters.revision,
        membership_revision=fleet.membership_revision,
        endpoints=endpoints,
        versions=versions,
        wanted=policy.wanted(versions, endpoints, aliases, policies),
        aliases=aliases,
        workers=tuple(fleet.workers()),
    )


class RoutingBoard:
    """Keeps the broadcast snapshot up to date."""

    def __init__(self, store: Store, fleet: Fleet, broadcast: Broadcast[RoutingSnapshot]) -> None:
        self._store = store
        self._fleet = fleet
        self._broadcast = broadcast

    async def refresh(self) -> None:
        """Publishes a new snapshot if anything changed, here or by another registry; raises StoreUnavailable."""
        async with self._store.reading() as rows:
            counters = await rows.counters()
        position = (counters.epoch, counters.revision, self._fleet.membership_revision)
        if position != self._broadcast.latest.position:
            self._broadcast.publish(await take_snapshot(self._store, self._fleet))
