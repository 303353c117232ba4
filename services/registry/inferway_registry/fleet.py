"""The workers there are, by lease. In memory only: after a restart the registry learns them from their next reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from inferway.errors import WorkerNotFound
from inferway_registry.ledger import WallClock

_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 6.0

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class VersionReport:
    """How a version stands on a worker."""

    version: str
    """`models/{model}/versions/{version}`."""
    ready: bool
    status: bytes
    """The worker's own words, handed on unread."""
    failure: str = ""
    """Why it could not be loaded; empty unless the last attempt failed by what the version or the worker is."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that executes predictions, as it last described itself."""

    worker: str
    boot_id: str
    address: str
    labels: Mapping[str, str]
    versions: tuple[VersionReport, ...]
    draining: bool
    create_time: datetime
    expire_time: datetime

    @property
    def membership(self) -> tuple[object, ...]:
        """What routing knows of a worker; a change of it is a change of the fleet."""
        return (self.worker, self.address, dict(self.labels))


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself."""

    worker: str
    boot_id: str
    address: str
    labels: Mapping[str, str]
    versions: tuple[VersionReport, ...]
    draining: bool


class Fleet:
    """Leases. Not mutations: nothing here is stored, audited or counted as a revision of the catalogue."""

    def __init__(self, clock: Clock, now: WallClock, on_change: Callable[[], None]) -> None:
        """`on_change` is called when workers come, go or move, and when the ready versions change."""
        self._clock = clock
        self._now = now
        self._on_change = on_change
        self._workers: dict[str, Worker] = {}
        self._expiry: dict[str, float] = {}
        # From the time of day, so that no revision of an earlier process is ever given to another fleet.
        self.membership_revision = int(now().timestamp() * 1000)

    def report(self, report: Report) -> float:
        """Takes or renews a lease and returns how many seconds it holds. A new process takes over from an old one."""
        before = self._workers.get(report.worker)
        if before is not None and before.boot_id != report.boot_id:
            _LOG.info("a worker restarted", extra={"worker": report.worker, "address": report.address})
            before = None
        now = self._now()
        worker = Worker(
            worker=report.worker,
            boot_id=report.boot_id,
            address=report.address,
            labels=report.labels,
            versions=report.versions,
            draining=report.draining,
            create_time=now if before is None else before.create_time,
            expire_time=now + timedelta(seconds=LEASE_SECONDS),
        )
        self._expiry[worker.worker] = self._clock() + LEASE_SECONDS
        self._put(worker)
        return LEASE_SECONDS

    def release(self, name: str, boot_id: str) -> None:
        """Ends a lease; raises WorkerNotFound if that process does not hold it."""
        worker = self._workers.get(name)
        if worker is None or worker.boot_id != boot_id:
            raise WorkerNotFound(f"no worker {name!r} of that boot_id holds a lease", worker=name)
        self._drop([name])

    def expire(self) -> None:
        """Ends the leases that were not renewed in time."""
        now = self._clock()
        late = [name for name, expiry in self._expiry.items() if expiry <= now]
        for name in late:
            _LOG.warning("a worker's lease ran out", extra={"worker": name})
        self._drop(late)

    def workers(self) -> list[Worker]:
        """Workers whose lease holds, by name."""
        return [self._workers[name] for name in sorted(self._workers)]

    def standing(self, version: str) -> list[tuple[str, VersionReport]]:
        """How a version stands on each worker that speaks of it, by the worker's name."""
        return [
            (worker.worker, report)
            for worker in self.workers()
            for report in worker.versions
            if report.version == version
        ]

    def ready_versions(self) -> frozenset[str]:
        """Names of the versions that some worker has ready."""
        return frozenset(
            report.version for worker in self._workers.values() for report in worker.versions if report.ready
        )

    def _put(self, worker: Worker) -> None:
        before, ready = self._workers.get(worker.worker), self.ready_versions()
        self._workers[worker.worker] = worker
        moved = before is None or before.membership != worker.membership
        if moved:
            self.membership_revision += 1
        if moved or ready != self.ready_versions():
            self._on_change()

    def _drop(self, names: list[str]) -> None:
        for name in names:
            del self._workers[name], self._expiry[name]
        if names:
            self.membership_revision += 1
            self._on_change()
