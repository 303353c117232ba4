"""Assignment: the same everywhere, fair to every arm, and moving nobody twice."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from inferway.registry.v1.resources_pb2 import Arm as ArmMessage
from inferway.registry.v1.resources_pb2 import Endpoint as EndpointMessage
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway_gateway.convert import to_table
from inferway_gateway.routing import WHOLE, Arm, Endpoint, Selector, bucket_of
from tests.golden import assignment
from tests.integration.gateway.snapshots import snapshot, version

GOLDEN: dict[str, Any] = json.loads(assignment.FILE.read_text())
CELLS, UNITS = 100, 100_000
CHI2_LIMIT = 163.0
"""Of 99 degrees of freedom: exceeded with a chance of 0.00005."""
CORRELATION_LIMIT = 0.0095
"""Three standard deviations of UNITS independent pairs."""
SHAPES: dict[str, Callable[[int, random.Random], str]] = {
    "numbers": lambda number, _: str(number),
    "names": lambda number, _: f"user-{number:07}@example.com",
    "uuids": lambda _, source: str(uuid.UUID(int=source.getrandbits(128), version=4)),
    "long paths with a counter at the end": lambda number, _: f"{'tenants/north/fleets/7/vehicles/' * 4}{number:x}",
}


@cache
def buckets(salt: str, shape: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    source = random.Random(1)
    return np.array([bucket_of(salt, SHAPES[shape](number, source)) for number in range(UNITS)])


def split(weight: int, salt: str = "salt") -> Endpoint:
    return Endpoint("echo", (Arm("candidate", "v2", weight), Arm("stable", "v1", WHOLE - weight)), salt=salt)


def test_a_thousand_published_vectors_hold() -> None:
    """Programs in other languages rely on them; a change would move every user."""
    vectors = GOLDEN["vectors"]
    found = [
        [
            bucket_of(salt, unit),
            [assignment.arms_of(tuple(weights), salt, unit) for weights in GOLDEN["tables"]],
        ]
        for salt, unit, *_ in vectors
    ]

    assert len(vectors) == 1_000
    assert found == [vector[3:] for vector in vectors]


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_of_every_shape_fill_all_buckets_evenly(shape: str) -> None:
    """Who numbers his users must get the same shares as who draws lots for them."""
    counts = np.bincount(buckets("2b0f6c1de04a4d5f", shape) * CELLS // WHOLE, minlength=CELLS)
    expected = UNITS / CELLS

    assert float(((counts - expected) ** 2 / expected).sum()) < CHI2_LIMIT


@pytest.mark.parametrize("shape", SHAPES)
def test_two_salts_have_nothing_to_do_with_each_other(shape: str) -> None:
    """Else the same users would be the guinea pigs of every rollout."""
    one, other = buckets("2b0f6c1de04a4d5f", shape), buckets("2b0f6c1de04a4d60", shape)

    assert abs(float(np.corrcoef(one, other)[0, 1])) < CORRELATION_LIMIT


def test_a_ramp_up_and_down_moves_nobody_against_its_direction() -> None:
    """Whoever saw the candidate goes on seeing it as long as it grows; the newest leave first."""
    held = {
        weight: {number for number in range(20_000) if split(weight).choose(f"user-{number}").name == "candidate"}
        for weight in (100, 500, 2_500, 5_000, 10_000, 0)
    }

    for before, after in pairwise((100, 500, 2_500, 5_000, 10_000, 2_500, 0)):
        smaller, larger = sorted((before, after))
        assert held[smaller] < held[larger]
    assert (len(held[0]), len(held[10_000])) == (0, 20_000)


def test_gateways_with_the_same_snapshot_never_disagree() -> None:
    """Nor does one that was started again: nothing but the snapshot decides."""
    arms = [
        ArmMessage(arm="v2", version="models/echo/versions/2", weight_basis_points=2_500),
        ArmMessage(arm="v1", version="models/echo/versions/1", weight_basis_points=7_500),
    ]
    sent = snapshot(
        versions=[version(1), version(2)],
        endpoints=[EndpointMessage(name="endpoints/echo", arms=arms, salt="5f1c", generation=4)],
    ).SerializeToString()
    one, other = (to_table(RoutingSnapshot.FromString(sent)) for _ in range(2))
    decisions = [
        [table.route(Selector("echo"), f"user-{number}")[1:4] for number in range(5_000)] for table in (one, other)
    ]

    assert decisions[0] == decisions[1]
    assert set(decisions[0]) == {("v2", 4, 2_500), ("v1", 4, 7_500)}
