"""Workers' leases over a socket."""

from __future__ import annotations

import pytest

from inferway.errors import InvalidField, InvalidName, WorkerNotFound
from inferway.registry.v1 import fleet_service_pb2 as pb
from inferway.registry.v1 import registry_service_pb2
from inferway.registry.v1.resources_pb2 import Worker
from inferway.worker.v1.worker_service_pb2 import LOAD_STATE_FAILED, LOAD_STATE_READY, VersionStatus
from tests.integration.registry.client import CALL_SECONDS, Client, refusal


def ready(*versions: str) -> list[VersionStatus]:
    """Versions that a worker has ready."""
    return [VersionStatus(version=version, state=LOAD_STATE_READY) for version in versions]


async def report(client: Client, name: str, versions: list[VersionStatus] | None = None, boot: str = "b") -> float:
    """Reports a worker and returns the lease's length."""
    worker = Worker(
        name=f"workers/{name}", boot_id=boot, address="127.0.0.1:8020", labels={"gpu": "no"}, versions=versions
    )
    response = await client.fleet.ReportWorker(pb.ReportWorkerRequest(worker=worker), timeout=CALL_SECONDS)
    return response.lease_duration.ToNanoseconds() / 1e9


async def workers(client: Client, **fields: object) -> pb.ListWorkersResponse:
    """A page of workers."""
    request = pb.ListWorkersRequest(**fields)  # type: ignore[arg-type]
    return await client.fleet.ListWorkers(request, timeout=CALL_SECONDS)


async def test_a_worker_is_listed_while_its_lease_holds(client: Client):
    """`inferway status` shows who serves."""
    for name in ("w1", "w0", "w2"):
        assert await report(client, name) == 6.0

    page = await workers(client, page_size=2)
    rest = await workers(client, page_token=page.next_page_token)

    assert [worker.name for worker in page.workers] == ["workers/w0", "workers/w1"]
    assert [worker.name for worker in rest.workers] == ["workers/w2"]
    (worker,) = rest.workers
    assert (worker.address, dict(worker.labels)) == ("127.0.0.1:8020", {"gpu": "no"})
    assert worker.lease_expire_time.ToDatetime() > worker.create_time.ToDatetime()


async def test_why_a_version_failed_is_shown_with_the_version(client: Client):
    """The user looks at the version, not at a worker's log."""
    version = await client.push()
    status = VersionStatus(version=version.name, state=LOAD_STATE_FAILED, failed_attempts=3)
    status.error.message = "unknown op"
    await report(client, "w0", [status])

    request = registry_service_pb2.GetModelVersionRequest(name=version.name)
    seen = (await client.registry.GetModelVersion(request, timeout=CALL_SECONDS)).model_version

    (on_worker,) = seen.workers
    assert on_worker.worker == "workers/w0"
    assert on_worker.status == status


async def test_a_lease_is_given_back_by_its_holder_only(client: Client):
    """The last words of an old process must not remove its successor."""
    await report(client, "w0", boot="new")

    for boot, known in (("old", False), ("new", True), ("new", False)):
        call = client.fleet.ReleaseWorker(
            pb.ReleaseWorkerRequest(name="workers/w0", boot_id=boot), timeout=CALL_SECONDS
        )
        if known:
            await call
        else:
            assert type(await refusal(call)) is WorkerNotFound


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": "w0"}, InvalidName),
        ({"name": "workers/../x"}, InvalidName),
        ({"boot_id": ""}, InvalidField),
        ({"address": "nowhere"}, InvalidField),
        ({"labels": {"k": "x" * 257}}, InvalidField),
        ({"labels": {str(n): "" for n in range(65)}}, InvalidField),
        ({"versions": [VersionStatus(version="digits/1")]}, InvalidName),
    ],
)
async def test_bad_reports_are_refused(client: Client, fields: dict[str, object], error: type[Exception]):
    """Gateways dial what is reported here."""
    good: dict[str, object] = {"name": "workers/w0", "boot_id": "b", "address": "127.0.0.1:1"}
    request = pb.ReportWorkerRequest(worker=Worker(**{**good, **fields}))  # type: ignore[arg-type]

    assert type(await refusal(client.fleet.ReportWorker(request, timeout=CALL_SECONDS))) is error
    assert not (await workers(client)).workers
