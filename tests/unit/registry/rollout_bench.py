"""Registries on a bench: their real store, ledger and controller, with a clock that tests turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL

from inferway import names
from inferway.datatypes import Datatype
from inferway_registry import catalogue, convert, convert_outcomes, endpoints, rollout_changes
from inferway_registry.controller import Controller
from inferway_registry.endpoints import Wish
from inferway_registry.fleet import Fleet, Report, VersionReport
from inferway_registry.ledger import Call, Change, Ledger
from inferway_registry.lookout import Lookout
from inferway_registry.outcomes import Outcomes
from inferway_registry.resources import (
    Arm,
    Endpoint,
    Event,
    Manifest,
    Runtime,
    Signature,
    TensorSpec,
    Upload,
    VersionConfig,
)
from inferway_registry.rollout_changes import Beginning, Decision
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.spec import Canary, Judging, Spec, Step
from inferway_registry.steady_clock import SteadyClock
from inferway_registry.store.sql import Store
from tests.unit.registry.rollout_gateway import StubGateway

START = datetime(2026, 1, 1, tzinfo=UTC)
BY = Call("somebody", "Test")
STABLE, CANDIDATE = ("digits", 1), ("digits", 2)
SIGNATURE = Signature(
    "serving_default", (TensorSpec("x", Datatype.FP32, (-1, 4)),), (TensorSpec("y", Datatype.FP32, (-1, 2)),)
)
QUICK = Spec(
    CANDIDATE,
    Canary((Step(1000, 4.0), Step(5000, 4.0))),
    Judging(min_units=100),
    baseline_seconds=3.0,
    bake_seconds=6.0,
)
UNITS = 2000


@dataclass
class Turned:
    """A clock."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """Seconds since the beginning."""
        return self.seconds

    def now(self) -> datetime:
        """The time of day."""
        return START + timedelta(seconds=self.seconds)


@dataclass
class Registry:
    """One process of a registry."""

    clock: Turned
    store: Store
    fleet: Fleet
    ledger: Ledger
    lookout: Lookout
    braked: list[str] = field(default_factory=list)

    @property
    def controller(self) -> Controller:
        """It keeps nothing, so each use takes a new one."""
        return Controller(self.store, self.ledger, self.lookout)

    async def publish(self, model: str = "digits", *signatures: Signature) -> None:
        """One more version of a model."""

        async def operation(change: Change) -> None:
            upload = Upload("u", model, Runtime.TENSORFLOW, Manifest((), "d"), VersionConfig(), START)
            await catalogue.publish(change, upload, signatures or (SIGNATURE,), "")

        await self.ledger.apply(BY, operation)

    async def set_arms(self, *arms: Arm, name: str = "digits") -> None:
        """Gives an endpoint its arms."""
        await self.ledger.apply(BY, lambda change: endpoints.update(change, name, Wish(arms, ""), ""))

    def have_ready(self, *versions: tuple[str, int], worker: str = "w", failing: str = "") -> None:
        """A worker reports: these are ready, and why the candidate is not."""
        reports = [VersionReport(names.version_name(*version), ready=True, status=b"") for version in versions]
        if failing:
            reports.append(VersionReport(names.version_name(*CANDIDATE), ready=False, status=b"", failure=failing))
        self.fleet.report(Report(worker, "boot", "127.0.0.1:1", {}, tuple(reports), draining=False))

    async def begin(self, spec: Spec = QUICK, *, supersede: bool = False) -> Rollout:
        """Begins a rollout of `digits`."""
        beginning = Beginning("digits", spec, "salt", supersede)
        return await self.ledger.apply(BY, lambda change: rollout_changes.create(change, beginning, self.lookout.now()))

    async def command(self, decide: Decision) -> Rollout:
        """Somebody does something with the newest rollout of `digits`."""
        return await self.ledger.apply(
            BY, lambda change: rollout_changes.command(change, "digits", 0, "", decide, self.lookout.now())
        )

    async def rollout(self) -> Rollout:
        """The newest of `digits`."""
        async with self.store.reading() as rows:
            return await rollout_changes.require_rollout(rows, "digits", 0)

    async def endpoint(self) -> Endpoint:
        """`digits`."""
        async with self.store.reading() as rows:
            return await endpoints.require_endpoint(rows, "digits")

    async def events(self) -> list[Event]:
        """Everything that happened to rollouts."""
        async with self.store.reading() as rows:
            return [event for event in await rows.events(0, 10_000) if "/rollouts/" in event.resource]

    async def hear(self, *gateways: StubGateway, units: int = UNITS) -> None:
        """Each gateway meets so many units by the routing of now, and reports."""
        outcomes = Outcomes(self.store, self.lookout.now, lambda: self.braked.append("look"))
        for gateway in gateways:
            gateway.meet(convert.endpoint_message(await self.endpoint()), units)
            request = gateway.request()
            convert_outcomes.check(request)
            reports = {names.parse_rollout(each.rollout): each.SerializeToString() for each in request.outcomes}
            await outcomes.report(request.gateway, reports, braked=bool(gateway.brake))

    async def drive(self, *gateways: StubGateway, seconds: int = 200, units: int = UNITS) -> Rollout:
        """Lets time pass second by second, with reports and looks, until the newest rollout has ended."""
        for _ in range(seconds):
            await self.hear(*gateways, units=units)
            await self.controller.run()
            rollout = await self.rollout()
            if not rollout.active:
                break
            self.clock.seconds += 1
        return rollout


def build(store: Store, clock: Turned) -> Registry:
    """A registry's process, just started, on a database."""
    fleet = Fleet(clock, clock.now, lambda: None)
    ledger = Ledger(store, clock.now, lambda: None)
    return Registry(clock, store, fleet, ledger, Lookout(fleet, SteadyClock(clock.now, clock)))


@asynccontextmanager
async def registries(url: URL, count: int = 1) -> AsyncIterator[list[Registry]]:
    """So many on one database, with two versions of `digits`, the first of which has all traffic and both are ready."""
    clock = Turned()
    stores = [await Store.open(url) for _ in range(count)]
    built = [build(store, clock) for store in stores]
    await built[0].publish()
    await built[0].publish()
    await built[0].set_arms(Arm("v1", *STABLE, 10_000))
    for each in built:
        each.have_ready(STABLE, CANDIDATE)
    yield built
    for each in built:
        await each.ledger.close()
        await each.store.close()
