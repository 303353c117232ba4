"""Moves automatic endpoints on when a worker has their next version ready."""

from __future__ import annotations

from inferway import names
from inferway_registry import endpoints
from inferway_registry.fleet import Fleet
from inferway_registry.ledger import OF_REGISTRY, Call, Change, Ledger
from inferway_registry.store.sql import Store


class Follower:
    """Compares what endpoints wait for with what is ready; safe to run at any time, and as often as wanted."""

    def __init__(self, store: Store, ledger: Ledger, fleet: Fleet) -> None:
        self._store = store
        self._ledger = ledger
        self._fleet = fleet

    async def run(self) -> None:
        """Moves every endpoint that can be moved; raises StoreUnavailable or StorageFull."""
        ready = self._fleet.ready_versions()
        async with self._store.reading() as rows:
            waiting = await rows.following_endpoints()
        for endpoint in waiting:
            if names.version_name(endpoint.endpoint, endpoint.next_number) in ready:
                await self._move(endpoint.endpoint, endpoint.next_number)

    async def _move(self, model: str, number: int) -> None:
        async def operation(change: Change) -> None:
            if await change.rows.endpoint(model) is not None:
                await endpoints.follow(change, model, [number])

        await self._ledger.apply(Call(OF_REGISTRY, "FollowNewestVersion"), operation)
