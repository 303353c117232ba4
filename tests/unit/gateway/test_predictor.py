"""Envelopes: what the decision leaves in them, and who is asked whether he wants to observe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from opentelemetry import trace

from inferway.datatypes import Datatype
from inferway.errors import InferwayError, MemoryPressure, WorkerLost
from inferway_chassis.memory_gate import MemoryGate
from inferway_gateway.admission import FieldNames
from inferway_gateway.envelope import Ask, Caller, Envelope, Observer
from inferway_gateway.matching import MatchRule
from inferway_gateway.predictor import Predictor, PredictorOptions
from inferway_gateway.rollouts.plan import RolloutPlan
from inferway_gateway.routing import Arm, Decision, Endpoint, RoutingTable, Selector
from inferway_gateway.steering import Routing
from inferway_gateway.stream_route import Pins
from inferway_gateway.tensors import Answer, Tensor
from tests.unit.gateway.bench import Bench
from tests.unit.gateway.builders import envelope as request
from tests.unit.gateway.builders import version

ROLLOUT = "endpoints/echo/rollouts/1"
RULE = MatchRule("x-ring", "testers", is_prefix=False, arm="v2")
VERSIONS = {each.name: each for each in (version(1), version(2))}
DRIVEN = Endpoint(
    "echo",
    (Arm("v2", "models/echo/versions/2", 10_000), Arm("v1", "models/echo/versions/1", 0)),
    generation=4,
    match_rules=(RULE,),
    rollout=RolloutPlan(ROLLOUT, stable_arm="v1", candidate_arm="v2", counts=True),
)
ALONE = Endpoint("echo", (Arm("v1", "models/echo/versions/1", 10_000),), generation=4)
SPLIT = replace(DRIVEN, rollout=None, arms=tuple(replace(arm, weight=5_000) for arm in DRIVEN.arms))
NAMES = FieldNames("endpoint", "signature", "inputs[{}]", "outputs[{}]")


class Silent:
    """An observer to whom an end means nothing."""

    def ended(self, envelope: Envelope, outcome: Answer | InferwayError, now: float) -> None:
        """Nothing."""


class Bed:
    """A predictor that routes by one endpoint, and what its observer was asked."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.routing = Routing(Pins(lambda _: None))
        self.routing.swap(RoutingTable("e", 1, {"echo": endpoint}, VERSIONS, {}))
        bench = Bench()
        lane = bench.open_lane()
        bench.dispatcher.set_ready(lane, VERSIONS)
        memory = MemoryGate(1 << 20, lambda: 0.0, lambda: bench.now, lambda: None)
        options = PredictorOptions("boot", 1 << 20)
        self.predictor = Predictor(
            self.routing, bench.dispatcher, memory, lambda: bench.now, trace.NoOpTracer(), options
        )
        self.asked: list[tuple[Endpoint, Decision]] = []
        self.observer = Silent()
        self.predictor.observe = self.observe

    def observe(self, endpoint: Endpoint, decision: Decision, envelope: Envelope) -> Observer:
        assert envelope.generation == decision.generation
        self.asked.append((endpoint, decision))
        return self.observer

    def envelope(
        self, *, number: int = 0, unit: str = "", headers: Mapping[str, str] | None = None, rows: int = 1
    ) -> Envelope:
        x = Tensor("x", Datatype.FP32, (rows, 4), b"\0" * (rows * 16))
        caller = Caller(headers=tuple((headers or {}).items()))
        selector = Selector("echo", number=number)
        return self.predictor.submit(Ask(selector, [x], (), unit, 10.0, caller, NAMES)).envelope


async def test_what_chance_decided_in_a_rollout_is_observed() -> None:
    """With the endpoint as it was then, and before the request is on its way."""
    bed = Bed(DRIVEN)
    envelope = bed.envelope(unit="u")

    assert envelope.observer is bed.observer
    assert bed.asked == [(DRIVEN, Decision(VERSIONS["models/echo/versions/2"], "v2", 4, 10_000, "u", DRIVEN))]
    assert (envelope.arm, envelope.propensity, envelope.is_split) == ("v2", 10_000, True)


async def test_what_chance_decided_without_a_rollout_is_observed_too() -> None:
    """A split that somebody set by hand may be wrong like any other."""
    bed = Bed(SPLIT)

    assert bed.envelope(unit="u").observer is bed.observer


async def test_what_is_refused_for_want_of_memory_has_met_no_version() -> None:
    """It would be a unit of its arm, and steps that wait for units would end though nobody was answered."""
    bed = Bed(DRIVEN)
    bed.envelope(unit="first", rows=40_000)
    with pytest.raises(MemoryPressure):
        bed.envelope(unit="second", rows=40_000)

    assert [decision.unit for _, decision in bed.asked] == ["first"]


@pytest.mark.parametrize(
    ("endpoint", "number", "ring"), [(ALONE, 0, ""), (SPLIT, 1, ""), (DRIVEN, 1, ""), (DRIVEN, 0, "testers")]
)
async def test_nothing_else_is_observed(endpoint: Endpoint, number: int, ring: str) -> None:
    """One arm, or a caller who chose: neither says anything of any arm by chance."""
    bed = Bed(endpoint)
    envelope = bed.envelope(number=number, unit="u", headers={"x-ring": ring})

    assert bed.asked == []
    assert envelope.observer is None


async def test_what_a_brake_decided_is_not_observed() -> None:
    """The stable version gets all, by no chance: counted as if by weight, the split would look wrong."""
    bed = Bed(DRIVEN)
    bed.routing.brake(ROLLOUT)
    envelope = bed.envelope()

    assert (envelope.arm, envelope.is_split) == ("v1", True)
    assert bed.asked == []


async def test_a_pinned_request_of_a_split_endpoint_says_that_it_has_no_arm() -> None:
    """Who compares answers must be able to tell."""
    envelope = Bed(SPLIT).envelope(number=1)

    assert (envelope.arm, envelope.propensity, envelope.is_split) == ("", 0, True)


async def test_a_copy_of_a_request_is_neither_counted_nor_repeated() -> None:
    """Nobody waits for it, so it must cost nobody anything."""
    bench = Bench()
    bench.open_lane()
    bench.open_lane()  # on which it could be repeated
    flight = bench.dispatcher.submit(replace(request(), is_copy=True))
    bench.fail(flight, WorkerLost("gone"))

    assert isinstance(flight.result.exception(), WorkerLost)
    assert bench.codes() == {}
    assert bench.outcomes.copies.by_code == {"UNAVAILABLE": 1}
