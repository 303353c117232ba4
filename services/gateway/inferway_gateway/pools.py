"""The pools of all versions: which lanes lead to them, and when what waits in them is bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inferway_chassis.clock import Clock
from inferway_chassis.request_queue import QueueLimits
from inferway_gateway.lane import FRAME_SECONDS, Flight, Lane, Loop
from inferway_gateway.pool import Pool
from inferway_gateway.workers import Worker


class Pools:
    """See the module. A pool is made when its version is first ready somewhere; it goes with the version."""

    def __init__(self, loop: Loop, clock: Clock, limits: QueueLimits, random: Callable[[], float]) -> None:
        """`limits` hold for each version."""
        self._loop, self._clock, self._limits, self._random = loop, clock, limits, random
        self.by_version: dict[str, Pool] = {}
        """Every version that is or was ready somewhere, by name."""
        self._lanes: dict[Worker, list[Lane]] = {}

    def of(self, flight: Flight) -> Pool:
        """Where `flight` waits, or would."""
        return self._pool(flight.envelope.version.name)

    def lanes_of(self, worker: Worker) -> list[Lane]:
        """All open links to `worker`."""
        return self._lanes.get(worker, [])

    def set_ready(self, lane: Lane, ready: Iterable[str], *, failed: bool) -> bool:
        """Which versions may be bound to `lane` from now on; returns whether that is a change."""
        lanes = self._lanes.setdefault(lane.worker, [])
        if lane not in lanes:
            lanes.append(lane)
        before, lane.ready, lane.silenced = lane.ready, frozenset(ready), frozenset()
        now = self._clock()
        for name in before - lane.ready:
            self.by_version[name].remove(lane, now, failed=failed)
            self.forget_if_over(name)
        for name in lane.ready - before:
            pool = self._pool(name)
            pool.add(lane, now)
            self._pump(pool)
        return before != lane.ready

    def remove(self, lane: Lane) -> None:
        """The link is gone; nothing is ready on it any more."""
        lanes = self._lanes[lane.worker]
        lanes.remove(lane)
        if not lanes:
            del self._lanes[lane.worker]

    def forget_if_over(self, version: str) -> None:
        """Drops the pool of a version that does not exist any more, once nobody is left in it."""
        if self.by_version[version].is_over:
            del self.by_version[version]

    def place(self, pool: Pool, flight: Flight) -> None:
        """Binds `flight`, or lets it wait; raises QueueFull or WouldBeLate."""
        pool.take(flight, self._clock())
        if flight.queued is not None and pool.is_paced:
            self._pump_later(pool)

    def pump(self, version: str) -> None:
        """Binds what waits for `version`, as far as there is room."""
        pool = self.by_version.get(version)
        if pool is not None and pool.queue:
            self._pump(pool)

    def pump_all(self) -> None:
        """The same for all versions."""
        for pool in self.by_version.values():
            if pool.queue.items:
                self._pump(pool)

    def _pump(self, pool: Pool) -> None:
        if pool.pump(self._clock()):
            self._pump_later(pool)

    def _pump_later(self, pool: Pool) -> None:
        if pool.timer is None:
            pool.timer = self._loop.call_later(FRAME_SECONDS, self._pump_now, pool)

    def _pump_now(self, pool: Pool) -> None:
        pool.timer = None
        self._pump(pool)

    def _pool(self, version: str) -> Pool:
        pool = self.by_version.get(version)
        if pool is None:
            pool = self.by_version[version] = Pool(version, self._limits, self._random)
        return pool
