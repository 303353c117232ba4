"""Where traffic goes, over a socket."""

from __future__ import annotations

import pytest

from inferway.errors import (
    EndpointExists,
    EndpointNotFound,
    EtagMismatch,
    InvalidField,
    InvalidName,
    ResourceInUse,
    VersionNotFound,
)
from inferway.registry.v1 import endpoint_service_pb2 as pb
from inferway.registry.v1.resources_pb2 import (
    STREAM_POLICY_FINISH,
    STREAM_POLICY_MIGRATE,
    Arm,
    Endpoint,
    MatchRule,
)
from inferway.registry.v1.rollouts_pb2 import HeaderMatch
from inferway.registry.v1.watch_service_pb2 import WatchRoutingRequest
from tests.integration.registry.client import CALL_SECONDS, Client, refusal, request_id
from tests.integration.registry.test_fleet import ready, report
from tests.integration.registry.test_watch import snapshot_with

DIGITS_1, DIGITS_2 = "models/digits/versions/1", "models/digits/versions/2"


def arm(name: str, version: str, weight: int) -> Arm:
    """An arm."""
    return Arm(arm=name, version=version, weight_basis_points=weight)


async def create(client: Client, endpoint: Endpoint, again: str = "") -> Endpoint:
    """Makes an endpoint."""
    request = pb.CreateEndpointRequest(endpoint=endpoint, request_id=again)
    return (await client.endpoints.CreateEndpoint(request, timeout=CALL_SECONDS)).endpoint


async def update(client: Client, endpoint: Endpoint) -> Endpoint:
    """Changes an endpoint."""
    request = pb.UpdateEndpointRequest(endpoint=endpoint)
    return (await client.endpoints.UpdateEndpoint(request, timeout=CALL_SECONDS)).endpoint


async def delete(client: Client, name: str, etag: str = "") -> None:
    """Deletes an endpoint."""
    request = pb.DeleteEndpointRequest(name=f"endpoints/{name}", etag=etag)
    await client.endpoints.DeleteEndpoint(request, timeout=CALL_SECONDS)


async def arms_of(client: Client, name: str, version: str) -> Endpoint:
    """The endpoint, as soon as all its traffic goes to `version`."""
    call = client.watch.WatchRouting(WatchRoutingRequest(watcher="test"), timeout=CALL_SECONDS)
    async for response in call:
        for endpoint in response.snapshot.endpoints:
            if endpoint.name == f"endpoints/{name}" and [a.version for a in endpoint.arms] == [version]:
                call.cancel()
                return endpoint
    raise AssertionError


async def test_every_model_has_an_endpoint_that_waits_for_its_first_version(client: Client):
    """Traffic may go to a version only when a worker has it ready."""
    await client.push()

    endpoint = await client.endpoint("digits")

    assert endpoint.automatic
    assert endpoint.next_version == DIGITS_1
    assert not endpoint.arms
    assert endpoint.salt


async def test_an_automatic_endpoint_moves_when_a_worker_is_ready_and_not_before(client: Client):
    """The whole point of it: pushing a version never breaks traffic."""
    await client.push(weights=b"1")
    await report(client, "w0", ready(DIGITS_1))
    first = await arms_of(client, "digits", DIGITS_1)
    await client.push(weights=b"2")
    waiting = await client.endpoint("digits")

    await report(client, "w0", ready(DIGITS_1, DIGITS_2))
    second = await arms_of(client, "digits", DIGITS_2)

    assert list(first.arms) == [arm("v1", DIGITS_1, 10_000)]
    assert list(waiting.arms) == list(first.arms)
    assert waiting.next_version == DIGITS_2
    assert (second.next_version, second.generation) == ("", first.generation + 1)


async def test_a_newer_version_overtakes_one_that_never_becomes_ready(client: Client):
    """A version that cannot be loaded must not block its successor."""
    for weights in (b"1", b"2", b"3"):
        await client.push(weights=weights)
    assert (await client.endpoint("digits")).next_version == "models/digits/versions/3"

    await report(client, "w0", ready(DIGITS_1, DIGITS_2))
    assert not (await client.endpoint("digits")).arms
    await report(client, "w0", ready("models/digits/versions/3"))

    assert (await arms_of(client, "digits", "models/digits/versions/3")).next_version == ""


async def test_arms_that_were_set_stay_until_handed_back(client: Client):
    """An operator's choice outranks the newest version."""
    await client.push(weights=b"1")
    fixed = await update(client, Endpoint(name="endpoints/digits", arms=[arm("stable", DIGITS_1, 10_000)]))
    await client.push(weights=b"2")

    unmoved = await client.endpoint("digits")
    handed_back = await update(client, Endpoint(name="endpoints/digits", automatic=True))

    assert not fixed.automatic
    assert unmoved == fixed
    assert handed_back.automatic
    assert handed_back.next_version == DIGITS_2
    assert list(handed_back.arms) == list(fixed.arms)


async def test_an_endpoint_of_its_own_splits_traffic_over_models(client: Client):
    """Canaries and comparisons are endpoints with several arms."""
    await client.push(weights=b"1")
    await client.push(model="other", weights=b"2")
    arms = [arm("control", DIGITS_1, 9_000), arm("new", "models/other/versions/1", 1_000)]
    again = request_id()

    made = await create(client, Endpoint(name="endpoints/front", arms=arms, salt="s"), again)

    assert list(made.arms) == arms
    assert (made.salt, made.generation, made.automatic) == ("s", 1, False)
    assert await create(client, Endpoint(name="endpoints/front", arms=arms, salt="s"), again) == made
    assert type(await refusal(create(client, Endpoint(name="endpoints/front", arms=arms)))) is EndpointExists
    listed = await client.endpoints.ListEndpoints(pb.ListEndpointsRequest(page_size=2), timeout=CALL_SECONDS)
    assert [endpoint.name for endpoint in listed.endpoints] == ["endpoints/digits", "endpoints/front"]
    rest = pb.ListEndpointsRequest(page_token=listed.next_page_token)
    others = await client.endpoints.ListEndpoints(rest, timeout=CALL_SECONDS)
    assert [endpoint.name for endpoint in others.endpoints] == ["endpoints/other"]


async def test_a_new_generation_begins_only_when_the_assignment_changes(client: Client):
    """Counters are kept by generation; a change that moves nobody must not restart them."""
    await client.push()
    arms = [arm("all", DIGITS_1, 10_000)]
    one = await create(client, Endpoint(name="endpoints/front", arms=arms))

    same = await update(client, Endpoint(name="endpoints/front", arms=arms))
    salted = await update(client, Endpoint(name="endpoints/front", arms=arms, salt="new"))

    assert same == one
    assert salted.generation == one.generation + 1
    assert salted.etag != one.etag


async def test_what_streams_do_is_kept_until_it_is_changed_and_moves_nobody(client: Client):
    """A deploy must not change it by silence, and it must not restart counters."""
    await client.push()
    arms = [arm("all", DIGITS_1, 10_000)]
    name = "endpoints/front"

    made = await create(client, Endpoint(name=name, arms=arms, stream_policy=STREAM_POLICY_MIGRATE))
    silent = await update(client, Endpoint(name=name, arms=arms, salt="new"))
    changed = await update(client, Endpoint(name=name, arms=arms, stream_policy=STREAM_POLICY_FINISH))
    own = await update(client, Endpoint(name="endpoints/digits", automatic=True, stream_policy=STREAM_POLICY_FINISH))

    assert (made.stream_policy, silent.stream_policy) == (STREAM_POLICY_MIGRATE, STREAM_POLICY_MIGRATE)
    assert (changed.stream_policy, own.stream_policy) == (STREAM_POLICY_FINISH, STREAM_POLICY_FINISH)
    assert changed.generation == silent.generation
    assert changed.etag != silent.etag
    await snapshot_with(client, lambda told: list(told.endpoints) == [own, changed])
    unknown = Endpoint(name=name, arms=arms)
    unknown.MergeFromString(b"\x48\x09")  # stream_policy: 9
    assert (await refusal(update(client, unknown))).violations[0].field == "endpoint.stream_policy"


async def test_an_endpoint_that_follows_the_newest_version_keeps_what_its_streams_do(client: Client):
    """The registry moves it by itself."""
    await client.push(weights=b"1")
    await update(client, Endpoint(name="endpoints/digits", automatic=True, stream_policy=STREAM_POLICY_MIGRATE))

    await report(client, "w0", ready(DIGITS_1))

    assert (await arms_of(client, "digits", DIGITS_1)).stream_policy == STREAM_POLICY_MIGRATE


async def test_a_stale_etag_loses(client: Client):
    """Two operators who shift weights at the same moment must not add up to nonsense."""
    await client.push()
    endpoint = await client.endpoint("digits")
    arms = [arm("all", DIGITS_1, 10_000)]
    await update(client, Endpoint(name=endpoint.name, arms=arms, etag=endpoint.etag))

    late = Endpoint(name=endpoint.name, arms=arms, salt="x", etag=endpoint.etag)

    assert type(await refusal(update(client, late))) is EtagMismatch
    assert type(await refusal(delete(client, "digits", endpoint.etag))) is EtagMismatch


@pytest.mark.parametrize(
    ("arms", "field"),
    [
        ([], "endpoint.arms"),
        ([("a", DIGITS_1, 9_999)], "endpoint.arms"),
        ([("a", DIGITS_1, 5_000), ("a", DIGITS_1, 5_000)], "endpoint.arms"),
        ([("a", DIGITS_1, 11_000), ("b", DIGITS_1, -1_000)], "endpoint.arms[0].weight_basis_points"),
        ([(f"a{n}", DIGITS_1, 0) for n in range(33)], "endpoint.arms"),
    ],
    ids=["none", "too little", "same name", "out of bounds", "too many"],
)
async def test_arms_must_make_sense(client: Client, arms: list[tuple[str, str, int]], field: str):
    """Gateways trust the snapshot; nonsense ends here."""
    await client.push()
    endpoint = Endpoint(name="endpoints/front", arms=[arm(*parts) for parts in arms])

    refused = await refusal(create(client, endpoint))

    assert type(refused) is InvalidField
    assert refused.violations[0].field == field


async def test_rules_send_callers_to_arms_that_are_there(client: Client):
    """A rule is set with the arms that it names, goes with them, and makes no generation: it moves no unit."""
    await client.push()
    rule = MatchRule(match=HeaderMatch(header="x-tester", prefix="qa-"), arm="a")
    made = await create(client, Endpoint(name="endpoints/front", arms=[arm("a", DIGITS_1, 10_000)], match_rules=[rule]))
    wrong = Endpoint(name="endpoints/front", arms=[arm("b", DIGITS_1, 10_000)], match_rules=[rule])
    automatic = Endpoint(name="endpoints/digits", automatic=True, match_rules=[rule])
    assert (await refusal(update(client, wrong))).violations[0].field == "endpoint.match_rules[0].arm"
    assert (await refusal(update(client, automatic))).violations[0].field == "endpoint.match_rules"
    kept = await client.endpoint("front")
    without = await update(client, Endpoint(name="endpoints/front", arms=made.arms))

    assert list(made.match_rules) == list(kept.match_rules) == [rule]
    assert not without.match_rules
    assert without.generation == made.generation


async def test_other_bad_input_is_told_by_field(client: Client):
    """Wrong names, unknown versions, contradictions."""
    await client.push()
    good = arm("all", DIGITS_1, 10_000)
    for endpoint, error in (
        (Endpoint(name="front", arms=[good]), InvalidName),
        (Endpoint(name="endpoints/front", arms=[arm("A", DIGITS_1, 10_000)]), InvalidName),
        (Endpoint(name="endpoints/front", arms=[arm("a", "digits/1", 10_000)]), InvalidName),
        (Endpoint(name="endpoints/front", arms=[arm("a", DIGITS_2, 10_000)]), VersionNotFound),
        (Endpoint(name="endpoints/front", arms=[good], salt="x" * 65), InvalidField),
    ):
        assert type(await refusal(create(client, endpoint))) is error
    await create(client, Endpoint(name="endpoints/front", arms=[good]))
    for endpoint, refused in (
        (Endpoint(name="endpoints/none", arms=[good]), EndpointNotFound),
        (Endpoint(name="endpoints/digits", arms=[good], automatic=True), InvalidField),
        (Endpoint(name="endpoints/front", automatic=True), InvalidField),
        (Endpoint(name="endpoints/front", arms=[arm("a", DIGITS_2, 10_000)]), VersionNotFound),
    ):
        assert type(await refusal(update(client, endpoint))) is refused


async def test_a_models_own_endpoint_goes_with_the_model_only(client: Client):
    """Clients name it; it must be there as long as the model is."""
    await client.push()
    await create(client, Endpoint(name="endpoints/front", arms=[arm("all", DIGITS_1, 10_000)]))

    assert type(await refusal(delete(client, "digits"))) is ResourceInUse
    await delete(client, "front")
    assert type(await refusal(delete(client, "front"))) is EndpointNotFound
    assert type(await refusal(client.endpoint("front"))) is EndpointNotFound


async def test_an_endpoint_that_came_before_its_model_keeps_its_arms(client: Client):
    """Publishing a model never takes over traffic that somebody set."""
    await client.push()
    made = await create(client, Endpoint(name="endpoints/later", arms=[arm("all", DIGITS_1, 10_000)]))

    await client.push(model="later", weights=b"2")

    assert await client.endpoint("later") == made
