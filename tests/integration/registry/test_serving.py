"""Serving options and version policies over a socket."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from inferway.errors import (
    EtagMismatch,
    InvalidField,
    ModelNotFound,
    RequestIdReused,
    ResourceInUse,
    VersionNotFound,
)
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2 as resources
from inferway.registry.v1.watch_service_pb2 import RoutedVersion, WatchRoutingRequest
from tests.integration.registry.client import CALL_SECONDS, Client, refusal, request_id
from tests.integration.registry.conftest import Start
from tests.integration.registry.test_watch import events, snapshot

V1 = "models/digits/versions/1"
OPTIONS = resources.ServingOptions(
    max_batch_rows=32, max_queue_delay=Duration(nanos=2_500_000), buckets=[1, 8, 32], instances=2
)


async def tune(
    client: Client, options: resources.ServingOptions, name: str = V1, etag: str = "", again: str = ""
) -> resources.ModelVersion:
    """Replaces the bounds of a version."""
    request = pb.SetServingOptionsRequest(name=name, serving_options=options, etag=etag, request_id=again)
    return (await client.registry.SetServingOptions(request, timeout=CALL_SECONDS)).model_version


async def keep(client: Client, policy: resources.VersionPolicy | None, etag: str = "") -> resources.Model:
    """Replaces the policy of `digits`."""
    request = pb.SetVersionPolicyRequest(name="models/digits", version_policy=policy, etag=etag)
    return (await client.registry.SetVersionPolicy(request, timeout=CALL_SECONDS)).model


async def routing(client: Client, until: Callable[[list[RoutedVersion]], bool]) -> None:
    """Returns as soon as the versions in the routing are as `until` wants them."""
    call = client.watch.WatchRouting(WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    async for response in call:
        if response.HasField("snapshot") and until(list(response.snapshot.versions)):
            call.cancel()
            return


async def wanted(client: Client, *numbers: int) -> None:
    """Returns as soon as these versions and no others are those that workers shall load."""
    await routing(client, lambda versions: {v.model_version.version for v in versions if v.wanted} == set(numbers))


async def push_three(client: Client) -> None:
    """Versions 1 to 3 of `digits`, of which the endpoint awaits the last."""
    for weights in (b"1", b"2", b"3"):
        await client.push(weights=weights)


async def test_bounds_are_read_back_wherever_the_version_is(client: Client):
    """The worker acts on the snapshot; operators read the catalogue."""
    pushed = await client.push()
    assert not pushed.HasField("serving_options")

    tuned = await tune(client, OPTIONS)

    assert tuned.serving_options == OPTIONS
    assert tuned.etag != pushed.etag
    got = await client.registry.GetModelVersion(pb.GetModelVersionRequest(name=V1), timeout=CALL_SECONDS)
    listed = await client.registry.ListModelVersions(
        pb.ListModelVersionsRequest(parent="models/digits"), timeout=CALL_SECONDS
    )
    assert got.model_version == tuned
    assert list(listed.model_versions) == [tuned]
    await routing(client, lambda versions: [v.model_version.serving_options for v in versions] == [OPTIONS])


async def test_watchers_get_new_bounds_without_asking(client: Client):
    """A change holds on the workers within a second, and nobody reloads anything."""
    await client.push()
    told = asyncio.ensure_future(
        routing(client, lambda versions: [v.model_version.serving_options for v in versions] == [OPTIONS])
    )

    await tune(client, OPTIONS)

    await asyncio.wait_for(told, CALL_SECONDS)


async def test_every_change_of_bounds_can_be_taken_back(client: Client):
    """What is unset is the worker's own choice again; no delay at all is a choice, too."""
    await client.push()
    await tune(client, OPTIONS)

    never = resources.ServingOptions(max_queue_delay=Duration())
    assert (await tune(client, never)).serving_options == never
    assert not (await tune(client, resources.ServingOptions())).HasField("serving_options")


async def test_the_same_bounds_again_change_nothing(client: Client):
    """A script that runs every minute must not make a revision every minute."""
    await client.push()
    tuned = await tune(client, OPTIONS)

    assert await tune(client, OPTIONS) == tuned


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (resources.ServingOptions(max_batch_rows=-1), "serving_options.max_batch_rows"),
        (resources.ServingOptions(max_batch_rows=9), "serving_options.max_batch_rows"),
        (resources.ServingOptions(max_queue_delay=Duration(nanos=-1)), "serving_options.max_queue_delay"),
        (resources.ServingOptions(max_queue_delay=Duration(seconds=11)), "serving_options.max_queue_delay"),
        (resources.ServingOptions(buckets=[8, 1]), "serving_options.buckets[1]"),
        (resources.ServingOptions(buckets=[1, 64]), "serving_options.buckets[1]"),
        (resources.ServingOptions(instances=-2), "serving_options.instances"),
    ],
)
async def test_bounds_that_make_no_sense_are_refused(client: Client, options: resources.ServingOptions, field: str):
    """The version was published with batches of at most 8 rows; nothing is stored that a worker cannot keep."""
    await client.push()
    upload = await client.fill(config=resources.VersionConfig(max_batch_rows=8))
    version = await client.publish(upload.name)

    refused = await refusal(tune(client, options, version.name))

    assert type(refused) is InvalidField
    assert refused.violations[0].field == field


async def test_two_operators_do_not_undo_each_other_and_a_repeated_request_does_nothing_twice(client: Client):
    """Compare-and-set and idempotency, as for every mutation."""
    seen = (await client.push()).etag
    again = request_id()
    tuned = await tune(client, OPTIONS, etag=seen, again=again)
    await tune(client, resources.ServingOptions(instances=3))

    assert await tune(client, OPTIONS, etag=seen, again=again) == tuned
    assert type(await refusal(tune(client, OPTIONS, etag=seen))) is EtagMismatch
    other = resources.ServingOptions(instances=1)
    assert type(await refusal(tune(client, other, etag=seen, again=again))) is RequestIdReused
    assert type(await refusal(tune(client, OPTIONS, "models/digits/versions/2"))) is VersionNotFound


async def test_a_change_of_bounds_is_audited_and_told(client: Client, tmp_path: Path):
    """Whoever asks at night why a model behaves differently finds the answer in the log."""
    before = (await client.push()).etag
    again = request_id()
    after = (await tune(client, resources.ServingOptions(max_batch_rows=4), again=again)).etag

    last = (await events(client, 0, 4))[-1]
    assert (last.resource, dict(last.details)) == (V1, {"serving_options": "at most 4 rows in a batch"})
    with sqlite3.connect(tmp_path / "registry.db") as database:
        rows = database.execute(
            "SELECT method, resource, etag_before, etag_after FROM audit WHERE request_id = ?", [again]
        ).fetchall()
    database.close()
    assert rows == [("SetServingOptions", V1, before, after)]


async def test_a_policy_keeps_versions_that_nothing_names(client: Client):
    """Rolling back is instant when the old version is still loaded."""
    await push_three(client)
    await wanted(client, 3)

    latest = await keep(client, resources.VersionPolicy(latest=2))
    assert latest.version_policy == resources.VersionPolicy(latest=2)
    await wanted(client, 2, 3)

    await keep(client, resources.VersionPolicy(all=resources.AllVersions()))
    await wanted(client, 1, 2, 3)

    one = resources.VersionPolicy(specific=resources.SpecificVersions(versions=[1]))
    assert (await keep(client, one)).version_policy == one
    assert (await client.model("digits")).version_policy == one
    await wanted(client, 1, 3)

    assert not (await keep(client, None)).HasField("version_policy")
    await wanted(client, 3)


async def test_a_policy_never_brings_back_what_was_unloaded(client: Client):
    """Withdrawing is the operator's last word."""
    await push_three(client)
    await keep(client, resources.VersionPolicy(all=resources.AllVersions()))
    request = pb.SetModelVersionStateRequest(name=V1, state=resources.ModelVersion.STATE_UNLOADED)
    await client.registry.SetModelVersionState(request, timeout=CALL_SECONDS)

    await wanted(client, 2, 3)


async def test_a_version_that_a_policy_names_is_not_deleted(client: Client):
    """As with aliases and arms: nothing may name what is not there."""
    await push_three(client)
    await keep(client, resources.VersionPolicy(specific=resources.SpecificVersions(versions=[1])))
    delete = pb.DeleteModelVersionRequest(name=V1)

    refused = await refusal(client.registry.DeleteModelVersion(delete, timeout=CALL_SECONDS))
    assert type(refused) is ResourceInUse
    assert refused.metadata["used_by"] == "models/digits version policy"

    await keep(client, resources.VersionPolicy(all=resources.AllVersions()))
    await client.registry.DeleteModelVersion(delete, timeout=CALL_SECONDS)
    await wanted(client, 2, 3)


async def test_policies_that_make_no_sense_are_refused(client: Client):
    """Each with its own reason."""
    await client.push()
    none = resources.VersionPolicy(specific=resources.SpecificVersions())
    backwards = resources.VersionPolicy(specific=resources.SpecificVersions(versions=[2, 1]))
    absent = resources.VersionPolicy(specific=resources.SpecificVersions(versions=[2]))

    assert type(await refusal(keep(client, none))) is InvalidField
    assert type(await refusal(keep(client, backwards))) is InvalidField
    assert type(await refusal(keep(client, resources.VersionPolicy(latest=0)))) is InvalidField
    assert type(await refusal(keep(client, resources.VersionPolicy(latest=-1)))) is InvalidField
    assert type(await refusal(keep(client, absent))) is VersionNotFound
    assert type(await refusal(keep(client, None, etag="r0"))) is EtagMismatch
    nowhere = pb.SetVersionPolicyRequest(name="models/nothing")
    assert type(await refusal(client.registry.SetVersionPolicy(nowhere, timeout=CALL_SECONDS))) is ModelNotFound


async def test_bounds_and_policy_outlive_the_registry_and_publishing(start: Start):
    """They are part of the catalogue, not of a process."""
    async with start() as client:
        await client.push()
        await tune(client, OPTIONS)
        await keep(client, resources.VersionPolicy(latest=2))

    async with start() as client:
        await client.push(weights=b"2", alias="champion")
        await wanted(client, 1, 2)
        assert (await snapshot(client)).versions[0].model_version.serving_options == OPTIONS
        assert (await client.model("digits")).version_policy == resources.VersionPolicy(latest=2)


async def test_the_publisher_says_where_a_model_runs_and_what_it_needs(client: Client):
    """The worker chooses the process by it, and refuses what does not fit."""
    config = resources.VersionConfig(isolation=resources.ISOLATION_INLINE, memory_bytes=1 << 20)
    upload = await client.fill(config=config)
    assert (await client.publish(upload.name)).config == config
    await routing(client, lambda versions: [v.model_version.config for v in versions] == [config])

    for bad, field in (
        (resources.VersionConfig(isolation=7), "config.isolation"),  # type: ignore[arg-type]
        (resources.VersionConfig(memory_bytes=-1), "config.memory_bytes"),
    ):
        refused = await refusal(client.begin(config=bad))
        assert type(refused) is InvalidField
        assert refused.violations[0].field == field
