"""The controller on a real database: what it does, once each, whoever else is at work and whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError

from inferway.errors import InvalidField, RolloutActive, RolloutState
from inferway_registry import endpoints, metrics, rollout_changes
from inferway_registry.convert_figures import full_message
from inferway_registry.endpoints import Wish
from inferway_registry.lookout import Lookout, Sight
from inferway_registry.outcomes import Outcomes
from inferway_registry.resources import Action, Arm, MatchRule
from inferway_registry.rollout_changes import Beginning
from inferway_registry.rollouts import commands
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import BlueGreen, HeaderMatch, Mirror, OnInconclusive, Shadow
from inferway_registry.routing import take_snapshot
from inferway_registry.splits import Splits
from inferway_registry.store.reader import GatewayReport, Reader
from inferway_registry.watch import Broadcast
from tests.unit.registry.rollout_bench import BY, CANDIDATE, QUICK, SIGNATURE, STABLE, Registry, build, registries
from tests.unit.registry.rollout_gateway import StubGateway

ABORT = partial(commands.abort, reason="enough")
GOOD_CANARY = [
    (State.PENDING, 0),
    (State.PREPARING, 0),
    (State.RUNNING, 1000),
    (State.RUNNING, 5000),
    (State.PROMOTING, 10_000),
    (State.BAKING, 10_000),
    (State.SUCCEEDED, 10_000),
]


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """A database that is not there yet."""
    return URL.create("sqlite+aiosqlite", database=str(tmp_path / "registry.db"))


@pytest.fixture
async def registry(url: URL) -> AsyncIterator[Registry]:
    """A registry with an endpoint, two versions and a worker that has both."""
    async with registries(url) as (registry,):
        yield registry


def way(rollout: Rollout) -> list[tuple[State, int]]:
    """The states that it came through, and the candidate's share in each."""
    return [(made.state, made.weight_basis_points) for made in rollout.transitions]


async def test_a_good_version_comes_to_all_users_and_the_old_one_goes(registry: Registry):
    """What it is all for; and an endpoint is never without arms that add up."""
    begun = await registry.begin()
    seen: list[tuple[Arm, ...]] = []
    gateway = StubGateway()
    while (await registry.rollout()).active:
        await registry.hear(gateway)
        await registry.controller.run()
        seen.append((await registry.endpoint()).arms)
        registry.clock.seconds += 1
    rollout, endpoint = await registry.rollout(), await registry.endpoint()

    assert way(rollout) == GOOD_CANARY
    assert begun.name == "endpoints/digits/rollouts/1"
    assert all(sum(arm.weight_basis_points for arm in arms) == 10_000 for arms in seen)
    assert all([arm.arm for arm in arms] == ["v2", "v1"] for arms in seen[:-1])
    assert endpoint.arms == (Arm("v2", *CANDIDATE, 10_000),)
    assert (endpoint.automatic, endpoint.salt, endpoint.rollout) == (False, "salt", None)
    assert rollout.end_time is not None
    assert [weight for _, weight in rollout.phases] == [0, 1000, 5000, 10_000]  # none after the end: nothing is counted


async def test_errors_take_the_traffic_back_within_a_look(registry: Registry):
    """Users notice as little as possible."""
    await registry.begin()
    gateway = StubGateway()
    gateway.candidate_errors = 1.0

    rollout = await registry.drive(gateway)

    assert way(rollout)[-3:] == [(State.RUNNING, 1000), (State.ROLLING_BACK, 0), (State.ROLLED_BACK, 0)]
    ran, back = rollout.transitions[-3].at, rollout.transitions[-2].at
    assert (back - ran).total_seconds() <= 1
    assert "errors" in rollout.reason
    assert (await registry.endpoint()).arms == (Arm("v1", *STABLE, 10_000),)


async def test_a_gateway_that_brakes_takes_the_traffic_back_everywhere(registry: Registry):
    """One gateway has seen enough; the others shall not have to."""
    await registry.begin()
    gateway = StubGateway()
    for _ in range(8):
        await registry.hear(gateway, units=400)
        await registry.controller.run()
        registry.clock.seconds += 1
    assert (await registry.rollout()).state is State.RUNNING

    gateway.brake = "20 of 20 units of the candidate failed"
    await registry.hear(gateway, units=0)
    await registry.controller.run()
    rollout = await registry.rollout()

    assert rollout.state is State.ROLLING_BACK
    assert "20 of 20" in rollout.reason
    assert rollout.transitions[-1].principal == "gateway"
    assert registry.braked


async def test_silence_pauses_and_moves_nobody(registry: Registry):
    """Gateways that say nothing are no reason to give a version more traffic, or less."""
    await registry.begin(replace(QUICK, prepare_seconds=30.0))

    for _ in range(40):
        await registry.controller.run()
        registry.clock.seconds += 1
    rollout = await registry.rollout()

    assert way(rollout) == [(State.PENDING, 0), (State.PREPARING, 0), (State.PAUSED, 0)]


async def test_a_version_that_cannot_be_loaded_gets_no_traffic_and_says_why(registry: Registry):
    """It crashes where nobody is harmed."""
    registry.have_ready(STABLE, failing="unknown op Foo")
    await registry.begin()

    rollout = await registry.drive(StubGateway(), seconds=5)

    assert way(rollout) == [(State.PENDING, 0), (State.PREPARING, 0), (State.FAILED, 0)]
    assert "unknown op Foo" in rollout.reason
    assert (await registry.endpoint()).arms == (Arm("v1", *STABLE, 10_000),)


async def test_it_waits_for_every_worker_that_users_need(registry: Registry):
    """Traffic for a version that half of the fleet has would overload that half."""
    registry.have_ready(STABLE, worker="late")
    await registry.begin()
    gateway = StubGateway()
    for _ in range(20):
        registry.have_ready(STABLE, CANDIDATE)
        registry.have_ready(STABLE, worker="late")
        await registry.hear(gateway)
        await registry.controller.run()
        registry.clock.seconds += 1
    waiting = await registry.rollout()

    registry.have_ready(STABLE, CANDIDATE, worker="late")
    await registry.controller.run()

    assert waiting.state is State.PREPARING
    assert (await registry.rollout()).state is State.RUNNING


async def test_blue_green_switches_once_and_back_at_once(registry: Registry):
    """All users at one moment, after copies agreed; and the way back is one revision."""
    strategy = BlueGreen(Mirror(10_000), min_pairs=300)
    await registry.begin(replace(QUICK, strategy=strategy))
    gateway = StubGateway()
    for _ in range(100):
        await registry.hear(gateway)
        await registry.controller.run()
        if (await registry.rollout()).state is State.BAKING:
            break
        registry.clock.seconds += 1
    async with registry.store.reading() as rows:
        before = (await rows.counters()).revision
    baking, endpoint = await registry.rollout(), await registry.endpoint()

    await registry.command(ABORT)

    assert [weight for _, weight in way(baking)] == [0, 0, 0, 10_000, 10_000]
    assert endpoint.arms == (Arm("v2", *CANDIDATE, 10_000), Arm("v1", *STABLE, 0))
    back = await registry.endpoint()
    assert [arm.weight_basis_points for arm in back.arms] == [0, 10_000]
    assert back.revision == before + 1


async def test_a_shadow_ends_with_a_verdict_and_moves_nobody(registry: Registry):
    """Whatever the copies say, users have the version that they had."""
    await registry.begin(replace(QUICK, strategy=Shadow(Mirror(10_000), 1000, 10.0)))
    gateway = StubGateway()
    gateway.agreement = 0.5

    rollout = await registry.drive(gateway)
    async with registry.store.reading() as rows:
        shown = full_message(rollout, await registry.lookout.look(rows, rollout))

    assert rollout.state is State.FAILED
    assert rollout.reason.startswith("Verdict: differs. ")
    assert {weight for _, weight in way(rollout)} == {0}
    assert (await registry.endpoint()).arms == (Arm("v1", *STABLE, 10_000),)
    (mirror,) = shown.mirrors
    assert (mirror.primary_version, mirror.mirrored_version) == ("models/digits/versions/1", "models/digits/versions/2")
    assert mirror.agreement_lower_bound < 0.5 < mirror.agreement_upper_bound < 0.6
    assert mirror.mirrored_latency.p50_us > 0


async def test_counts_of_a_gateway_that_is_gone_stay(registry: Registry):
    """A restart must not take evidence back, nor be waited for."""
    await registry.begin()
    first, second = StubGateway("first"), StubGateway("second")
    while (await registry.rollout()).state is not State.RUNNING:
        await registry.hear(first, second)
        await registry.controller.run()
        registry.clock.seconds += 1
    await registry.hear(first)
    registry.clock.seconds += 6
    await registry.hear(second)
    rollout = await registry.rollout()
    async with registry.store.reading() as rows:
        sight = await registry.lookout.look(rows, rollout)

    assert sight.facts.gateways == 1
    _, candidate = sight.facts.counts[rollout.phases[-1][0]]
    assert candidate.units == 400


class Overtaken(Lookout):
    """A lookout between whose first look and the step that follows from it something else happens."""

    def __init__(self, registry: Registry) -> None:
        """Sees what `registry` sees."""
        super().__init__(registry.fleet, registry.lookout.now)
        self.meanwhile: asyncio.Future[Registry] = asyncio.Future()
        self.meanwhile.set_result(registry)
        self._once = True

    async def look(self, rows: Reader, rollout: Rollout) -> Sight:
        """Aborts behind the controller's back, once."""
        sight = await super().look(rows, rollout)
        if self._once:
            self._once = False
            await (await self.meanwhile).command(ABORT)
        return sight


@pytest.fixture
async def about_to_step(registry: Registry) -> Registry:
    """A registry whose rollout goes on with the next look."""
    await registry.begin()
    gateway = StubGateway()
    while (await registry.rollout()).step < 1:
        await registry.hear(gateway)
        await registry.controller.run()
        registry.clock.seconds += 1
    registry.clock.seconds += 5
    await registry.hear(gateway)
    return registry


async def test_an_abort_that_overtakes_a_step_wins(about_to_step: Registry):
    """The controller had decided to go on, and finds that it may not: other rollouts have lost aborts that way."""
    registry = about_to_step
    controller = registry.controller
    controller._lookout = Overtaken(registry)

    await controller.run()

    rollout = await registry.rollout()
    assert rollout.state is State.ROLLING_BACK
    assert (await registry.endpoint()).arms[0].weight_basis_points == 0


async def test_an_abort_after_a_step_wins(about_to_step: Registry):
    """The other order: the step is taken, and taken back."""
    registry = about_to_step
    await registry.controller.run()
    assert (await registry.rollout()).state is State.PROMOTING

    aborted = await registry.command(ABORT)

    assert (aborted.state, aborted.weight_basis_points) == (State.ROLLING_BACK, 0)
    assert await registry.command(ABORT) == aborted


async def test_two_registries_take_each_step_once(url: URL):
    """Two processes on one database see the same moment and decide the same; one of them writes it."""
    async with registries(url, count=2) as (one, other):
        await check_two(one, other)


async def check_two(one: Registry, other: Registry) -> None:
    """Both look at every moment at once, and gateways report to either."""
    await one.begin()
    first, second = StubGateway("first"), StubGateway("second")
    while (await one.rollout()).active:
        await asyncio.gather(one.hear(first), other.hear(second))
        await asyncio.gather(one.controller.run(), other.controller.run())
        one.clock.seconds += 1
    rollout = await other.rollout()

    assert way(rollout) == GOOD_CANARY
    changes = [(event.details["state"], event.revision) for event in await one.events()]
    assert [state for state, _ in changes] == [state.name for state, _ in GOOD_CANARY]
    assert len({revision for _, revision in changes}) == len(changes)
    generations = [generation for generation, _ in rollout.phases]
    assert generations == sorted(set(generations))


async def test_a_registry_that_is_restarted_before_every_look_goes_the_same_way(url: URL):
    """Killed at any point it knows nothing but the database, and that is enough; times are the same, too."""
    async with registries(url) as (first,):
        registry = first
        await registry.begin()
        gateway = StubGateway()
        while (await registry.rollout()).active:
            await registry.hear(gateway)
            registry = build(registry.store, registry.clock)
            registry.have_ready(STABLE, CANDIDATE)
            await registry.controller.run()
            registry.clock.seconds += 1
        restarted = await registry.rollout()

        await registry.set_arms(Arm("v1", *STABLE, 10_000))
        began: datetime = registry.lookout.now()
        await registry.begin()
        undisturbed = await registry.drive(StubGateway())

    assert way(restarted) == way(undisturbed) == GOOD_CANARY
    offset = began - restarted.create_time
    assert [made.at + offset for made in restarted.transitions] == [made.at for made in undisturbed.transitions]


async def test_a_clock_that_is_set_makes_no_step_shorter(registry: Registry):
    """A wall clock that jumps a day ahead must not end a step that has just begun."""
    await registry.begin()
    await registry.hear(StubGateway())
    before = registry.lookout.now()
    lookout = registry.lookout

    registry.clock.now = lambda: datetime.max.replace(tzinfo=before.tzinfo)  # type: ignore[method-assign]

    assert lookout.now() == before


async def test_the_database_itself_permits_one_active_rollout(registry: Registry):
    """Whatever goes wrong above it, no two controllers pull at one endpoint."""
    rollout = await registry.begin()

    with pytest.raises(IntegrityError):
        async with registry.store.writing() as rows:
            await rows.add_rollout(replace(rollout, number=2, revision=99))


async def test_a_second_rollout_waits_or_supersedes(registry: Registry):
    """It begins from the version that users had before the first, as nobody has judged that one."""
    await registry.begin()
    await registry.publish()
    third = replace(QUICK, candidate=("digits", 3))

    with pytest.raises(RolloutActive):
        await registry.begin(third)
    second = await registry.begin(third, supersede=True)
    async with registry.store.reading() as rows:
        first = await rows.rollout("digits", 1)

    assert first is not None
    assert first.state is State.ROLLED_BACK
    assert (second.number, second.stable, second.state) == (2, STABLE, State.PENDING)
    assert [arm.arm for arm in (await registry.endpoint()).arms] == ["v3", "v1"]


async def test_what_was_rolled_back_can_be_tried_again_and_what_runs_cannot(registry: Registry):
    """A retry is a new rollout: nothing of the old one sticks to it."""

    async def retry() -> Rollout:
        now = registry.lookout.now()
        return await registry.ledger.apply(BY, lambda change: rollout_changes.retry(change, "digits", 0, "other", now))

    await registry.begin()
    with pytest.raises(RolloutState):
        await retry()
    await registry.command(ABORT)
    gateway = StubGateway()
    await registry.drive(gateway, seconds=20)

    again = await retry()
    ended = await registry.drive(gateway)

    assert (again.number, again.spec, again.salt, again.state) == (2, QUICK, "other", State.PENDING)
    assert way(ended) == GOOD_CANARY


async def test_the_oldest_of_very_many_rollouts_are_forgotten(registry: Registry):
    """A pipeline that rolls out every hour must not fill the database; numbers are never given twice."""
    first = await registry.begin()
    await registry.command(commands.supersede)
    ended = await registry.rollout()
    async with registry.store.writing() as rows:
        for number in range(2, rollout_changes.MAX_ENDED + 3):
            assert await rows.take_rollout_number("digits") == number
            await rows.add_rollout(replace(ended, number=number, revision=1000 + number))

    last = await registry.begin()
    async with registry.store.reading() as rows:
        kept = await rows.rollout_numbers("digits")

    assert first.number == 1
    assert kept == list(range(last.number - rollout_changes.MAX_ENDED, last.number + 1))
    assert ("endpoints/digits/rollouts/1", Action.DELETED) in [
        (event.resource, event.action) for event in await registry.events()
    ]


async def test_a_version_that_callers_cannot_use_is_refused(registry: Registry):
    """Every call that reached it would fail, which is known before it begins."""
    await registry.publish("digits", replace(SIGNATURE, outputs=()))

    with pytest.raises(InvalidField, match="no output 'y'"):
        await registry.begin(replace(QUICK, candidate=("digits", 3)))


async def test_gateways_that_restart_without_end_do_not_fill_the_database(registry: Registry):
    """Each start is another name; those that are known go on to be heard."""
    await registry.begin()
    outcomes = Outcomes(registry.store, registry.lookout.now, lambda: None, max_gateways=2)

    for gateway, report in (("one", b"1"), ("two", b"2"), ("three", b"3"), ("one", b"4")):
        await outcomes.report(gateway, {("digits", 1): report}, braked=False)
    async with registry.store.reading() as rows:
        reports = await rows.reports("digits", 1)

    assert [(report.gateway, report.report) for report in reports] == [("one", b"4"), ("two", b"2")]


async def test_one_rollout_that_cannot_be_read_does_not_hold_the_others(registry: Registry):
    """Whatever a faulty gateway may have left in the database for one endpoint."""
    await registry.publish("broken")
    await registry.publish("broken")
    await registry.set_arms(Arm("v1", "broken", 1, 10_000), name="broken")
    other = Beginning("broken", replace(QUICK, candidate=("broken", 2)), "salt")
    await registry.ledger.apply(BY, lambda change: rollout_changes.create(change, other, registry.lookout.now()))
    spoilt = GatewayReport("g", registry.lookout.now(), b"\xff")
    async with registry.store.writing() as rows:
        await rows.put_report("broken", 1, spoilt)
    begun = await registry.begin()

    with pytest.raises(ExceptionGroup):
        await registry.controller.run()

    assert (begun.state, (await registry.rollout()).state) == (State.PENDING, State.PREPARING)


async def test_operators_see_how_many_rollouts_are_where_and_how_far(registry: Registry):
    """An alarm on paused rollouts needs their number, and a dashboard the share that a candidate has."""
    await registry.begin()
    figures, snapshot = CollectorRegistry(), await take_snapshot(registry.store, registry.fleet)
    metrics.register(figures, Broadcast(snapshot, 1), registry.fleet, Splits(registry.store, lambda: None))

    assert figures.get_sample_value("inferway_registry_rollouts", {"state": "pending"}) == 1
    assert figures.get_sample_value("inferway_registry_rollouts", {"state": "paused"}) == 0
    of = {"rollout": "endpoints/digits/rollouts/1"}
    assert figures.get_sample_value("inferway_registry_rollout_weight", of) == 0.0

    await registry.command(lambda rollout, now, by: rollout.to(State.RUNNING, now, "so", by, weight=2500))
    running, snapshot = CollectorRegistry(), await take_snapshot(registry.store, registry.fleet)
    metrics.register(running, Broadcast(snapshot, 1), registry.fleet, Splits(registry.store, lambda: None))
    assert running.get_sample_value("inferway_registry_rollout_weight", of) == 0.25


async def test_samples_show_how_it_went(registry: Registry):
    """The report's plots; as many for a day as for minutes."""
    await registry.begin()
    rollout = await registry.drive(StubGateway())
    async with registry.store.reading() as rows:
        samples = await rows.samples("digits", 1)
        shown = full_message(rollout, await registry.lookout.look(rows, rollout), samples)

    weights = [sample.candidate_weight_basis_points for sample in shown.samples]
    assert weights == sorted(weights)
    assert set(weights) == {0, 1000, 5000, 10_000}
    assert shown.samples[-1].candidate.units > shown.samples[0].candidate.units
    times = [sample.sample_time.ToDatetime() for sample in shown.samples]
    assert times == sorted(set(times))


@pytest.mark.parametrize("wanted", OnInconclusive)
async def test_a_registry_that_was_down_for_an_hour_goes_on_where_it_was(registry: Registry, wanted: OnInconclusive):
    """Its absence is no reason to stop a version that does no harm, or to take it from its users."""
    await registry.begin(replace(QUICK, on_inconclusive=wanted))
    gateway = StubGateway()
    while (await registry.rollout()).state is not State.RUNNING:
        await registry.drive(gateway, seconds=1)
    registry.clock.seconds += 3600

    again = build(registry.store, registry.clock)
    await again.controller.run()
    again.have_ready(STABLE, CANDIDATE)

    assert way(await again.drive(gateway)) == GOOD_CANARY


async def test_a_worker_without_the_stable_version_shows_that_the_candidate_can_be_loaded(registry: Registry):
    """One worker that fails while another serves the candidate is that worker's trouble."""
    registry.have_ready(CANDIDATE, worker="new")
    registry.have_ready(STABLE, failing="no space left")
    await registry.begin()

    rollout = await registry.drive(StubGateway(), seconds=5)

    assert rollout.state is State.PREPARING


async def test_a_rule_of_an_earlier_time_waits_until_its_arm_is_loaded(registry: Registry):
    """The endpoint had that version before, and a rule for it; now it comes back, and workers do not have it yet."""
    rule = MatchRule(HeaderMatch("x-tester", "1"), "v2")
    arms = (Arm("v1", *STABLE, 10_000), Arm("v2", *CANDIDATE, 0))
    await registry.ledger.apply(
        BY, lambda change: endpoints.update(change, "digits", Wish(arms, "", match_rules=(rule,)), "")
    )
    await registry.ledger.apply(BY, lambda change: endpoints.drive(change, "digits", arms[:1], ""))
    await registry.begin()

    before = endpoints.match_rules(await registry.endpoint())
    gateway = StubGateway()
    while (await registry.rollout()).state is not State.RUNNING:
        await registry.drive(gateway, seconds=1)

    assert before == ()
    assert endpoints.match_rules(await registry.endpoint()) == (rule,)
