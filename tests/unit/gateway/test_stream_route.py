"""Which version a stream is answered by, and which ones its gateway asks workers to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway.datatypes import Datatype
from inferway.errors import EndpointNotFound, SessionVersionGone
from inferway_gateway.matching import MatchRule
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Selector, StreamPolicy, Version
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from inferway_gateway.stream_route import FINISH_SECONDS, LEAVING_SECONDS, Pins, StreamRoute
from tests.unit.gateway.builders import version

ECHO = Selector("echo")
NO_TENSORS = Signature("a", (), ())
FINISH, MIGRATE = StreamPolicy.FINISH, StreamPolicy.MIGRATE


def stateful(number: int, width: int = 1, *, wanted: bool = True) -> Version:
    """A version of `echo` that keeps `width` numbers."""
    whole = Signature(
        "serving_default",
        (TensorSpec("s", Datatype.FP32, (-1, width)), TensorSpec("x", Datatype.FP32, (-1, 1))),
        (TensorSpec("n", Datatype.FP32, (-1, width)), TensorSpec("y", Datatype.FP32, (-1, 1))),
    )
    plan = StatePlan(whole, (StateSpec("s", "n", Datatype.FP32, (width,), bytes(4 * width)),))
    signatures = {"serving_default": plan.public}
    return replace(version(number, wanted=wanted), signatures=signatures, stateful={"serving_default": plan})


def table(*versions: Version, policy: StreamPolicy | None = None, **weights: int) -> RoutingTable:
    """One endpoint `echo`; all traffic goes to the last version unless `weights` say otherwise."""
    shares = weights or {f"v{versions[-1].number}": 10_000}
    arms = tuple(Arm(name, f"models/echo/versions/{name[1:]}", weight) for name, weight in shares.items())
    endpoint = Endpoint("echo", arms, stream_policy=policy)
    return RoutingTable("e", 1, {"echo": endpoint}, {each.name: each for each in versions}, {})


class Bench:
    """Pins, and what was told of them."""

    def __init__(self, now: RoutingTable) -> None:
        self.told: list[list[str]] = []
        self.pins = Pins(lambda held: self.told.append(sorted(held)))
        self.now = now
        self.pins.apply(now)

    def route(self, unit: str = "u", begun_with: str = "") -> StreamRoute:
        return StreamRoute(ECHO, unit, self.now, self.pins, begun_with)

    def change(self, to: RoutingTable) -> None:
        self.now = to
        self.pins.apply(to)

    def number(self, route: StreamRoute, at: float = 0.0) -> int:
        """The version that the next item goes to."""
        return route.decide(self.now, at).version.number


def test_a_stream_stays_with_the_arm_that_its_unit_has() -> None:
    """Half of the items to one version and half to the other would be no stream to compare."""
    bench = Bench(table(version(1), version(2), v1=5000, v2=5000))
    routes = [bench.route(f"unit {n}") for n in range(50)]
    numbers = [bench.number(route) for route in routes]

    assert set(numbers) == {1, 2}
    assert [bench.number(route) for route in routes] == numbers


def test_streams_of_stateless_models_follow_the_endpoint() -> None:
    """There is nothing that they would lose."""
    bench = Bench(table(version(1)))
    route = bench.route()
    bench.change(table(version(1, wanted=False), version(2)))

    assert bench.number(route) == 2
    assert bench.told == []


def test_streams_of_stateful_models_finish_and_their_version_is_kept() -> None:
    """The state of one version means nothing to another, unless somebody says so."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2)))

    assert bench.number(route) == 1
    assert bench.told == [["models/echo/versions/1"]]
    route.close()
    assert bench.told[-1] == []


def test_the_endpoint_decides_for_streams_of_stateless_models_too() -> None:
    """An operator may want streams to stay comparable with themselves."""
    bench = Bench(table(version(1), policy=FINISH))
    route = bench.route()
    bench.change(table(version(1, wanted=False), version(2), policy=FINISH))

    assert bench.number(route) == 1
    assert bench.told == [["models/echo/versions/1"]]


@pytest.mark.parametrize(("width", "number"), [(1, 2), (2, 1)])
def test_a_session_migrates_to_state_of_its_own_kind_only(width: int, number: int) -> None:
    """A state of another shape cannot be gone on with."""
    bench = Bench(table(stateful(1), policy=MIGRATE))
    route = bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2, width), policy=MIGRATE))

    assert bench.number(route) == number


def test_a_stream_that_stays_keeps_the_whole_decision() -> None:
    """Chance assigned it when it opened; counted again under later weights, it would count for an arm by no chance."""
    bench = Bench(table(stateful(1), stateful(2), v1=10_000))
    route = bench.route()
    later = table(stateful(1), stateful(2), v2=1, v1=9_999)
    endpoint = replace(later.endpoint("echo"), generation=8)
    bench.change(replace(later, endpoints={"echo": endpoint}))

    assert route.decide(bench.now, 0.0)[1:5] == ("v1", 0, 10_000, "u")
    assert bench.route().decide(bench.now, 0.0)[1:5] == ("v1", 8, 9_999, "u")


def test_a_stream_that_may_move_is_decided_again_with_the_weights() -> None:
    """It is one more unit under them, wherever it goes."""
    bench = Bench(table(version(1), version(2), v1=10_000))
    route = bench.route()
    bench.change(table(version(1), version(2), v2=1, v1=9_999))

    assert route.decide(bench.now, 0.0)[1:5] == ("v1", 0, 9_999, "u")


@pytest.mark.parametrize("number", [1, 2])
def test_a_session_that_is_resumed_was_not_assigned_now(number: int) -> None:
    """Those that went on with the candidate by chance, and those that had to stay, would not be comparable."""
    bench = Bench(table(stateful(1), stateful(2), v2=10_000))
    route = bench.route(begun_with=f"models/echo/versions/{number}")

    assert bench.number(route) == number
    assert route.decide(bench.now, 0.0).propensity == 0


def test_rules_hold_for_streams_too() -> None:
    """A tester who streams is a tester."""
    bench = Bench(table(version(1), version(2), v2=0, v1=10_000))
    rule = MatchRule("x-ring", "testers", is_prefix=False, arm="v2")
    endpoint = replace(bench.now.endpoint("echo"), match_rules=(rule,))
    bench.change(replace(bench.now, endpoints={"echo": endpoint}))
    route = StreamRoute(ECHO, "u", bench.now, bench.pins, headers=(("x-ring", "testers"),))

    assert bench.number(route) == 2


def test_a_session_finishes_though_the_new_version_has_no_such_signature() -> None:
    """A version that its callers could not even ask is one more reason to stay where the state is."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    other = replace(version(2), signatures={"a": NO_TENSORS, "b": NO_TENSORS})
    bench.change(table(stateful(1, wanted=False), other))

    assert bench.number(route) == 1
    bench.change(table(other))
    with pytest.raises(SessionVersionGone):
        bench.number(route)


def test_a_stream_that_stayed_too_long_is_over_and_moves_on() -> None:
    """A version cannot be kept for ever for the last stream that has it."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2)))
    bench.number(route, at=100.0)

    assert not route.is_over(100 + FINISH_SECONDS - 1)
    assert route.is_over(100 + FINISH_SECONDS)
    assert bench.number(route, at=100 + FINISH_SECONDS) == 1, "it is asked to end first"
    assert bench.number(route, at=100 + FINISH_SECONDS + LEAVING_SECONDS) == 2
    assert not route.is_over(1000.0)


def test_the_time_to_finish_does_not_begin_anew_with_every_snapshot() -> None:
    """Workers join and leave all the time; that is no reason to stay longer."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    for at in (100.0, 300.0, 500.0):
        bench.change(table(stateful(1, wanted=False), stateful(2)))
        bench.number(route, at)

    assert route.is_over(100 + FINISH_SECONDS)


def test_a_stream_whose_old_version_is_wanted_again_stays_for_good() -> None:
    """After a rollback there is nothing to leave."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2)))
    bench.number(route, at=100.0)
    bench.change(table(stateful(2, wanted=False), stateful(1)))

    assert bench.number(route, at=200.0) == 1
    assert not route.is_over(10_000.0)


def test_a_session_without_a_version_to_go_on_with_says_so() -> None:
    """An answer from a fresh state would look like any other."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(table(stateful(2, width=2)))

    with pytest.raises(SessionVersionGone) as caught:
        bench.number(route)

    assert caught.value.metadata == {"model": "echo", "version": "1"}


def test_a_session_whose_last_worker_is_gone_goes_on_with_the_new_version_if_it_can() -> None:
    """Nobody loads the old version again."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2)))
    bench.number(route, at=100.0)

    assert route.leave(101.0)
    assert bench.number(route, at=101.0) == 2


def test_a_stream_that_did_not_stay_behind_has_nothing_to_leave() -> None:
    """An error of the present version is the error of the item."""
    bench = Bench(table(stateful(1)))

    assert not bench.route().leave(1.0)


def test_a_resumed_session_begins_with_the_version_of_its_state() -> None:
    """While it was away, its endpoint went on."""
    bench = Bench(table(stateful(1, wanted=False), stateful(2)))
    route = bench.route(begun_with="models/echo/versions/1")

    assert bench.number(route) == 1
    assert bench.told == [["models/echo/versions/1"]]


def test_a_session_whose_version_was_deleted_meanwhile_is_not_resumed() -> None:
    """Nobody knows what kind of state it is."""
    bench = Bench(table(stateful(2)))

    with pytest.raises(SessionVersionGone):
        bench.route(begun_with="models/echo/versions/1")

    assert bench.pins.held == frozenset()


def test_a_deleted_endpoint_fails_its_streams() -> None:
    """They must not go on by an endpoint that is no more, and must not pin its version for ever."""
    bench = Bench(table(stateful(1)))
    route = bench.route()
    bench.change(RoutingTable("e", 2, {}, {}, {}))

    with pytest.raises(EndpointNotFound):
        bench.number(route)

    route.close()
    assert bench.pins.held == frozenset()


def test_streams_that_share_a_version_pin_it_until_the_last_one_closes() -> None:
    """One that ends must not take the version from the others."""
    bench = Bench(table(stateful(1)))
    first, second = bench.route(), bench.route()
    bench.change(table(stateful(1, wanted=False), stateful(2)))
    first.close()
    told_before = list(bench.told)
    second.close()

    assert told_before == [["models/echo/versions/1"]]
    assert bench.told[-1] == []
