"""Keeps what gateways report of splits without a rollout, and says so when one is not as its weights are.

Nothing else is done about it: such a split belongs to whoever set it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inferway_registry.resources import Endpoint
from inferway_registry.split_check import Counts, Mismatch, SplitCheck, check, is_split, weights
from inferway_registry.store.reader import Reader
from inferway_registry.store.sql import Store
from inferway_registry.store.writer import Writer

_LOG = logging.getLogger(__name__)

MAX_GATEWAYS = 1_000
"""Processes of gateways that are heard of one split; each start makes another. To leave later ones out costs power, and
misleads nobody."""


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What a gateway has counted for an endpoint, under the weights of one generation."""

    generation: int
    arms: Counts


async def look_at(rows: Reader, endpoint: Endpoint) -> SplitCheck | None:
    """What came to the arms of an endpoint; None unless it `is_split`."""
    if not is_split(endpoint):
        return None
    return check(endpoint, (await rows.split_reports(endpoint.endpoint, endpoint.generation)).values())


class Splits:
    """Reports are no mutations: they make neither a revision nor an event."""

    def __init__(self, store: Store, on_report: Callable[[], None], max_gateways: int = MAX_GATEWAYS) -> None:
        """`on_report` is called when something new was told."""
        self._store = store
        self._on_report = on_report
        self._max_gateways = max_gateways
        self._wrong: dict[tuple[str, int, Mismatch], SplitCheck] = {}

    async def report(self, gateway: str, reports: Mapping[str, SplitReport]) -> None:
        """Puts reports, by endpoint, in the place of the gateway's last.

        Those of endpoints that are not split, or not with these arms and this generation, are let go. Raises
        StoreUnavailable or StorageFull.
        """
        if not reports:
            return
        async with self._store.writing() as rows:
            taken = [await self._take(rows, gateway, endpoint, report) for endpoint, report in reports.items()]
        if any(taken):
            self._on_report()

    async def look(self) -> None:
        """Checks all splits, and logs each mismatch that was not there before; raises StoreUnavailable."""
        async with self._store.reading() as rows:
            found = [(endpoint, await look_at(rows, endpoint)) for endpoint in await rows.endpoints()]
        wrong: dict[tuple[str, int, Mismatch], SplitCheck] = {
            (endpoint.endpoint, endpoint.generation, seen.mismatch): seen
            for endpoint, seen in found
            if seen is not None and seen.mismatch is not Mismatch.NONE
        }
        for key in wrong.keys() - self._wrong.keys():
            told = {"endpoint": key[0], "generation": key[1], "explanation": wrong[key].explanation}
            _LOG.warning("traffic is not split as its weights are", extra=told)
        self._wrong = wrong

    def count(self, mismatch: Mismatch) -> int:
        """Endpoints of which that was found at the last look."""
        return sum(kind is mismatch for _, _, kind in self._wrong)

    async def _take(self, rows: Writer, gateway: str, name: str, report: SplitReport) -> bool:
        endpoint = await rows.endpoint(name)
        if endpoint is None or not is_split(endpoint) or endpoint.generation != report.generation:
            return False
        known = await rows.split_reports(name, report.generation)
        is_full = gateway not in known and len(known) >= self._max_gateways
        if is_full or known.get(gateway) == report.arms or report.arms.keys() != weights(endpoint).keys():
            return False
        await rows.put_split_report(name, gateway, report.generation, report.arms)
        return True
