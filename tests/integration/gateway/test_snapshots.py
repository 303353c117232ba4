"""Bad routing snapshots, from the registry and from disk, over real sockets: the last good one stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway.type.v1.tensor_pb2 import Signature, TensorSpec
from inferway_chassis.process import Process
from inferway_chassis.routing_feed import digest_of
from inferway_chassis.telemetry import Telemetry
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.requests import ROW, predict_request
from tests.integration.gateway.snapshots import endpoint, signature, snapshot, spec, version

UNKNOWN_FIELD = b"\x9a\x3e\x02hi"
"""Number 995, of a release to come."""


def signed(made: RoutingSnapshot) -> RoutingSnapshot:
    """With the digest that fits."""
    made.digest = digest_of(made)
    return made


def bad_ones(address: str) -> list[RoutingSnapshot]:
    """Each would end or misdirect traffic if it were believed."""
    forged = snapshot(versions=[version()], workers=[address], revision=2)
    forged.versions[0].model_version.name = "models/other/versions/1"
    nameless = snapshot(versions=[version()], workers=[address], revision=3)
    nameless.versions[0].model_version.name = "no name of a version"
    dangling = snapshot(versions=[version()], endpoints=[endpoint(arms={"models/echo/versions/9": 10_000})], revision=4)
    short = snapshot(versions=[version()], endpoints=[endpoint(arms={"models/echo/versions/1": 1})], revision=5)
    lost_alias = snapshot(versions=[version()], aliases={"best": "models/echo/versions/8"}, revision=6)
    return [forged, signed(nameless), dangling, short, lost_alias]


async def answers(bed: Bed) -> bool:
    """Whether a prediction comes back as it should."""
    return (await bed.stub.Predict(predict_request(), timeout=10)).outputs[0].raw == ROW


async def test_no_bad_snapshot_stops_traffic_and_each_is_counted(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker
) -> None:
    """A fault of the control plane must not become one of the data plane, and somebody must hear of it."""
    process = Process("gateway", "boot", Telemetry("gateway", "boot"))
    async with gateway(settings_for(tmp_path, registry.target), registry, worker, process) as bed:
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)
        for bad in bad_ones(worker.address):
            await registry.send(bad)
            assert await answers(bed)
        good = [endpoint(), endpoint("after", arms={"models/echo/versions/1": 10_000})]
        await bed.publish(endpoints=good, revision=100)
        await bed.until_health_is("model/after", serving=True)

        assert await answers(bed)
        assert process.telemetry.registry.get_sample_value("inferway_gateway_snapshots_refused_total", {}) == 5


@pytest.mark.parametrize("damage", ["garbage", "torn", "bit"])
async def test_a_damaged_file_costs_the_start_from_disk_and_nothing_else(
    tmp_path: Path, registry: FakeRegistry, worker: FakeWorker, damage: str
) -> None:
    """The registry sends the whole again; until then the gateway says that it does not know."""
    good = snapshot(versions=[version()], workers=[worker.address]).SerializeToString()
    middle = len(good) // 2
    damaged = {
        "garbage": b"\xff" * 100,
        "torn": good[:middle],
        "bit": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
    }[damage]
    (tmp_path / "routing.pb").write_bytes(damaged)
    async with gateway(settings_for(tmp_path, registry.target), registry, worker) as bed:
        await bed.until_health_is("", serving=False)
        await bed.publish()
        await bed.until_health_is("model/echo", serving=True)

        assert await answers(bed)


async def test_what_a_later_release_adds_is_no_reason_to_refuse(bed: Bed, worker: FakeWorker) -> None:
    """Registries are updated before gateways: unknown fields are passed over, if the digest covers them."""
    later = snapshot(versions=[version(1, signatures=[signature(spec("x"), spec("later"))])], workers=[worker.address])
    later.revision = 2
    later = RoutingSnapshot.FromString(later.SerializeToString() + UNKNOWN_FIELD)
    await bed.registry.publish(signed(later))

    await bed.until_signature_has("later")


async def test_a_datatype_of_a_later_release_hides_one_signature_and_nothing_else(bed: Bed, worker: FakeWorker) -> None:
    """One new model must not freeze the routing of all."""
    strange = Signature(name="strange", inputs=[TensorSpec(name="x", datatype=99, shape=[-1])])  # type: ignore[arg-type]
    one = version(1, signatures=[signature(spec("x"), spec("later")), strange])
    await bed.publish(version(2, signatures=[strange]), one, revision=2)

    await bed.until_signature_has("later")
