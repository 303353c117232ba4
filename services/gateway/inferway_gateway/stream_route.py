"""Which version answers a stream: decided when it opens, and looked at again only when the routing changes.

    same version, or policy MIGRATE ─► what the endpoint says now
    else ─► stays where it is, for a bounded time, and workers are told to keep that version

State belongs to a version: a session moves only to one whose state is of the same kind. A stream that stays keeps its
whole decision, generation and all: chance assigned it then, and not again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from inferway.errors import SessionVersionGone, UnknownSignature
from inferway.names import parse_version
from inferway_gateway.matching import Headers
from inferway_gateway.routing import Decision, RoutingTable, Selector, StreamPolicy, Version
from inferway_gateway.state import StatePlan

FINISH_SECONDS = 600.0
"""How long a stream may stay with a version that nothing routes to any more; then it is asked to end."""
LEAVING_SECONDS = 15.0
"""The time for that. A stream that is still there goes on with the present version, or fails."""


class Pins:
    """The versions that open streams want kept. `on_change` is told those that workers would let go otherwise."""

    def __init__(self, on_change: Callable[[frozenset[str]], None]) -> None:
        """Nothing is pinned."""
        self._on_change = on_change
        self._counts = Counter[str]()
        self._table: RoutingTable | None = None
        self._told = frozenset[str]()

    def add(self, version: str) -> None:
        """One stream more stays with `version`."""
        self._counts[version] += 1
        if self._counts[version] == 1:
            self._tell()

    def remove(self, version: str) -> None:
        """One stream less does."""
        self._counts[version] -= 1
        if not self._counts[version]:
            del self._counts[version]
            self._tell()

    @property
    def held(self) -> frozenset[str]:
        """Every version that a stream stays with."""
        return frozenset(self._counts)

    def apply(self, table: RoutingTable) -> None:
        """From now on `table` says what workers keep anyway."""
        self._table = table
        self._tell()

    def _tell(self) -> None:
        table = self._table
        if table is None:
            return
        held = frozenset(name for name in self._counts if name in table.versions and not table.versions[name].wanted)
        if held != self._told:
            self._told = held
            self._on_change(held)


class StreamRoute:
    """See the module. One for each stream or sequence; `close` it at the end."""

    def __init__(
        self,
        selector: Selector,
        unit: str,
        table: RoutingTable,
        pins: Pins,
        begun_with: str = "",
        headers: Headers = (),
    ) -> None:
        """`unit` and `headers` decide between arms. `begun_with` is the version of a session that is resumed.

        Raises EndpointNotFound, VersionNotFound, AliasNotFound, VersionNotReady, UnknownSignature, SessionVersionGone.
        """
        self._selector, self._unit, self._headers, self._pins = selector, unit, headers, pins
        self._pinned = ""
        self._leaves_at: float | None = None
        self._decision = table.route(selector, unit, headers)
        self._table: RoutingTable | None = table
        if begun_with:
            self._decision = self._decision._replace(propensity=0)  # it was assigned when it began
        if begun_with and begun_with != self._decision.version.name:
            self._decision = self._decision._replace(version=_begun(begun_with, table), arm="")
            self._table = None
        self.plan = self._plan_of(self._decision.version)
        """Of the state; None if the signature keeps none."""
        self._pin(table)

    def decide(self, table: RoutingTable, now: float) -> Decision:
        """Where the next item goes. Raises as the constructor."""
        if table is not self._table or self._must_leave(now):
            self._review(table, now)
        return self._decision

    def leave(self, now: float) -> bool:
        """Nobody serves the version that it stayed behind with: the next decision is another one, or an error.

        False if it did not stay behind.
        """
        if self._leaves_at is None:
            return False
        self._leaves_at = now - LEAVING_SECONDS
        return True

    @property
    def version(self) -> Version:
        """Where the last item went, or will go."""
        return self._decision.version

    def is_over(self, now: float) -> bool:
        """It has stayed behind for as long as it may: its client should open another stream."""
        return self._leaves_at is not None and now >= self._leaves_at

    def _must_leave(self, now: float) -> bool:
        return self._leaves_at is not None and now >= self._leaves_at + LEAVING_SECONDS

    def close(self) -> None:
        """The stream is over."""
        self._pin_to("")

    def _review(self, table: RoutingTable, now: float) -> None:
        wanted = table.route(self._selector, self._unit, self._headers)
        current = table.versions.get(self._decision.version.name)
        if wanted.version is current:
            self._leaves_at = None
            stays = self._policy(table) is StreamPolicy.FINISH
        elif stays := self._stays(wanted, current, table, now):
            if self._leaves_at is None:
                self._leaves_at = now + FINISH_SECONDS
        else:
            self._leaves_at = None
        if stays:
            assert current is not None
            wanted = self._decision._replace(version=current)
        self._decision = wanted
        self.plan = self._plan_of(self._decision.version)
        self._table = table
        self._pin(table)

    def _stays(self, wanted: Decision, current: Version | None, table: RoutingTable, now: float) -> bool:
        """Whether it stays with `current` and not with `wanted`. Raises SessionVersionGone if it can do neither."""
        movable = self.plan is None or self._fits(wanted.version, self.plan)
        if current is None or current.unloaded or self._must_leave(now):
            if not movable:
                raise _gone(self._decision.version.name)
            return False
        return not (movable and self._policy(table) is StreamPolicy.MIGRATE)

    def _fits(self, version: Version, plan: StatePlan) -> bool:
        try:
            other = self._plan_of(version)
        except UnknownSignature:
            return False
        return other is not None and other.kind == plan.kind

    def _policy(self, table: RoutingTable) -> StreamPolicy:
        said = table.endpoint(self._selector.endpoint).stream_policy
        return said or (StreamPolicy.MIGRATE if self.plan is None else StreamPolicy.FINISH)

    def _pin(self, table: RoutingTable) -> None:
        finishes = self.plan is not None or self._policy(table) is StreamPolicy.FINISH
        self._pin_to(self._decision.version.name if finishes else "")

    def _pin_to(self, version: str) -> None:
        before, self._pinned = self._pinned, version
        if version:  # first: a version that is let go for a moment may be gone
            self._pins.add(version)
        if before:
            self._pins.remove(before)

    def _plan_of(self, version: Version) -> StatePlan | None:
        if not version.stateful:
            return None
        return version.stateful.get(version.signature(self._selector.signature, "signature").name)


def _begun(name: str, table: RoutingTable) -> Version:
    version = table.versions.get(name)
    if version is None:
        raise _gone(name)
    return version


def _gone(name: str) -> SessionVersionGone:
    model, number = parse_version(name)
    return SessionVersionGone(
        f"the session's state belongs to {name}, which is gone, and no version that answers now has its kind of state: "
        "begin a new session",
        model=model,
        version=number,
    )
