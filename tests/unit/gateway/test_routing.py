"""Routing: who gets which arm, and which snapshots make no table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import AliasNotFound, EndpointNotFound, UnknownSignature, VersionNotFound, VersionNotReady
from inferway_gateway.routing import Arm, Endpoint, RoutingTable, Selector, TableRefused, bucket_of
from tests.unit.gateway.builders import version

V1, V2 = version(1), version(2)
GOLDEN = {
    ("", ""): 1758,
    ("salt", "user-1"): 4956,
    ("salt", "user-2"): 5102,
    ("salt", "user-3"): 8876,
    ("pepper", "user-1"): 8199,
    ("söd", "ünit"): 6977,
}
"""Buckets by (salt, unit). Frozen: any other implementation must agree, and a change would move every user."""


def table(*arms: Arm, next_version: str = "", aliases: dict[tuple[str, str], str] | None = None) -> RoutingTable:
    endpoint = Endpoint("echo", arms, salt="salt", generation=3, next_version=next_version)
    return RoutingTable("e", 1, {"echo": endpoint}, {V1.name: V1, V2.name: V2}, aliases or {})


def split(weight: int) -> Endpoint:
    return Endpoint("echo", (Arm("new", V2.name, weight), Arm("old", V1.name, 10_000 - weight)), salt="salt")


@pytest.mark.parametrize(("salt", "unit"), GOLDEN)
def test_buckets_are_those_that_were_published(salt: str, unit: str) -> None:
    """Assignment must be the same in every gateway, SDK and release."""
    assert bucket_of(salt, unit) == GOLDEN[salt, unit]


@given(unit=st.text(), small=st.integers(0, 10_000), large=st.integers(0, 10_000))
def test_a_growing_arm_keeps_everybody_it_has(unit: str, small: int, large: int) -> None:
    """A ramp that moves users back and forth ruins what it measures."""
    small, large = sorted((small, large))

    if split(small).choose(unit).name == "new":
        assert split(large).choose(unit).name == "new"


def test_shares_are_those_of_the_weights() -> None:
    """Ten thousand units, 30 %."""
    endpoint = split(3_000)
    new = sum(endpoint.choose(f"user-{number}").name == "new" for number in range(10_000))

    assert 2_850 < new < 3_150


def test_an_arm_without_weight_gets_nothing() -> None:
    """Zero is zero, also at the edges of the buckets."""
    endpoint = split(0)

    assert {endpoint.choose(str(number)).name for number in range(2_000)} == {"old"}


def test_the_decision_says_arm_and_generation() -> None:
    """Both travel with the request into counters and feedback."""
    decision = table(Arm("v1", V1.name, 10_000)).route(Selector("echo"), "u")

    assert (decision.version, decision.arm, decision.generation) == (V1, "v1", 3)


def test_numbers_and_aliases_pin_a_version_outside_any_arm() -> None:
    """Pinned traffic must not count for an arm."""
    routes = table(Arm("v1", V1.name, 10_000), aliases={("echo", "new"): V2.name})

    assert routes.route(Selector("echo", number=2), "u")[:2] == (V2, "")
    assert routes.route(Selector("echo", alias="new"), "u")[:2] == (V2, "")


def test_an_endpoint_without_arms_uses_the_version_that_comes_next() -> None:
    """A first version can be asked for the moment it is ready."""
    assert table(next_version=V2.name).route(Selector("echo"), "u")[:2] == (V2, "v2")
    with pytest.raises(VersionNotReady):
        table().route(Selector("echo"), "u")


@pytest.mark.parametrize(
    ("selector", "kind"),
    [
        (Selector("nobody"), EndpointNotFound),
        (Selector("echo", number=9), VersionNotFound),
        (Selector("echo", alias="z"), AliasNotFound),
    ],
)
def test_names_that_do_not_exist_are_not_found(selector: Selector, kind: type[Exception]) -> None:
    """Each says which part is wrong."""
    with pytest.raises(kind):
        table(Arm("v1", V1.name, 10_000)).route(selector, "u")


def test_a_long_name_is_cut_in_messages() -> None:
    """Ten kilobytes in must not become ten kilobytes out."""
    with pytest.raises(EndpointNotFound) as caught:
        table().route(Selector("a" * 10_000), "u")

    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "arms",
    [
        (Arm("a", V1.name, 9_999),),
        (Arm("a", V1.name, 10_001),),
        (Arm("a", V1.name, 10_001), Arm("b", V2.name, -1)),
        (Arm("a", V1.name, 0),),
    ],
)
def test_weights_that_do_not_make_a_whole_are_refused(arms: tuple[Arm, ...]) -> None:
    """A bad snapshot must not take traffic."""
    with pytest.raises(TableRefused):
        table(*arms)


def test_arms_and_aliases_must_name_versions_that_exist() -> None:
    """Otherwise the fault would show only when a request meets it."""
    with pytest.raises(TableRefused):
        table(Arm("a", "models/echo/versions/9", 10_000))
    with pytest.raises(TableRefused):
        table(next_version="models/echo/versions/9")
    with pytest.raises(TableRefused):
        table(Arm("v1", V1.name, 10_000), aliases={("echo", "z"): "models/echo/versions/9"})


def test_an_unknown_signature_lists_those_there_are() -> None:
    """The caller's next try should succeed."""
    with pytest.raises(UnknownSignature, match="serving_default"):
        V1.signature("train", "signature")
