"""Builds the registry from its settings, and takes it apart: the only place that knows all parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.descriptor import FileDescriptor
from obstore.exceptions import BaseError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from inferway.errors import StoreUnavailable
from inferway.registry.v1 import (
    endpoint_service_pb2,
    fleet_service_pb2,
    outcome_service_pb2,
    registry_service_pb2,
    rollout_service_pb2,
    watch_service_pb2,
)
from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.process import Process
from inferway_chassis.server import Server
from inferway_registry import metrics
from inferway_registry.blobs import Blobs
from inferway_registry.controller import Controller
from inferway_registry.data_directory import claimed
from inferway_registry.downloads import Downloads
from inferway_registry.endpoint_servicer import EndpointServicer
from inferway_registry.events import EventLog
from inferway_registry.fleet import Fleet
from inferway_registry.fleet_servicer import FleetServicer
from inferway_registry.follower import Follower
from inferway_registry.housekeeping import Housekeeping
from inferway_registry.ledger import Ledger, now
from inferway_registry.lookout import Lookout
from inferway_registry.manifest import Limits
from inferway_registry.outcome_servicer import OutcomeServicer
from inferway_registry.outcomes import Outcomes
from inferway_registry.repeating import Repeating
from inferway_registry.rollout_servicer import RolloutServicer
from inferway_registry.routing import RoutingBoard, RoutingSnapshot, take_snapshot
from inferway_registry.servicer import RegistryServicer
from inferway_registry.settings import RegistrySettings
from inferway_registry.splits import Splits
from inferway_registry.staging import Staging
from inferway_registry.steady_clock import SteadyClock
from inferway_registry.store.migrate import DatabaseTooNew
from inferway_registry.store.sql import Store
from inferway_registry.uploads import Options, Uploads
from inferway_registry.watch import Broadcast
from inferway_registry.watch_servicer import WatchServicer

SQLITE, POSTGRESQL = "sqlite+aiosqlite", "postgresql+asyncpg"
RECONCILE_SECONDS = 0.5
"""How soon what another registry on the database has changed is published here."""
CONTROL_SECONDS = 0.5
LEASE_CHECK_SECONDS = 0.5
SPLIT_CHECK_SECONDS = 60.0
"""How soon a wrong split is found that was told to another registry on the database."""
EXPIRY_SECONDS = 60.0
SWEEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the registry is made of."""

    store: Store
    blobs: Blobs
    changed: asyncio.Event
    """Set whenever the catalogue or the fleet has changed."""
    look: asyncio.Event
    """Set whenever a rollout may be able to go on."""
    told: asyncio.Event
    """Set whenever a gateway told of a split."""
    fleet: Fleet
    ledger: Ledger
    lookout: Lookout
    uploads: Uploads
    housekeeping: Housekeeping
    splits: Splits
    routing: Broadcast[RoutingSnapshot]


@asynccontextmanager
async def running(settings: RegistrySettings, process: Process) -> AsyncIterator[Server]:
    """Yields the started registry; everything is closed when the block ends. Raises SettingsRefused, AddressTaken."""
    async with AsyncExitStack() as stack:
        stack.enter_context(claimed(settings.data_dir))
        store = await _open_store(settings)
        stack.push_async_callback(store.close)
        parts = await _build(settings, process, store)
        stack.push_async_callback(parts.ledger.close)
        for repeating in _background(parts):
            await stack.enter_async_context(repeating.running())
        server = _server(settings, process, parts)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        yield server


async def _build(settings: RegistrySettings, process: Process, store: Store) -> Parts:
    blobs = _open_blobs(settings)
    changed, look, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_change() -> None:
        changed.set()
        look.set()

    fleet = Fleet(process.clock, now, on_change)
    ledger = Ledger(store, now, on_change)
    staging = Staging(settings.data_dir / "uploads")
    options = Options(
        max_uploads=settings.max_uploads,
        lifetime=timedelta(seconds=settings.upload_lifetime_seconds),
        idle=timedelta(seconds=settings.upload_idle_seconds),
    )
    orphan_age = timedelta(seconds=settings.orphan_lifetime_seconds)
    return Parts(
        store=store,
        blobs=blobs,
        changed=changed,
        look=look,
        told=told,
        fleet=fleet,
        ledger=ledger,
        lookout=Lookout(fleet, SteadyClock(now, process.clock)),
        uploads=Uploads(store, ledger, staging, blobs, options),
        housekeeping=Housekeeping(store, ledger, staging, blobs, orphan_age),
        splits=Splits(store, told.set),
        routing=Broadcast(await take_snapshot(store, fleet), settings.max_watchers),
    )


def _background(parts: Parts) -> list[Repeating]:
    board = RoutingBoard(parts.store, parts.fleet, parts.routing)
    follower = Follower(parts.store, parts.ledger, parts.fleet)
    controller = Controller(parts.store, parts.ledger, parts.lookout)

    async def reconcile() -> None:
        await board.refresh()
        await follower.run()

    async def expire_leases() -> None:
        parts.fleet.expire()

    async def expire() -> None:
        await parts.housekeeping.expire_uploads(now())
        await parts.ledger.forget_old_answers()

    async def sweep() -> None:
        await parts.housekeeping.sweep_blobs(now())

    return [
        Repeating("reconcile", reconcile, RECONCILE_SECONDS, parts.changed),
        Repeating("rollouts", controller.run, CONTROL_SECONDS, parts.look),
        Repeating("splits", parts.splits.look, SPLIT_CHECK_SECONDS, parts.told),
        Repeating("expire-leases", expire_leases, LEASE_CHECK_SECONDS),
        Repeating("expire-uploads", expire, EXPIRY_SECONDS),
        Repeating("sweep-blobs", sweep, SWEEP_SECONDS),
    ]


def _server(settings: RegistrySettings, process: Process, parts: Parts) -> Server:
    server = Server(settings, process)
    limits = Limits(
        max_files=settings.max_files,
        max_file_bytes=settings.max_file_bytes,
        max_total_bytes=settings.max_upload_bytes,
    )
    registry = RegistryServicer(
        store=parts.store,
        ledger=parts.ledger,
        uploads=parts.uploads,
        downloads=Downloads(parts.store, parts.blobs),
        fleet=parts.fleet,
        limits=limits,
        patience_seconds=settings.upload_patience_seconds,
    )
    watch = WatchServicer(parts.routing, EventLog(parts.store, parts.routing))
    _add(server, registry_service_pb2.DESCRIPTOR, registry)
    _add(server, endpoint_service_pb2.DESCRIPTOR, EndpointServicer(parts.store, parts.ledger))
    _add(server, rollout_service_pb2.DESCRIPTOR, RolloutServicer(parts.store, parts.ledger, parts.lookout))
    outcomes = Outcomes(parts.store, parts.lookout.now, parts.look.set)
    _add(server, outcome_service_pb2.DESCRIPTOR, OutcomeServicer(outcomes, parts.splits))
    _add(server, fleet_service_pb2.DESCRIPTOR, FleetServicer(parts.fleet))
    _add(server, watch_service_pb2.DESCRIPTOR, watch)
    server.on_drain(parts.routing.close)
    metrics.register(process.telemetry.registry, parts.routing, parts.fleet, parts.splits)
    return server


def _add(server: Server, file: FileDescriptor, servicer: object) -> None:
    (service,) = file.services_by_name.values()
    server.add_service(service, servicer)


async def _open_store(settings: RegistrySettings) -> Store:
    given = settings.database_url.get_secret_value()
    embedded = URL.create(SQLITE, database=str(settings.data_dir / "registry.db"))
    try:
        url = make_url(given) if given else embedded
        if url.drivername not in (SQLITE, POSTGRESQL):
            raise SettingsRefused(f"{settings.prefix}DATABASE_URL: begin with {POSTGRESQL}:// or {SQLITE}:///")
        return await Store.open(url)
    except (ArgumentError, StoreUnavailable, DatabaseTooNew) as error:
        raise SettingsRefused(f"{settings.prefix}DATABASE_URL: {error}") from error


def _open_blobs(settings: RegistrySettings) -> Blobs:
    if not settings.blob_url:
        return Blobs.in_directory(settings.data_dir / "blobs")
    try:
        return Blobs.at(settings.blob_url)
    except (BaseError, ValueError) as error:
        raise SettingsRefused(f"{settings.prefix}BLOB_URL: {settings.blob_url!r} cannot be used as a store") from error
