"""What automatic endpoints do, as a table and as laws."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import InvalidField
from inferway_registry import policy
from inferway_registry.resources import (
    Alias,
    Arm,
    Endpoint,
    Manifest,
    ModelVersion,
    Runtime,
    VersionConfig,
    VersionPolicy,
    VersionState,
)

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = st.frozensets(st.integers(1, 6))


def endpoint(*arms: Arm, next_number: int = 0, automatic: bool = True) -> Endpoint:
    """The endpoint `m`."""
    return Endpoint("m", arms, "s", 3, automatic, next_number, THEN, 7)


def alone(number: int, model: str = "m") -> Arm:
    """An arm with all traffic."""
    return Arm(f"v{number}", model, number, 10_000)


def version(model: str, number: int, state: VersionState = VersionState.PUBLISHED) -> ModelVersion:
    """A version without content."""
    return ModelVersion(model, number, state, Runtime.TENSORFLOW, Manifest((), ""), (), VersionConfig(), THEN, 1)


@pytest.mark.parametrize(
    ("before", "published", "ready", "after"),
    [
        (endpoint(), [], [], endpoint()),
        (endpoint(), [1], [], endpoint(next_number=1)),
        (endpoint(next_number=1), [1], [1], endpoint(alone(1))),
        (endpoint(alone(1)), [1], [1], endpoint(alone(1))),
        (endpoint(alone(1)), [1, 2], [1], endpoint(alone(1), next_number=2)),
        (endpoint(alone(1), next_number=2), [1, 2], [1, 2], endpoint(alone(2))),
        (endpoint(alone(1), next_number=2), [1, 2, 3], [1, 2], endpoint(alone(1), next_number=3)),
        (endpoint(alone(1), next_number=2), [1], [1], endpoint(alone(1))),
        (endpoint(alone(2)), [1], [1], endpoint(alone(2))),
        (endpoint(alone(1), automatic=False), [1, 2], [2], endpoint(alone(1), automatic=False)),
        (endpoint(replace(alone(1), weight_basis_points=5_000), alone(3, "x")), [1], [1], endpoint(alone(1))),
        (endpoint(alone(5, "other")), [1], [1], endpoint(alone(1))),
    ],
    ids=[
        "nothing to serve",
        "first version is awaited",
        "first version is ready",
        "serving the newest",
        "a newer one is awaited",
        "the newer one is ready",
        "the newest replaces the awaited",
        "the awaited one was withdrawn",
        "the served one was withdrawn",
        "explicit arms stay",
        "handed back from a split",
        "handed back from another model",
    ],
)
def test_an_automatic_endpoint_follows_the_newest_ready_version(
    before: Endpoint, published: list[int], ready: list[int], after: Endpoint
):
    """Every case an operator has asked about."""
    assert policy.follow(before, published, ready) == after


@given(NUMBERS, NUMBERS, st.integers(0, 6), st.integers(0, 6))
def test_traffic_only_goes_forward_and_only_to_what_is_published_and_ready(
    published: frozenset[int], ready: frozenset[int], served: int, awaited: int
):
    """Whatever happened before, no step may move users back or to a version that cannot answer."""
    before = endpoint(*[alone(served)] * bool(served), next_number=awaited)

    after = policy.follow(before, published, ready)

    if after.arms != before.arms:
        (arm,) = after.arms
        assert arm.number > served
        assert arm.number in published & ready
        assert after.next_number == 0
    assert after.next_number == 0 or after.next_number in published


@given(NUMBERS, NUMBERS, st.integers(0, 6))
def test_following_again_changes_nothing(published: frozenset[int], ready: frozenset[int], served: int):
    """The registry reconciles whenever it likes; that must not make events."""
    once = policy.follow(endpoint(*[alone(served)] * bool(served)), published, ready)

    assert policy.follow(once, published, ready) == once


def test_wanted_is_what_somebody_names_and_may_be_served():
    """Workers load this and nothing else: a version too many costs memory, one too few costs answers."""
    versions = [version("m", n) for n in range(1, 6)] + [version("x", 1, VersionState.UNLOADED)]
    endpoints = [endpoint(alone(1), next_number=2), replace(endpoint(alone(1, "x")), endpoint="x")]

    wanted = policy.wanted(versions, endpoints, {"m": [Alias("champion", 4)]}, {"m": VersionPolicy(specific=(5,))})

    assert wanted == {("m", 1), ("m", 2), ("m", 4), ("m", 5)}


def test_a_policy_of_one_model_says_nothing_about_another():
    """Two models that have the same numbers are the rule."""
    versions = [version("m", 1), version("m", 2), version("x", 1), version("x", 2)]

    assert policy.wanted(versions, [], {}, {"m": VersionPolicy(every=True), "x": VersionPolicy()}) == {
        ("m", 1),
        ("m", 2),
    }


@given(st.lists(st.integers(-10, 10_010), max_size=40))
def test_arms_pass_exactly_if_they_add_up(weights: list[int]):
    """A gateway draws from these; a gap would be traffic without a version."""
    arms = tuple(Arm(f"a{n}", "m", 1, weight) for n, weight in enumerate(weights))
    good = 0 < len(weights) <= policy.MAX_ARMS and sum(weights) == 10_000 and all(0 <= w <= 10_000 for w in weights)

    if good:
        policy.check_arms(arms, "arms")
    else:
        with pytest.raises(InvalidField):
            policy.check_arms(arms, "arms")
