"""Composition root: builds a gateway from its settings, and takes it apart in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata
from typing import Any

from inferway.foreign.inference import grpc_service_pb2
from inferway.prediction.v1 import prediction_service_pb2
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway_chassis.addresses import refuse_open_plaintext
from inferway_chassis.memory_figures import give_back_memory, used_share
from inferway_chassis.memory_gate import MemoryGate
from inferway_chassis.memory_metrics import MemoryMetrics
from inferway_chassis.process import Process
from inferway_chassis.request_queue import QueueLimits
from inferway_chassis.routing_feed import RoutingFeed, SnapshotRefused
from inferway_chassis.server import Server
from inferway_chassis.telemetry import LATENCY_BUCKETS_SECONDS
from inferway_gateway.convert import to_addresses, to_table
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.http import application, serving_http
from inferway_gateway.doors.oip import PUBLIC_NAME, OipServicer
from inferway_gateway.doors.prediction import PredictionServicer
from inferway_gateway.doors.stream_opening import StreamLimits
from inferway_gateway.fleet import Fleet
from inferway_gateway.health import HealthReporter
from inferway_gateway.link import LinkOptions
from inferway_gateway.metrics import GatewayMetrics
from inferway_gateway.models import Models
from inferway_gateway.outcomes import Outcomes
from inferway_gateway.predictor import Predictor, PredictorOptions
from inferway_gateway.rollouts.copier import Copier
from inferway_gateway.rollouts.metrics import RolloutMetrics
from inferway_gateway.rollouts.mirror import Mirrors
from inferway_gateway.rollouts.reporter import Reporter
from inferway_gateway.rollouts.rollouts import Rollouts
from inferway_gateway.routing import TableRefused, Version
from inferway_gateway.sessions.sequences import SequenceLimits, Sequences
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.stores import open_store
from inferway_gateway.settings import GatewaySettings
from inferway_gateway.steering import Routing
from inferway_gateway.stream_route import Pins

_LOG = logging.getLogger(__name__)

PREPARE_SECONDS = 5.0


class Gateway:
    """The parts that do not listen: everything between the doors and the workers."""

    def __init__(self, settings: GatewaySettings, process: Process) -> None:
        """Builds the parts; nothing is dialled before a snapshot comes."""
        watcher = f"gateway/{process.boot_id[:8]}"
        limits = QueueLimits(
            settings.queue_max_requests, settings.queue_max_rows, settings.queue_max_bytes, settings.tenant_weights
        )
        outcomes = Outcomes(LATENCY_BUCKETS_SECONDS)
        self.dispatcher = Dispatcher(asyncio.get_running_loop(), process.clock, limits, outcomes)
        self.fleet = Fleet(
            self.dispatcher,
            process.clock,
            LinkOptions(watcher, settings.max_message_bytes, settings.links_per_worker),
        )
        self.routing = Routing(Pins(self.fleet.hold))
        self.models = Models(self.routing, self.dispatcher)
        used = used_share(settings.memory_limit_bytes)
        memory = MemoryGate(settings.max_held_bytes, used, process.clock, give_back_memory)
        options = PredictorOptions(process.boot_id, settings.max_message_bytes)
        self.predictor = Predictor(
            self.routing, self.dispatcher, memory, process.clock, process.telemetry.tracer, options
        )
        copier = Copier(asyncio.get_running_loop(), process.clock, self.dispatcher.submit, memory.admit)
        is_away = self.dispatcher.is_away
        self.rollouts = Rollouts(
            self.routing.brake, lambda salt: Mirrors(salt, self._version, copier, is_away), is_away
        )
        self.predictor.observe = self.rollouts.observe
        self.reporter = Reporter(settings.registry_target, process.boot_id, self.rollouts)
        self.rollouts.on_news = self.reporter.wake
        store = open_store(settings.session_store.get_secret_value(), settings.max_sessions, process.clock)
        alone = settings.processes == 1 and not settings.share_port
        self.sessions = Sessions(
            store,
            settings.session_grace_seconds,
            resumable=store.shared or alone,
            max_waiting_bytes=settings.max_held_bytes,
        )
        sequence_limits = SequenceLimits(settings.max_sequences, settings.sequence_idle_seconds)
        self.sequences = Sequences(self.predictor, self.sessions, sequence_limits)
        self.feed = RoutingFeed(
            settings.registry_target, watcher, settings.data_dir / "routing.pb", self.apply, process.clock
        )
        process.telemetry.registry.register(GatewayMetrics(outcomes, self.dispatcher, self.feed))
        process.telemetry.registry.register(MemoryMetrics(memory))
        process.telemetry.registry.register(RolloutMetrics(self.rollouts, self.reporter))

    def apply(self, snapshot: RoutingSnapshot) -> None:
        """Acts on a snapshot from now on; raises SnapshotRefused and changes nothing if it contradicts itself."""
        try:
            table = to_table(snapshot)
        except TableRefused as refused:
            raise SnapshotRefused(str(refused)) from refused
        self.routing.swap(table)
        self.rollouts.apply(table)
        self.dispatcher.apply(table)
        self.fleet.apply(to_addresses(snapshot))
        self.dispatcher.on_change()

    def _version(self, name: str) -> Version | None:
        """As it is now."""
        return self.routing.table.versions.get(name)


@asynccontextmanager
async def running(settings: GatewaySettings, process: Process) -> AsyncIterator[Server]:
    """A started gateway."""
    gateway = Gateway(settings, process)
    server = Server(settings, process, settings.transport, share_port=settings.share_port)
    prediction = _open_doors(server, gateway, settings)
    reporter = HealthReporter(gateway.models, server.health)
    gateway.dispatcher.on_change = reporter.nudge
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.fleet.close)
        stack.push_async_callback(gateway.sessions.close)
        stack.push_async_callback(gateway.sequences.close)
        stack.push_async_callback(gateway.feed.stop)
        await gateway.feed.start()
        if settings.share_port:
            await _prepare(gateway)
        await server.start()
        await stack.enter_async_context(_background(reporter.run(), "health"))
        await stack.enter_async_context(_background(prediction.watch(), "streams"))
        await stack.enter_async_context(_background(gateway.sessions.run(), "sessions"))
        await stack.enter_async_context(_background(gateway.sequences.run(), "sequences"))
        await stack.enter_async_context(_background(gateway.reporter.run(), "reporter"))
        if settings.http_address:
            refuse_open_plaintext(settings.http_address, settings)
            about = {"name": "inferway gateway", "version": _version(), "grpc": settings.grpc_address}
            app = application(lambda: gateway.models.synchronised, about)
            await stack.enter_async_context(serving_http(settings.http_address, app, share_port=settings.share_port))
        yield server


async def _prepare(gateway: Gateway) -> None:
    """Returns when `gateway` can answer, or cannot soon: who shares a port gets calls as soon as it listens."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            await gateway.feed.wait_synchronised()
            await gateway.fleet.wait_reached()
    except TimeoutError:
        _LOG.warning("listening before all workers were reached")


def _open_doors(server: Server, gateway: Gateway, settings: GatewaySettings) -> PredictionServicer:
    """Adds the services; returns the one whose streams want to be watched."""
    time_limits = TimeLimits(settings.default_timeout_seconds, settings.max_timeout_seconds)
    oip = OipServicer(gateway.predictor, gateway.sequences, gateway.models, gateway.fleet, time_limits, _version())
    inference_service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    server.add_service(inference_service, oip, public_name=PUBLIC_NAME)
    prediction = PredictionServicer(gateway.predictor, gateway.sessions, time_limits, _stream_limits(settings))
    server.add_service(prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"], prediction)
    server.on_drain(prediction.drain)
    return prediction


def _stream_limits(settings: GatewaySettings) -> StreamLimits:
    return StreamLimits(
        max_streams=settings.max_streams,
        max_in_flight=settings.max_stream_in_flight,
        drain_seconds=settings.grace_seconds,
        heartbeat_seconds=settings.stream_heartbeat_seconds,
        idle_seconds=settings.stream_idle_seconds,
        max_age_seconds=settings.stream_max_age_seconds,
    )


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _version() -> str:
    try:
        return metadata.version("inferway")
    except metadata.PackageNotFoundError:
        return "unpackaged"
