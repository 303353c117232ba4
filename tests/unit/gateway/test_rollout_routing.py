"""Routing while a rollout drives an endpoint: rules, plans, brakes, and who is told of a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway_gateway.matching import Headers, MatchRule
from inferway_gateway.rollouts.plan import MirrorPlan, RolloutPlan
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Selector, TableRefused
from inferway_gateway.steering import Routing
from inferway_gateway.stream_route import Pins, StreamRoute
from tests.unit.gateway.builders import version

V1, V2 = version(1), version(2)
ECHO = Selector("echo")
ROLLOUT = "endpoints/echo/rollouts/1"
PLAN = RolloutPlan(ROLLOUT, stable_arm="v1", candidate_arm="v2", counts=True)
TESTERS = MatchRule("x-ring", "testers", is_prefix=False, arm="v2")
UNITS = [f"user-{number}" for number in range(200)]


def endpoint(weight: int, plan: RolloutPlan | None = PLAN, *rules: MatchRule, generation: int = 3) -> Endpoint:
    arms = (Arm("v2", V2.name, weight), Arm("v1", V1.name, 10_000 - weight))
    return Endpoint("echo", arms, "salt", generation, match_rules=rules, rollout=plan)


def table(*endpoints: Endpoint) -> RoutingTable:
    return RoutingTable("e", 1, {each.name: each for each in endpoints}, {V1.name: V1, V2.name: V2}, {})


def following(*endpoints: Endpoint) -> Routing:
    routing = Routing(Pins(lambda _: None))
    routing.swap(table(*endpoints))
    return routing


def arms_of(routing: Routing, headers: Headers = ()) -> set[str]:
    return {routing.table.route(ECHO, unit, headers).arm for unit in UNITS}


def test_a_decision_says_how_likely_it_was_and_for_whom() -> None:
    """Without the chance of each decision nobody can learn from the answers later."""
    decisions = [table(endpoint(2_500)).route(ECHO, unit) for unit in UNITS]

    assert {decision[1:4] for decision in decisions} == {("v2", 3, 2_500), ("v1", 3, 7_500)}
    assert [decision.unit for decision in decisions] == UNITS


def test_a_request_alone_is_no_unit() -> None:
    """What comes once need not be remembered, but it is assigned as if it had a key."""
    decisions = [table(endpoint(5_000)).route(ECHO, "", alone=unit) for unit in UNITS]

    assert {decision.unit for decision in decisions} == {""}
    assert [d.arm for d in decisions] == [table(endpoint(5_000)).route(ECHO, unit).arm for unit in UNITS]


@pytest.mark.parametrize(
    ("rule", "value", "is_meant"),
    [
        (TESTERS, "testers", True),
        (TESTERS, "testers-2", False),
        (replace(TESTERS, is_prefix=True), "testers-2", True),
        (TESTERS, b"testers", False),
        (replace(TESTERS, header="x-other"), "testers", False),
    ],
)
def test_a_rule_sends_those_it_means_and_nobody_else(rule: MatchRule, value: str | bytes, *, is_meant: bool) -> None:
    """The rest stays split by weight: here all of it to the stable version."""
    found = table(endpoint(0, PLAN, rule)).route(ECHO, "u", (("x-a", "testers"), ("x-ring", value)))

    assert (found.arm, found.propensity) == (("v2", 0) if is_meant else ("v1", 10_000))


def test_the_first_rule_that_matches_decides() -> None:
    """Order is what operators read."""
    rules = (TESTERS, replace(TESTERS, arm="v1"))

    assert table(endpoint(0, None, *rules)).route(ECHO, "u", (("x-ring", "testers"),)).arm == "v2"


def test_a_pinned_version_is_stronger_than_a_rule() -> None:
    """Who names a version means it."""
    found = table(endpoint(0, PLAN, TESTERS)).route(Selector("echo", number=1), "u", (("x-ring", "testers"),))

    assert (found.version, found.arm, found.propensity) == (V1, "", 0)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: endpoint(100, None, replace(TESTERS, arm="v3")),
        lambda: endpoint(100, replace(PLAN, candidate_arm="v3")),
        lambda: endpoint(100, replace(PLAN, stable_arm="v0")),
        lambda: table(endpoint(100, replace(PLAN, mirror=MirrorPlan("models/echo/versions/9", 100, 0.0, 0.0)))),
    ],
)
def test_what_names_an_arm_or_a_version_that_is_not_there_is_refused(refused: object) -> None:
    """The fault would show only when a request meets it."""
    assert callable(refused)
    with pytest.raises(TableRefused):
        refused()


def test_a_brake_takes_everything_from_the_candidate_at_once() -> None:
    """Users are harmed while somebody far away makes up its mind."""
    routing = following(endpoint(5_000, PLAN, TESTERS))
    before = arms_of(routing)
    routing.brake(ROLLOUT)

    assert before == {"v1", "v2"}
    assert arms_of(routing) == arms_of(routing, (("x-ring", "testers"),)) == {"v1"}
    assert routing.table.endpoint("echo").generation == 3
    assert routing.table.endpoint("echo").braked


def test_open_streams_leave_a_candidate_that_was_braked() -> None:
    """They may last for hours."""
    routing = following(endpoint(10_000))
    route = StreamRoute(ECHO, "u", routing.table, routing.pins)
    before = route.decide(routing.table, 0.0).arm
    routing.brake(ROLLOUT)

    assert (before, route.decide(routing.table, 0.0).arm) == ("v2", "v1")


def test_a_brake_holds_after_a_switch_too() -> None:
    """With everything on the candidate the version before still is an arm."""
    routing = following(endpoint(10_000))
    routing.brake(ROLLOUT)

    assert arms_of(routing) == {"v1"}


def test_a_brake_outlives_snapshots_that_give_its_candidate_weight() -> None:
    """The registry may not know yet, or be away and come back."""
    routing = following(endpoint(500))
    routing.brake(ROLLOUT)
    routing.swap(table(endpoint(1_000, generation=4)))

    assert arms_of(routing) == {"v1"}
    assert routing.table.endpoint("echo").generation == 4


def test_a_brake_ends_with_its_rollout() -> None:
    """The next one is another version, and may be a good one."""
    routing = following(endpoint(5_000))
    routing.brake(ROLLOUT)
    routing.swap(table(endpoint(0, None, generation=4)))
    routing.swap(table(endpoint(5_000, generation=5)))
    again = arms_of(routing)
    routing.swap(table(endpoint(5_000, replace(PLAN, rollout="endpoints/echo/rollouts/2"), generation=6)))

    assert again == {"v1", "v2"}
    assert arms_of(routing) == {"v1", "v2"}


def test_a_brake_stops_its_own_rollout_only_and_none_that_is_over() -> None:
    """Counts may say so a moment after the end."""
    routing = following(endpoint(5_000))
    routing.brake("endpoints/other/rollouts/1")

    assert arms_of(routing) == {"v1", "v2"}


@pytest.mark.parametrize(
    ("source", "is_split"),
    [(endpoint(0, None), False), (endpoint(1, None), True), (endpoint(0), True), (endpoint(10_000, None), False)],
)
def test_answers_say_what_was_decided_where_there_was_a_choice(source: Endpoint, *, is_split: bool) -> None:
    """Everybody else is spared the bytes."""
    assert source.is_split is is_split
