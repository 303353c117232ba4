"""Leases on a clock that the tests turn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inferway.errors import CorruptArtifact, InferwayError, RunnerCrashed, StoreUnavailable, WorkerNotFound
from inferway.registry.v1 import fleet_service_pb2, resources_pb2
from inferway.status import to_status
from inferway.worker.v1 import worker_service_pb2
from inferway_registry import convert
from inferway_registry.fleet import LEASE_SECONDS, Fleet, Report, VersionReport


class Bed:
    """A fleet, its clock, and how often it told that it changed."""

    def __init__(self) -> None:
        """Time stands at 0."""
        self.seconds = 0.0
        self.changes = 0
        self.fleet = Fleet(lambda: self.seconds, lambda: datetime(2026, 1, 1, tzinfo=UTC), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def report(self, name: str = "w0", *, boot: str = "b", address: str = "a:1", ready: tuple[str, ...] = ()) -> None:
        """A worker reports."""
        versions = tuple(VersionReport(version, ready=True, status=b"") for version in ready)
        self.fleet.report(Report(name, boot, address, {}, versions, draining=False))

    @property
    def names(self) -> list[str]:
        """Workers whose lease holds."""
        return [worker.worker for worker in self.fleet.workers()]


@pytest.fixture
def bed() -> Bed:
    """A fresh one."""
    return Bed()


def test_a_lease_ends_when_it_is_not_renewed(bed: Bed):
    """A killed worker cannot say goodbye."""
    bed.report("w0")
    bed.report("w1")
    bed.seconds = LEASE_SECONDS - 0.01
    bed.report("w1")
    bed.fleet.expire()
    assert bed.names == ["w0", "w1"]

    bed.seconds = LEASE_SECONDS
    bed.fleet.expire()

    assert bed.names == ["w1"]


def test_renewing_a_lease_changes_nothing(bed: Bed):
    """Every worker reports every two seconds; that must not make snapshots."""
    bed.report(ready=("models/m/versions/1",))
    revision, changes = bed.fleet.membership_revision, bed.changes

    bed.report(ready=("models/m/versions/1",))

    assert (bed.fleet.membership_revision, bed.changes) == (revision, changes)


def test_a_newly_ready_version_is_told_but_is_no_change_of_membership(bed: Bed):
    """Endpoints wait for it; gateways learn it from the worker itself."""
    bed.report()
    revision, changes = bed.fleet.membership_revision, bed.changes

    bed.report(ready=("models/m/versions/1",))

    assert bed.fleet.ready_versions() == {"models/m/versions/1"}
    assert (bed.fleet.membership_revision, bed.changes) == (revision, changes + 1)


def test_a_worker_that_moved_is_a_change_of_membership(bed: Bed):
    """Gateways must dial the new address."""
    bed.report(address="a:1")
    revision = bed.fleet.membership_revision

    bed.report(address="a:2")

    assert bed.fleet.membership_revision > revision


def test_a_restarted_worker_takes_over_at_once(bed: Bed):
    """Waiting for the old lease would add six seconds to every crash."""
    bed.report(boot="old", ready=("models/m/versions/1",))

    bed.report(boot="new")

    assert bed.fleet.ready_versions() == frozenset()
    with pytest.raises(WorkerNotFound):
        bed.fleet.release("w0", "old")
    bed.fleet.release("w0", "new")
    assert bed.names == []


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (CorruptArtifact("no graph"), "no graph"),
        (RunnerCrashed("it crashed"), "it crashed"),
        (None, "it does not say why"),
        (StoreUnavailable("the registry cannot be reached"), ""),
    ],
)
def test_a_version_that_could_not_be_fetched_has_not_failed(error: InferwayError | None, failure: str):
    """A registry that was restarted while workers loaded a candidate would end its rollout, for a fault of its own."""
    status = worker_service_pb2.VersionStatus(
        version="models/m/versions/1", state=worker_service_pb2.LOAD_STATE_FAILED, error=error and to_status(error)
    )
    worker = resources_pb2.Worker(name="workers/w0", boot_id="b", address="127.0.0.1:1", versions=[status])

    report = convert.report(fleet_service_pb2.ReportWorkerRequest(worker=worker))

    assert [version.failure for version in report.versions] == [failure]
