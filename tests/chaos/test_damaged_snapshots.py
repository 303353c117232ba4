"""A snapshot that was damaged on its way or on the disk is found out, whatever the damage is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway_chassis.routing_feed import RoutingFeed
from tests.integration.gateway.snapshots import snapshot, version

GOOD = snapshot(versions=[version(), version(2)], workers=["127.0.0.1:1"]).SerializeToString(deterministic=True)


async def accepted(directory: Path, data: bytes) -> list[RoutingSnapshot]:
    """What a process that starts with `data` on its disk, and without a registry, would act upon."""
    path, applied = directory / "routing.pb", list[RoutingSnapshot]()
    path.write_bytes(data)
    feed = RoutingFeed("127.0.0.1:1", "test", path, applied.append)
    await feed.start()
    await feed.stop()
    return applied


async def test_the_undamaged_one_is_taken(tmp_path: Path) -> None:
    """Or the tests below would prove nothing."""
    assert await accepted(tmp_path, GOOD) == [RoutingSnapshot.FromString(GOOD)]


@pytest.mark.parametrize("seed", range(4))
async def test_no_flipped_bit_changes_what_is_acted_upon(tmp_path: Path, seed: int) -> None:
    """A route to a version that nobody named is worse than no route. Some bits of a number mean nothing."""
    chance, good = random.Random(seed), RoutingSnapshot.FromString(GOOD)
    for _ in range(50):
        position = chance.randrange(len(GOOD))
        damaged = bytearray(GOOD)
        damaged[position] ^= 1 << chance.randrange(8)
        assert await accepted(tmp_path, bytes(damaged)) in ([], [good]), position


async def test_no_part_of_one_and_nothing_added_is_acted_upon(tmp_path: Path) -> None:
    """A full disk and a torn write leave a prefix; a field of a later release that the digest lacks is an addition."""
    unknown_field = b"\x9a\x3e\x02hi"
    for damaged in (*(GOOD[:length] for length in range(0, len(GOOD), 17)), GOOD + unknown_field, GOOD + GOOD):
        assert await accepted(tmp_path, damaged) == []
