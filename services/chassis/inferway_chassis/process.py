"""The life of a service process: settings, telemetry, run, SIGTERM, drain, stop. One way for all services.

SIGTERM or SIGINT → drain (NOT_SERVING, still serves, `drain_seconds`) → stop (`grace_seconds`) → exit 0
a second signal   → exit at once, status 1
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import uvloop
from prometheus_client import start_http_server

from inferway_chassis.addresses import AddressTaken, SettingsRefused, refuse_open_plaintext, split_address
from inferway_chassis.clock import Clock, monotonic
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.telemetry import Telemetry, configure_logging

_LOG = logging.getLogger(__name__)

GC_THRESHOLDS = (10_000, 20, 20)
"""New objects after which the collector looks at the youngest, and how often at the older ones."""

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Process:
    """What a service knows of the process it lives in."""

    name: str
    boot_id: str
    telemetry: Telemetry
    clock: Clock = monotonic


class Stoppable(Protocol):
    """What a service hands back to be ended."""

    async def drain(self) -> None:
        """Tells everybody; goes on serving."""

    async def stop(self, grace_seconds: float) -> None:
        """Ends."""


Running = Callable[[S, Process], AbstractAsyncContextManager[Stoppable]]
"""Builds a service, yields it started, and takes it apart."""


def main(settings_class: type[S], running: Running[S]) -> int:
    """Entry point of a service; returns the exit status: 0 after a drain, 1 if it could not run, 2 for bad settings."""
    name = settings_class.prefix.removeprefix("INFERWAY_").strip("_").lower()
    parser = argparse.ArgumentParser(
        prog=f"python -m inferway_{name}",
        description=f"Runs inferway's {name}. Settings come from {settings_class.prefix}* in the environment, or from "
        f"the TOML file that {settings_class.prefix}CONFIG_FILE names.",
    )
    parser.add_argument("--print-config", action="store_true", help="show every setting with its value, and exit")
    arguments = parser.parse_args()
    try:
        settings = settings_class.load()
        if arguments.print_config:
            sys.stdout.write(settings.described())
            return 0
        configure_logging(name, settings.log_level, settings.log_format)
        return uvloop.run(_run(name, settings, running))
    except SettingsRefused as error:
        sys.stderr.write(f"inferway {name}: {error}\n")
        return 2
    except AddressTaken as error:
        sys.stderr.write(f"inferway {name}: {error}. Stop it, or choose another address\n")
        return 1


async def _run(name: str, settings: S, running: Running[S]) -> int:
    signalled = _signalled()
    async with observed(name, settings) as process, running(settings, process) as service:
        _spare_collections()
        await signalled.wait()
        _LOG.info("draining", extra={"seconds": settings.drain_seconds})
        await service.drain()
        await asyncio.sleep(settings.drain_seconds)
        await service.stop(settings.grace_seconds)
    return 0


def _spare_collections() -> None:
    """What was built to serve is never garbage, and calls leave few cycles: a fifth of a call's time went into looking.

    Frozen objects are not looked at again, and the others less often; cycles are still collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@asynccontextmanager
async def observed(name: str, settings: ServiceSettings) -> AsyncIterator[Process]:
    """The process with its telemetry and metrics port; raises AddressTaken, SettingsRefused."""
    boot_id = uuid.uuid4().hex
    telemetry = Telemetry(name, boot_id, settings.otlp_endpoint, settings.sampling_ratio)
    stop_metrics = _serve_metrics(settings, telemetry)
    try:
        yield Process(name, boot_id, telemetry)
    finally:
        stop_metrics()
        await asyncio.to_thread(telemetry.close)


def _serve_metrics(settings: ServiceSettings, telemetry: Telemetry) -> Callable[[], None]:
    if not settings.metrics_address:
        return lambda: None
    refuse_open_plaintext(settings.metrics_address, settings)
    host, port = split_address(settings.metrics_address) or ("", 0)
    try:
        server, thread = start_http_server(port, host, telemetry.registry)
    except OSError as error:
        message = f"metrics address {settings.metrics_address} is taken by another process"
        raise AddressTaken(message) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return stop


def _signalled() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process on the spot."""
    event = asyncio.Event()

    def handle() -> None:
        if event.is_set():
            os._exit(1)
        event.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, handle)
    return event
