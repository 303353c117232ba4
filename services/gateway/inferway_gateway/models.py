"""What the gateway knows about models beside answering for them: descriptions, readiness, the index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from inferway.errors import InferwayError, NotFound, NotSynchronised, VersionLoadFailed
from inferway.names import check_segment
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.routing import Endpoint, RoutingTable, Selector, Version
from inferway_gateway.signature import Signature
from inferway_gateway.steering import Routing
from inferway_gateway.workers import LoadState

_LOADING = frozenset({LoadState.PENDING, LoadState.DOWNLOADING, LoadState.LOADING, LoadState.WARMING})


class Description(NamedTuple):
    """A version as a caller of its endpoint sees it."""

    version: Version
    signature: Signature
    """The one that is used when a request names none."""
    numbers: list[int]
    """Versions that the endpoint's model has and that are not unloaded."""


class IndexEntry(NamedTuple):
    """How one version stands. `state` is a word of Triton's repository index."""

    version: Version
    state: str
    reason: str


class Models:
    """Reads the table and the dispatcher; changes nothing."""

    def __init__(self, routing: Routing, dispatcher: Dispatcher) -> None:
        """Answers from what these two hold at the moment of each call."""
        self._routing, self._dispatcher = routing, dispatcher

    @property
    def synchronised(self) -> bool:
        """There is a snapshot to route by."""
        return self._routing.synchronised

    def describe(self, selector: Selector) -> Description:
        """The version that `selector` means; of several arms, the one with the most traffic.

        Raises NotSynchronised, InvalidName, EndpointNotFound, VersionNotFound, AliasNotFound, VersionNotReady (the
        endpoint has no version yet), UnknownSignature (it has several and no default).
        """
        table = self._routing.table
        version = self._meant(table, selector)
        numbers = [v.number for v in table.versions_of(version.model) if not v.unloaded]
        return Description(version, version.signature("", "signature"), numbers)

    def is_ready(self, selector: Selector) -> bool:
        """Whether a request for `selector` would be answered now; for an endpoint: by each of its arms.

        False, as in Triton, for what does not exist and before the first snapshot. Raises InvalidName.
        """
        try:
            table = self._routing.table
            if selector.number or selector.alias:
                return self._dispatcher.is_ready(self._meant(table, selector))
            return self._endpoint_is_ready(table, _endpoint(table, selector.endpoint))
        except (NotFound, NotSynchronised):
            return False

    def readiness(self) -> Iterator[tuple[str, bool]]:
        """Every endpoint by name, and whether it can answer."""
        table = self._routing.table
        for endpoint in table.endpoints.values():
            yield endpoint.name, self._endpoint_is_ready(table, endpoint)

    def versions(self, selector: Selector | None) -> list[Version]:
        """The version pinned by `selector`, or all of its model, or, without one, all there are, in order.

        Raises NotSynchronised, InvalidName, EndpointNotFound, VersionNotFound, AliasNotFound.
        """
        table = self._routing.table
        if selector is None:
            return sorted(table.versions.values(), key=lambda version: (version.model, version.number))
        if selector.number or selector.alias:
            return [self._meant(table, selector)]
        endpoint = _endpoint(table, selector.endpoint)
        arms = {arm.version for arm in endpoint.arms}
        return [v for v in self.versions(None) if v.model == endpoint.name or v.name in arms]

    def index(self) -> list[IndexEntry]:
        """Every version and how it stands; raises NotSynchronised."""
        return [self._entry(version) for version in self.versions(None)]

    def _meant(self, table: RoutingTable, selector: Selector) -> Version:
        endpoint = _endpoint(table, selector.endpoint)
        if selector.number or selector.alias or not endpoint.arms:
            return table.route(selector, "").version
        return table.versions[max(endpoint.arms, key=lambda arm: arm.weight).version]

    def _endpoint_is_ready(self, table: RoutingTable, endpoint: Endpoint) -> bool:
        names = [arm.version for arm in endpoint.arms if arm.weight] or [endpoint.next_version]
        return all(name in table.versions and self._dispatcher.is_ready(table.versions[name]) for name in names)

    def _entry(self, version: Version) -> IndexEntry:
        if self._dispatcher.is_ready(version):
            return IndexEntry(version, "READY", "")
        error = self._dispatcher.why_not(version)
        standings = [worker.standings.get(version.name) for worker in self._dispatcher.workers if worker.links_up]
        if any(standing is not None and standing.state in _LOADING for standing in standings):
            return IndexEntry(version, "LOADING", "")
        return IndexEntry(version, "UNAVAILABLE", _reason(error))


def _endpoint(table: RoutingTable, name: str) -> Endpoint:
    if name not in table.endpoints:
        check_segment(name, "name")
    return table.endpoint(name)


def _reason(error: InferwayError) -> str:
    return error.metadata["cause"] if isinstance(error, VersionLoadFailed) else error.message
