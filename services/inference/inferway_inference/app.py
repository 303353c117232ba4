"""Composition: builds a worker from its settings, and takes it apart in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from inferway.errors import InferwayError
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway.worker.v1 import worker_service_pb2
from inferway_chassis.process import Process
from inferway_chassis.request_queue import QueueLimits
from inferway_chassis.routing_feed import RoutingFeed, SnapshotRefused
from inferway_chassis.server import Server
from inferway_inference import catalogue
from inferway_inference.artifacts import ArtifactStore
from inferway_inference.convert import LinkLimits
from inferway_inference.health import VersionHealth
from inferway_inference.lifecycle import Lifecycle, LifecycleOptions
from inferway_inference.loader import Loader, LoaderOptions
from inferway_inference.memory import MemoryBudget, MemoryLimits
from inferway_inference.metrics import WorkerMetrics
from inferway_inference.observers import Observers
from inferway_inference.policy import PolicyOptions
from inferway_inference.reporter import Reporter
from inferway_inference.runner.supply import RunnerSupply
from inferway_inference.runtimes.base import Placement
from inferway_inference.scheduler import SchedulerOptions
from inferway_inference.servicer import WorkerServicer
from inferway_inference.settings import InferenceSettings
from inferway_inference.worker import Worker

_MESSAGE_OVERHEAD_BYTES = 1024 * 1024


@asynccontextmanager
async def running(settings: InferenceSettings, process: Process) -> AsyncIterator[Server]:
    """A worker whose server has started; versions follow as the routing feed names them."""
    async with AsyncExitStack() as stack:
        store = ArtifactStore(settings.data_dir / "artifacts", catalogue.RegistryFiles(settings.registry_target))
        memory = MemoryBudget(MemoryLimits(settings.memory_limit_bytes, settings.memory_reserve_bytes))
        supply = RunnerSupply(lambda runtime: settings.spare_processes and memory.has_room_for_spare(runtime))
        stack.push_async_callback(supply.stop)
        lifecycle = _lifecycle(settings, process, Loader(store, supply, memory, _loader_options(settings)), store)
        stack.push_async_callback(lifecycle.stop)
        worker = Worker(settings.identity(process.boot_id), lifecycle)
        server = _server(settings, process, worker)
        await server.start()

        health = asyncio.create_task(VersionHealth(worker, server.health).follow(), name="version health")
        stack.callback(health.cancel)
        lifecycle.start()
        feed = _routing_feed(settings, lifecycle, worker)
        stack.push_async_callback(feed.stop)
        await feed.start()
        reporter = Reporter(settings.registry_target, worker, settings.address_to_dial(server.port))
        stack.push_async_callback(reporter.stop)
        reporter.start()
        yield server


def _loader_options(settings: InferenceSettings) -> LoaderOptions:
    limits = QueueLimits(
        max_items=settings.max_queue_requests, max_bytes=settings.max_queue_bytes, weights=settings.tenant_weights
    )
    return LoaderOptions(
        scheduler=SchedulerOptions(
            max_batch_rows=settings.max_batch_rows,
            max_compute_seconds=settings.max_compute_seconds,
            limits=limits,
        ),
        threads=settings.threads,
        timeout_seconds=settings.load_timeout_seconds,
        warmup_seconds=settings.warmup_seconds,
        placement=Placement(settings.device, settings.gpu_memory_growth, settings.xla),
        runtimes=settings.runtimes,
    )


def _lifecycle(settings: InferenceSettings, process: Process, loader: Loader, store: ArtifactStore) -> Lifecycle:
    policy = PolicyOptions(
        settings.max_parallel_loads,
        settings.max_loaded_versions,
        linger_seconds=settings.unload_delay_seconds,
        hold_seconds=settings.hold_seconds,
    )
    options = LifecycleOptions(policy, max_answer_bytes=settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES)
    observers = Observers(WorkerMetrics(process.telemetry.registry), process.telemetry.tracer)
    return Lifecycle(loader, store, observers, options, process.clock)


def _server(settings: InferenceSettings, process: Process, worker: Worker) -> Server:
    server = Server(settings, process)
    limits = LinkLimits(
        settings.max_link_envelope_bytes,
        settings.default_timeout_seconds,
        settings.drain_seconds + settings.grace_seconds,
    )
    servicer = WorkerServicer(worker, limits, process.clock)
    server.add_service(worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"], servicer)
    server.on_drain(worker.drain)
    return server


def _routing_feed(settings: InferenceSettings, lifecycle: Lifecycle, worker: Worker) -> RoutingFeed:
    def apply(snapshot: RoutingSnapshot) -> None:
        try:
            lifecycle.desire(catalogue.desired(snapshot))
        except (InferwayError, ValueError) as error:
            raise SnapshotRefused(str(error)) from error

    path = settings.data_dir / "routing.pb"
    return RoutingFeed(settings.registry_target, worker.identity.name, path, apply)
