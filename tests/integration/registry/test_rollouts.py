"""Rollouts over a socket, on the real clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferway.errors import (
    EndpointNotFound,
    EtagMismatch,
    InvalidField,
    RequestIdReused,
    ResourceInUse,
    RolloutActive,
    RolloutNotFound,
    RolloutState,
    VersionNotFound,
    VersionUnloaded,
)
from inferway.registry.v1 import registry_service_pb2, resources_pb2, rollouts_pb2
from inferway.registry.v1 import rollout_service_pb2 as pb
from inferway.registry.v1.outcome_service_pb2 import ReportOutcomesRequest, RolloutOutcomes
from inferway.registry.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_FINISH, Endpoint, MatchRule
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from tests.integration.registry.client import CALL_SECONDS, Client, refusal, request_id
from tests.integration.registry.conftest import Start
from tests.integration.registry.rollouts import (
    DIGITS_1,
    DIGITS_2,
    FIRST,
    abort,
    create,
    gateway,
    get,
    give_all,
    quick,
    reached,
    rollouts,
    seconds,
    two_versions,
)
from tests.integration.registry.test_endpoints import arm, delete, update
from tests.integration.registry.test_endpoints import create as create_endpoint
from tests.integration.registry.test_fleet import ready, report
from tests.integration.registry.test_watch import snapshot, snapshot_with

State = rollouts_pb2.Rollout


async def test_a_canary_goes_to_everybody_and_tells_how_it_went(client: Client):
    """The whole way, as `inferway rollout watch` and gateways see it."""
    await two_versions(client)
    begun = await create(client, quick(description="better"))
    async with gateway(client):
        running = await reached(client, "RUNNING")
        done = await reached(client, "SUCCEEDED")
    shown = await get(client, "endpoints/digits/rollouts/-", samples=True)
    endpoint = await client.endpoint("digits")

    assert (begun.name, begun.state, begun.stable_version) == (FIRST, State.STATE_PENDING, DIGITS_1)
    assert begun.spec.judging.error_margin == 1.0
    assert running.next
    assert [finding.metric for finding in running.judgement.findings]
    assert [(made.state, made.step, made.candidate_weight_basis_points) for made in done.transitions] == [
        (State.STATE_PENDING, 0, 0),
        (State.STATE_PREPARING, 0, 0),
        (State.STATE_RUNNING, 0, 1000),
        (State.STATE_RUNNING, 1, 5000),
        (State.STATE_PROMOTING, 1, 10_000),
        (State.STATE_BAKING, 1, 10_000),
        (State.STATE_SUCCEEDED, 1, 10_000),
    ]
    assert done.candidate.units > 0
    assert done.stable.latency.p50_us == pytest.approx(1315, rel=0.06)
    assert done.judgement.verdict in (rollouts_pb2.RolloutJudgement.VERDICT_CONTINUE, 4)
    assert len(shown.samples) >= 2
    assert list(endpoint.arms) == [arm("v2", DIGITS_2, 10_000)]
    assert (endpoint.automatic, endpoint.HasField("rollout")) == (False, False)


async def routed(client: Client, until: Callable[[Endpoint], bool]) -> RoutingSnapshot:
    """The routing, as soon as its only endpoint is as `until` wants it."""
    return await snapshot_with(client, lambda seen: len(seen.endpoints) == 1 and until(seen.endpoints[0]))


async def test_gateways_are_told_what_to_do_with_the_weights(client: Client):
    """Weights and what is counted under them are one snapshot, never two."""
    await two_versions(client)
    matched = [rollouts_pb2.HeaderMatch(header="x-tester", exact="yes")]
    own = MatchRule(match=rollouts_pb2.HeaderMatch(header="x-old", prefix="a"), arm="v1")
    await update(client, Endpoint(name="endpoints/digits", arms=[arm("v1", DIGITS_1, 10_000)], match_rules=[own]))
    await create(client, quick(match=matched))
    preparing = await routed(client, lambda endpoint: endpoint.rollout.profiles)
    async with gateway(client):
        running = await routed(client, lambda endpoint: endpoint.rollout.counts)
        await abort(client)
        ended = await routed(client, lambda endpoint: len(endpoint.arms) == 1)

    (before,), (during,), (after,) = preparing.endpoints, running.endpoints, ended.endpoints
    assert list(before.arms) == [arm("v2", DIGITS_2, 0), arm("v1", DIGITS_1, 10_000)]
    assert list(before.match_rules) == [own]
    assert [routed.wanted for routed in preparing.versions] == [True, True]
    assert list(during.arms) == [arm("v2", DIGITS_2, 1000), arm("v1", DIGITS_1, 9000)]
    assert during.generation > before.generation
    assert during.salt == before.salt != "digits"
    directive = during.rollout
    assert (directive.rollout, directive.candidate_arm, directive.stable_arm) == (FIRST, "v2", "v1")
    assert directive.brake_alpha == pytest.approx(5e-5)
    assert 0 < directive.p95_us <= directive.p99_us
    assert [edges.output for edges in directive.output_edges] == ["y"]
    assert list(during.match_rules) == [MatchRule(match=matched[0], arm="v2"), own]
    assert list(after.match_rules) == [own]
    assert not after.HasField("rollout")


async def test_a_bad_version_is_rolled_back_and_the_reason_is_told(client: Client):
    """Errors of the candidate, counted by a gateway, end the rollout."""
    await two_versions(client)
    await create(client)
    async with gateway(client) as stub:
        stub.candidate_errors = 1.0
        done = await reached(client, "ROLLED_BACK")

    assert "errors" in done.reason
    assert done.candidate.errors["MODEL_FAILED"] > 0
    assert done.judgement.verdict == rollouts_pb2.RolloutJudgement.VERDICT_HARM
    assert list((await client.endpoint("digits")).arms) == [arm("v1", DIGITS_1, 10_000)]


async def test_people_pause_resume_and_promote(client: Client):
    """What nobody judges, people decide; a command that is repeated, or late, does no harm."""
    await two_versions(client)
    await create(client)
    service = rollouts(client)
    async with gateway(client):
        seen = await reached(client, "RUNNING")
        paused = (await service.PauseRollout(pb.PauseRolloutRequest(name=FIRST), timeout=CALL_SECONDS)).rollout
        again = (await service.PauseRollout(pb.PauseRolloutRequest(name=FIRST), timeout=CALL_SECONDS)).rollout
        stale = pb.ResumeRolloutRequest(name=FIRST, etag=seen.etag)
        assert type(await refusal(service.ResumeRollout(stale, timeout=CALL_SECONDS))) is EtagMismatch
        fresh = pb.ResumeRolloutRequest(name="endpoints/digits/rollouts/-", etag=paused.etag)
        resumed = (await service.ResumeRollout(fresh, timeout=CALL_SECONDS)).rollout
        full = pb.PromoteRolloutRequest(name=FIRST, full=True)
        promoted = (await service.PromoteRollout(full, timeout=CALL_SECONDS)).rollout

    assert paused == again
    assert (paused.state, paused.candidate_weight_basis_points) == (State.STATE_PAUSED, 1000)
    assert resumed.state == State.STATE_RUNNING
    assert (promoted.state, promoted.candidate_weight_basis_points) == (State.STATE_PROMOTING, 10_000)
    assert promoted.transitions[-1].principal == "anonymous"


async def test_an_aborted_rollout_stays_so_and_can_be_tried_again(client: Client):
    """An abort is always possible, and means the same however often it comes."""
    await two_versions(client)
    service = rollouts(client)
    retry = pb.RetryRolloutRequest(name="endpoints/digits/rollouts/-")
    await create(client)
    async with gateway(client):
        assert type(await refusal(service.RetryRollout(retry, timeout=CALL_SECONDS))) is RolloutState
        aborted = await abort(client, reason="not today")
        ended = await reached(client, "ROLLED_BACK")
        assert (await abort(client, "endpoints/digits/rollouts/-")).etag == ended.etag
        late = pb.PauseRolloutRequest(name=FIRST)
        assert type(await refusal(service.PauseRollout(late, timeout=CALL_SECONDS))) is RolloutState
        retried = (await service.RetryRollout(retry, timeout=CALL_SECONDS)).rollout

    assert (aborted.state, aborted.candidate_weight_basis_points) == (State.STATE_ROLLING_BACK, 0)
    assert "not today" in aborted.reason
    assert (retried.name, retried.spec) == ("endpoints/digits/rollouts/2", aborted.spec)


async def test_while_it_lasts_nobody_else_touches_what_it_needs(client: Client):
    """Two who set the same arms would undo each other."""
    await two_versions(client)
    await create(client)
    endpoint = await client.endpoint("digits")

    moved = Endpoint(name=endpoint.name, arms=[arm("v1", DIGITS_1, 10_000)])
    assert type(await refusal(update(client, moved))) is RolloutActive
    assert type(await refusal(update(client, Endpoint(name=endpoint.name, automatic=True)))) is RolloutActive
    model = registry_service_pb2.DeleteModelRequest(name="models/digits")
    assert type(await refusal(client.registry.DeleteModel(model, timeout=CALL_SECONDS))) is RolloutActive
    for version in (DIGITS_1, DIGITS_2):
        unload = registry_service_pb2.SetModelVersionStateRequest(
            name=version, state=resources_pb2.ModelVersion.STATE_UNLOADED
        )
        assert type(await refusal(client.registry.SetModelVersionState(unload, timeout=CALL_SECONDS))) is ResourceInUse
        gone = registry_service_pb2.DeleteModelVersionRequest(name=version)
        assert type(await refusal(client.registry.DeleteModelVersion(gone, timeout=CALL_SECONDS))) is ResourceInUse
    endpoint.stream_policy = STREAM_POLICY_FINISH
    endpoint.etag = ""
    changed = await update(client, endpoint)

    assert changed.stream_policy == STREAM_POLICY_FINISH
    assert list(changed.arms) == list(endpoint.arms)


async def test_a_newer_version_does_not_move_an_endpoint_that_is_driven(client: Client):
    """A push during a rollout must not take over; not even after it."""
    await client.push(weights=b"1")
    await report(client, "w0", ready(DIGITS_1, DIGITS_2, "models/digits/versions/3"))
    await routed(client, lambda endpoint: len(endpoint.arms) == 1)
    await client.push(weights=b"2")
    await routed(client, lambda endpoint: endpoint.arms[0].version == DIGITS_2)
    await create(client, quick(DIGITS_1))

    await client.push(weights=b"3")
    seen = await snapshot_with(client, lambda seen: len(seen.versions) == 3)

    assert [each.version for each in seen.endpoints[0].arms] == [DIGITS_1, DIGITS_2]
    assert not seen.endpoints[0].automatic


async def test_deleting_a_model_deletes_its_rollouts(client: Client):
    """And a name that is used again gets new numbers, as gateways may still count for the old ones."""
    await two_versions(client)
    await create(client)
    async with gateway(client):
        await abort(client)
        await reached(client, "ROLLED_BACK")
    request = registry_service_pb2.DeleteModelRequest(name="models/digits")
    await client.registry.DeleteModel(request, timeout=CALL_SECONDS)
    assert type(await refusal(get(client))) is RolloutNotFound

    versions = [(await client.push(weights=weights)).name for weights in (b"1", b"2")]
    await give_all(client, versions[0])
    again = await create(client, quick(versions[1]))

    assert again.name == "endpoints/digits/rollouts/2"


async def test_an_endpoint_of_its_own_goes_with_its_rollouts(client: Client):
    """Arms are named after another model's versions, and deletion waits for the rollout."""
    await two_versions(client)
    await create_endpoint(client, Endpoint(name="endpoints/front", arms=[arm("v1", DIGITS_1, 10_000)]))
    await create(client, parent="endpoints/front")

    assert [each.arm for each in (await client.endpoint("front")).arms] == ["digits-v2", "digits-v1"]
    assert type(await refusal(delete(client, "front"))) is RolloutActive


async def test_a_repeated_call_begins_one_rollout(client: Client):
    """The caller whose connection broke asks again."""
    await two_versions(client)
    again = request_id()

    first = await create(client, request_id=again)

    assert await create(client, request_id=again) == first
    other = create(client, quick(description="other"), request_id=again)
    assert type(await refusal(other)) is RequestIdReused
    assert type(await refusal(create(client))) is RolloutActive


async def test_validation_alone_begins_nothing(client: Client):
    """`inferway apply --dry-run` shows what would be."""
    await two_versions(client)
    before = await client.endpoint("digits")

    shown = await create(client, validate_only=True)

    assert (shown.name, shown.stable_version) == (FIRST, DIGITS_1)
    assert shown.spec.canary.steps[0].weight_basis_points == 1000
    assert await client.endpoint("digits") == before
    missing = await refusal(get(client, "endpoints/digits/rollouts/-"))
    assert (type(missing), missing.message) == (RolloutNotFound, "there is no rollout of endpoint 'digits'")


async def test_what_cannot_begin_is_refused_by_its_field(client: Client):
    """The command shows the line of the user's file."""
    await two_versions(client)
    upper, nothing = rollouts_pb2.HeaderMatch(header="X-Up", exact="1"), rollouts_pb2.HeaderMatch(header="x")
    spaced = rollouts_pb2.HeaderMatch(header="x up", exact="1")
    refused = {
        "": rollouts_pb2.RolloutSpec(candidate_version=DIGITS_2),
        ".canary.steps[1].weight_basis_points": quick(weights=(5000, 1000)),
        ".candidate_version": quick(DIGITS_1),
        ".match[0].header": quick(match=[upper]),
        ".match[1].header": quick(match=[rollouts_pb2.HeaderMatch(header="x", exact="1"), spaced]),
        ".match[0]": quick(match=[nothing]),
        ".prepare_timeout": quick(prepare_timeout=seconds(-1)),
        ".on_inconclusive": quick(on_inconclusive=7),
    }
    for field, spec in refused.items():
        error = await refusal(create(client, spec))
        assert isinstance(error, InvalidField)
        assert [violation.field for violation in error.violations] == [f"rollout.spec{field}"]
    assert type(await refusal(create(client, quick("models/digits/versions/9")))) is VersionNotFound


async def test_an_endpoint_must_have_one_version_to_begin_from(client: Client):
    """The refusal says what to do."""
    await client.push(weights=b"1")
    assert "first one is ready" in str(await refusal(create(client)))
    await client.push(weights=b"2")
    arms = [arm("a", DIGITS_1, 5000), arm("b", DIGITS_2, 5000)]
    await update(client, Endpoint(name="endpoints/digits", arms=arms))
    assert "2 arms" in str(await refusal(create(client)))
    assert type(await refusal(create(client, parent="endpoints/other"))) is EndpointNotFound
    await give_all(client, DIGITS_1)
    unload = registry_service_pb2.SetModelVersionStateRequest(
        name=DIGITS_2, state=resources_pb2.ModelVersion.STATE_UNLOADED
    )
    await client.registry.SetModelVersionState(unload, timeout=CALL_SECONDS)
    assert type(await refusal(create(client))) is VersionUnloaded


async def test_rollouts_are_listed_newest_first(client: Client):
    """Of one endpoint and of all, in pages that miss nothing."""
    await two_versions(client)
    await client.push(model="other", weights=b"1")
    await client.push(model="other", weights=b"2")
    front = Endpoint(name="endpoints/other", arms=[arm("v1", "models/other/versions/1", 10_000)])
    await update(client, front)
    for spec, parent in ((quick(), "digits"), (quick("models/other/versions/2"), "other"), (quick(), "digits")):
        await create(client, spec, f"endpoints/{parent}", supersede=True)
    service = rollouts(client)

    pages, token = [], ""
    for _ in range(2):
        request = pb.ListRolloutsRequest(parent="endpoints/-", page_size=2, page_token=token)
        page = await service.ListRollouts(request, timeout=CALL_SECONDS)
        pages.append([rollout.name.removeprefix("endpoints/") for rollout in page.rollouts])
        token = page.next_page_token
    own = await service.ListRollouts(pb.ListRolloutsRequest(parent="endpoints/digits"), timeout=CALL_SECONDS)

    assert pages == [["digits/rollouts/2", "other/rollouts/1"], ["digits/rollouts/1"]]
    assert not token
    assert [rollout.name for rollout in own.rollouts] == ["endpoints/digits/rollouts/2", FIRST]
    assert own.rollouts[1].state == State.STATE_ROLLED_BACK


async def test_reports_that_make_no_sense_are_refused_and_of_the_unknown_are_let_go(client: Client):
    """A gateway with an older snapshot still reports what has ended; none may upset the sums."""
    service = OutcomeServiceStub(client.channel)
    unknown = ReportOutcomesRequest(gateway="g", outcomes=[RolloutOutcomes(rollout=FIRST)])
    negative = RolloutOutcomes(rollout=FIRST)
    negative.phases.add(generation=1).stable.units = -1
    crooked = RolloutOutcomes(rollout=FIRST)
    crooked.profile.latency.buckets.append(1)

    await service.ReportOutcomes(unknown, timeout=CALL_SECONDS)
    for request in (
        ReportOutcomesRequest(outcomes=[RolloutOutcomes(rollout=FIRST)]),
        ReportOutcomesRequest(gateway="g", outcomes=[negative]),
        ReportOutcomesRequest(gateway="g", outcomes=[crooked]),
        ReportOutcomesRequest(gateway="g", outcomes=[RolloutOutcomes(rollout=FIRST, brake_reason="\x1b[2J")]),
    ):
        assert type(await refusal(service.ReportOutcomes(request, timeout=CALL_SECONDS))) is InvalidField


async def test_a_restarted_registry_goes_on_where_it_was(start: Start):
    """A rollout outlives the process, and gateways count on meanwhile."""
    async with start() as client:
        await two_versions(client)
        await create(client)
        async with gateway(client):
            before = await reached(client, "RUNNING")

    async with start() as client:
        after = await get(client)
        assert (await snapshot(client)).endpoints[0].rollout.counts
        await report(client, "w0", ready(DIGITS_1, DIGITS_2))
        async with gateway(client, "g2"):
            done = await reached(client, "SUCCEEDED")

    assert (after.state, after.etag) == (before.state, before.etag)
    assert list(done.transitions[: len(before.transitions)]) == list(before.transitions)
