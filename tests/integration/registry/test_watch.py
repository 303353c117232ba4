"""The two feeds over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from inferway.errors import Draining, InvalidField, TooManyConcurrent
from inferway.registry.v1 import fleet_service_pb2, registry_service_pb2
from inferway.registry.v1 import watch_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import ModelVersion
from inferway_chassis.channel import open_channel
from inferway_chassis.routing_feed import RoutingFeed, digest_of
from inferway_chassis.testing import serving
from inferway_registry.app import running
from inferway_registry.settings import RegistrySettings
from tests.integration.registry.client import CALL_SECONDS, Client, first, refusal
from tests.integration.registry.conftest import Start
from tests.integration.registry.test_fleet import ready, report

ACTIONS = pb.Event.Action


async def snapshot(client: Client) -> pb.RoutingSnapshot:
    """The routing as it is now."""
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    response: pb.WatchRoutingResponse = await first(call)
    call.cancel()
    return response.snapshot


async def snapshot_with(client: Client, until: Callable[[pb.RoutingSnapshot], bool]) -> pb.RoutingSnapshot:
    """The routing as soon as it is as `until` wants it: it follows the catalogue a moment later."""
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    async for response in call:
        if response.HasField("snapshot") and until(response.snapshot):
            call.cancel()
            return response.snapshot
    raise AssertionError


async def events(client: Client, after: int, count: int) -> list[pb.Event]:
    """The next events of the log."""
    call = client.watch.WatchEvents(pb.WatchEventsRequest(after_sequence=after), timeout=CALL_SECONDS)
    found = [(await first(call)).event for _ in range(count)]
    call.cancel()
    return found


async def test_a_snapshot_has_all_that_routing_needs(client: Client):
    """Gateways and workers act on nothing else."""
    await client.push(weights=b"1", alias="champion")
    await client.push(weights=b"2")
    await client.push(weights=b"3")
    await report(client, "w0")
    request = registry_service_pb2.SetModelVersionStateRequest(
        name="models/digits/versions/1", state=ModelVersion.STATE_UNLOADED
    )
    await client.registry.SetModelVersionState(request, timeout=CALL_SECONDS)
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)

    async for response in call:
        seen = response.snapshot
        if len(seen.workers) == 1 and seen.versions[0].model_version.state == ModelVersion.STATE_UNLOADED:
            call.cancel()
            break

    assert [(v.model_version.version, v.wanted) for v in seen.versions] == [(1, False), (2, False), (3, True)]
    assert seen.versions[2].model_version.signatures[0].inputs[0].name == "x"
    assert [(a.model, a.alias, a.version) for a in seen.aliases] == [
        ("models/digits", "champion", "models/digits/versions/1")
    ]
    assert [endpoint.next_version for endpoint in seen.endpoints] == ["models/digits/versions/3"]
    assert [(worker.name, worker.address) for worker in seen.workers] == [("workers/w0", "127.0.0.1:8020")]
    assert len(seen.epoch) == 32
    assert seen.digest == digest_of(seen)


async def test_a_watcher_gets_the_change_at_once(client: Client):
    """Waiting for a poll would slow every deployment."""
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    empty = (await first(call)).snapshot
    await client.push()

    after = (await first(call)).snapshot
    call.cancel()

    assert after.revision > empty.revision
    assert [version.model_version.name for version in after.versions] == ["models/digits/versions/1"]


async def test_a_watcher_that_is_up_to_date_gets_a_heartbeat_only(client: Client):
    """A thousand reconnecting gateways must not be sent a thousand snapshots."""
    await client.push()
    seen = await snapshot(client)
    position = pb.WatchRoutingRequest(
        epoch=seen.epoch, revision=seen.revision, membership_revision=seen.membership_revision
    )

    same = await first(client.watch.WatchRouting(position, timeout=CALL_SECONDS))
    position.epoch = "another database"
    whole = await first(client.watch.WatchRouting(position, timeout=CALL_SECONDS))

    assert not same.HasField("snapshot")
    assert whole.HasField("snapshot")


async def test_revisions_only_go_forward_and_the_last_one_has_it_all(client: Client):
    """A watcher that takes what it gets ends with the truth."""
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="slow"), timeout=CALL_SECONDS)
    received = [(await first(call)).snapshot]
    for n in range(10):
        await client.push(model=f"m{n}")

    while len(received[-1].versions) < 10:
        received.append((await first(call)).snapshot)
    call.cancel()

    revisions = [each.revision for each in received]
    assert revisions == sorted(set(revisions))


async def test_the_chassis_feed_follows_the_registry(client: Client, tmp_path: Path):
    """What gateways and workers really run, with its digest check."""
    seen: asyncio.Queue[pb.RoutingSnapshot] = asyncio.Queue()
    target = client.target
    feed = RoutingFeed(target, "gateway/test", tmp_path / "gateway" / "routing.pb", seen.put_nowait)
    await feed.start()
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await seen.get()
            await client.push()
            while not (await seen.get()).versions:
                pass
    finally:
        await feed.stop()

    assert feed.synchronised


async def test_events_come_in_order_without_gaps_and_resume(client: Client):
    """Followers rebuild the catalogue from the log; a gap would be a lie."""
    await client.push(alias="champion")
    await report(client, "w0", ready("models/digits/versions/1"))

    seen = await events(client, after=0, count=4)

    assert [event.sequence for event in seen] == [1, 2, 3, 4]
    assert [(event.resource, event.action, event.principal) for event in seen] == [
        ("models/digits", ACTIONS.ACTION_CREATED, "anonymous"),
        ("models/digits/versions/1", ACTIONS.ACTION_CREATED, "anonymous"),
        ("endpoints/digits", ACTIONS.ACTION_CREATED, "anonymous"),
        ("endpoints/digits", ACTIONS.ACTION_UPDATED, "registry"),
    ]
    assert await events(client, after=2, count=2) == seen[2:]


async def test_concurrent_changes_leave_no_gap(client: Client):
    """Sequence numbers are in commit order, whoever commits first."""
    await asyncio.gather(*(client.push(model=f"m{n}") for n in range(8)))

    seen = await events(client, after=0, count=24)

    assert [event.sequence for event in seen] == list(range(1, 25))
    assert [event.revision for event in seen] == sorted(event.revision for event in seen)


async def test_a_sequence_that_never_was_is_refused(client: Client):
    """The follower comes from another database and would wait for ever."""
    call = client.watch.WatchEvents(pb.WatchEventsRequest(after_sequence=1), timeout=CALL_SECONDS)

    assert type(await refusal(first(call))) is InvalidField


@pytest.mark.parametrize("method", ["WatchRouting", "WatchEvents"])
async def test_watchers_are_bounded(start: Start, method: str):
    """Each costs memory; the bound is told instead of reached by swapping."""
    async with start(max_watchers=1) as client:
        await client.push()
        watch, request = getattr(client.watch, method), getattr(pb, f"{method}Request")
        held = watch(request(), timeout=CALL_SECONDS)
        await first(held)

        refused = await refusal(first(watch(request(), timeout=CALL_SECONDS)))
        held.cancel()

        assert type(refused) is TooManyConcurrent


async def test_draining_ends_the_watches(tmp_path: Path):
    """Gateways must look for another registry before this one is gone."""
    settings = RegistrySettings(grpc_address="127.0.0.1:0", metrics_address="", data_dir=tmp_path, grace_seconds=1)
    async with (
        serving(running, settings, "registry") as server,
        open_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        client = Client(channel)
        routing = client.watch.WatchRouting(pb.WatchRoutingRequest(), timeout=CALL_SECONDS)
        log = client.watch.WatchEvents(pb.WatchEventsRequest(), timeout=CALL_SECONDS)
        await first(routing)
        waiting = asyncio.ensure_future(first(log))

        await server.drain()

        assert type(await refusal(first(routing))) is Draining
        assert type(await refusal(waiting)) is Draining


async def test_a_worker_that_leaves_changes_the_membership_and_not_the_revision(client: Client):
    """Leases are no mutations: a flapping worker must not look like a changed catalogue."""
    await report(client, "w0")
    call = client.watch.WatchRouting(pb.WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    present = (await first(call)).snapshot
    while not present.workers:
        present = (await first(call)).snapshot

    release = fleet_service_pb2.ReleaseWorkerRequest(name="workers/w0", boot_id="b")
    await client.fleet.ReleaseWorker(release, timeout=CALL_SECONDS)
    gone = (await first(call)).snapshot
    call.cancel()

    assert not gone.workers
    assert gone.revision == present.revision
    assert gone.membership_revision > present.membership_revision
