"""What routing goes by now: the registry's newest table, with this gateway's own brakes on it."""

from __future__ import annotations

from dataclasses import replace

from inferway.errors import NotSynchronised
from inferway_gateway.routing import RoutingTable
from inferway_gateway.stream_route import Pins


class Routing:
    """The table that holds now. One reference, swapped whole; nobody locks."""

    def __init__(self, pins: Pins) -> None:
        """There is no table yet. `pins` are those of the streams that follow it."""
        self._table: RoutingTable | None = None
        self._braked = frozenset[str]()
        self.pins = pins

    def swap(self, table: RoutingTable) -> None:
        """From now on `table` holds, but for what is braked: a brake holds for as long as its rollout is there."""
        self._braked &= _rollouts(table)
        self._table = _with_brakes(table, self._braked)
        self.pins.apply(self._table)

    def brake(self, rollout: str) -> None:
        """Gives the candidate of that rollout nothing from now on, whatever snapshots say of its weight."""
        if self._table is not None and rollout in _rollouts(self._table) - self._braked:
            self._braked |= {rollout}
            self.swap(self._table)

    @property
    def table(self) -> RoutingTable:
        """Raises NotSynchronised before the first snapshot."""
        if self._table is None:
            raise NotSynchronised("the gateway has no routing snapshot yet; is the registry running?")
        return self._table

    @property
    def synchronised(self) -> bool:
        """There is a table."""
        return self._table is not None


def _rollouts(table: RoutingTable) -> frozenset[str]:
    return frozenset(endpoint.rollout.rollout for endpoint in table.endpoints.values() if endpoint.rollout is not None)


def _with_brakes(table: RoutingTable, braked: frozenset[str]) -> RoutingTable:
    stopped = {
        endpoint.name: endpoint.without_candidate()
        for endpoint in table.endpoints.values()
        if endpoint.rollout is not None and endpoint.rollout.rollout in braked
    }
    return replace(table, endpoints={**table.endpoints, **stopped}) if stopped else table
