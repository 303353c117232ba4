"""What is kept of splits that somebody set by hand, on a real database, and what is said of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import URL

from inferway_registry import endpoints, metrics
from inferway_registry.endpoints import Wish
from inferway_registry.resources import Arm
from inferway_registry.routing import take_snapshot
from inferway_registry.split_check import ArmCount, Mismatch, SplitCheck
from inferway_registry.splits import SplitReport, Splits, look_at
from inferway_registry.watch import Broadcast
from tests.unit.registry.rollout_bench import BY, CANDIDATE, STABLE, Registry, registries

HALVES = (Arm("v1", *STABLE, 5000), Arm("v2", *CANDIDATE, 5000))


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """A database that is not there yet."""
    return URL.create("sqlite+aiosqlite", database=str(tmp_path / "registry.db"))


@pytest.fixture
async def registry(url: URL) -> AsyncIterator[Registry]:
    """A registry whose endpoint `digits` gives two versions half of the traffic each."""
    async with registries(url) as (registry,):
        await registry.set_arms(*HALVES)
        yield registry


def counted(generation: int, one: int, other: int) -> dict[str, SplitReport]:
    """A gateway's report of `digits`: so many units of each arm, all of them answered."""
    return {"digits": SplitReport(generation, {"v1": ArmCount(one, one), "v2": ArmCount(other, other)})}


async def found(registry: Registry) -> SplitCheck | None:
    """What is said of `digits`."""
    async with registry.store.reading() as rows:
        return await look_at(rows, await endpoints.require_endpoint(rows, "digits"))


async def units(registry: Registry) -> list[int]:
    """Of its arms."""
    check = await found(registry)
    return [] if check is None else [arm.units for arm in check.arms.values()]


async def check_sums(one: Registry, other: Registry) -> None:
    """Gateways report to either registry, again and again; both see the sum of their last."""
    await one.set_arms(*HALVES)
    generation, heard = (await one.endpoint()).generation, list[str]()
    first, second = (
        Splits(one.store, lambda: heard.append("first")),
        Splits(other.store, lambda: heard.append("second")),
    )
    await first.report("g1", counted(generation, 10, 12))
    await second.report("g1", counted(generation, 100, 120))
    await first.report("g2", counted(generation, 7, 8))
    await second.report("g2", counted(generation, 7, 8))

    assert heard == ["first", "second", "first"]
    assert await units(one) == await units(other) == [107, 128]
    await one.set_arms(Arm("v1", *STABLE, 4000), Arm("v2", *CANDIDATE, 6000))
    assert await units(other) == [0, 0]
    await second.report("g2", counted(generation + 1, 1, 2))
    async with one.store.reading() as rows:
        assert await rows.split_reports("digits", generation) == {}
    assert await units(one) == [1, 2]


async def test_any_registry_on_the_database_sees_what_all_gateways_counted(url: URL):
    """Gateways talk to whichever is there; only a report that changes something is written."""
    async with registries(url, count=2) as (one, other):
        await check_sums(one, other)


async def test_what_does_not_belong_to_the_weights_of_now_is_let_go(registry: Registry):
    """A gateway with an older snapshot counts under other weights, and one with a newer one will say it again."""
    splits, generation = Splits(registry.store, lambda: None), (await registry.endpoint()).generation
    await splits.report("g1", counted(generation - 1, 1, 1))
    await splits.report("g1", {"digits": SplitReport(generation, {"v1": ArmCount(1, 1)})})
    await splits.report("g1", {"unknown": SplitReport(1, {})})
    assert await units(registry) == [0, 0]

    await registry.set_arms(Arm("v1", *STABLE, 10_000))
    await splits.report("g1", counted(generation + 1, 1, 1))
    assert await found(registry) is None


async def test_so_many_gateways_are_heard(registry: Registry):
    """Each start of a process makes another one, for as long as the weights stay."""
    splits, generation = Splits(registry.store, lambda: None, max_gateways=1), (await registry.endpoint()).generation
    for gateway, count in (("g1", 1), ("g2", 10), ("g1", 2)):
        await splits.report(gateway, counted(generation, count, count))

    assert await units(registry) == [2, 2]


async def test_counts_go_with_their_endpoint(registry: Registry):
    """Another one of that name begins with the same generation."""
    wish, splits = Wish(HALVES, ""), Splits(registry.store, lambda: None)
    report = {"front": counted(1, 5, 5)["digits"]}
    await registry.ledger.apply(BY, lambda change: endpoints.create(change, "front", wish))
    await splits.report("g1", report)
    await registry.ledger.apply(BY, lambda change: endpoints.delete(change, "front", ""))

    async with registry.store.reading() as rows:
        assert await rows.split_reports("front", 1) == {}


async def test_a_wrong_split_is_logged_once_and_counted(registry: Registry, caplog: pytest.LogCaptureFixture):
    """Whoever set the weights must hear of it, and nobody of every look."""
    splits, generation = Splits(registry.store, lambda: None), (await registry.endpoint()).generation
    figures = CollectorRegistry()
    snapshot = Broadcast(await take_snapshot(registry.store, registry.fleet), 1)
    metrics.register(figures, snapshot, registry.fleet, splits)
    name, labels = "inferway_registry_split_mismatches", {"mismatch": "assigned"}

    with caplog.at_level(logging.WARNING, "inferway_registry.splits"):
        await splits.report("g1", counted(generation, 50, 50))
        await splits.look()
        assert figures.get_sample_value(name, labels) == 0
        for more in (500, 501):
            await splits.report("g1", counted(generation, 1000, more))
            await splits.look()

    (record,) = caplog.records
    assert (vars(record)["endpoint"], splits.count(Mismatch.ASSIGNED)) == ("digits", 1)
    assert vars(record)["explanation"].startswith("srm: units do not reach the arms as assigned.")
    assert figures.get_sample_value(name, labels) == 1
    assert figures.get_sample_value(name, {"mismatch": "answered"}) == 0
    await registry.set_arms(Arm("v1", *STABLE, 10_000))
    await splits.look()
    assert figures.get_sample_value(name, labels) == 0
