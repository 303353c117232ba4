"""Keeps what gateways report of rollouts, so that any registry on the database can judge by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from inferway_registry.ledger import WallClock
from inferway_registry.store.reader import GatewayReport
from inferway_registry.store.sql import Store
from inferway_registry.store.writer import Writer

_LOG = logging.getLogger(__name__)

MAX_GATEWAYS = 1_000
"""Processes of gateways that are heard of one rollout; each start makes another."""

Key = tuple[str, int]
"""Endpoint and number of a rollout."""


class Outcomes:
    """Reports are no mutations: they make neither a revision nor an event."""

    def __init__(
        self, store: Store, now: WallClock, on_brake: Callable[[], None], max_gateways: int = MAX_GATEWAYS
    ) -> None:
        """`now` is the clock that the controller goes by; `on_brake` is called when a gateway has braked."""
        self._store = store
        self._now = now
        self._on_brake = on_brake
        self._max_gateways = max_gateways

    async def report(self, gateway: str, reports: Mapping[Key, bytes], *, braked: bool) -> None:
        """Puts reports in the place of the gateway's last; those of rollouts that are unknown or have ended are let go.

        Raises StoreUnavailable or StorageFull.
        """
        async with self._store.reading() as rows:
            active = {(rollout.endpoint, rollout.number) for rollout in await rows.active_rollouts()}
        heard = {key: report for key, report in reports.items() if key in active}
        if not heard:
            return
        async with self._store.writing() as rows:
            for key, report in heard.items():
                await self._put(rows, key, GatewayReport(gateway, self._now(), report))
        if braked:
            self._on_brake()

    async def _put(self, rows: Writer, key: Key, report: GatewayReport) -> None:
        known = await rows.reporting_gateways(*key)
        if report.gateway in known or len(known) < self._max_gateways:
            await rows.put_report(*key, report)
        else:
            _LOG.warning("too many gateways report of a rollout", extra={"endpoint": key[0], "rollout": key[1]})
