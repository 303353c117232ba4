"""Waits until workers have versions ready, and says meanwhile how far they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from inferway import names
from inferway.errors import VersionLoadFailed
from inferway.registry.v1 import resources_pb2
from inferway.status import from_status
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.apply.repeating import answered
from inferway_cli.console import CommandError
from inferway_cli.readiness import until_ready
from inferway_cli.registry import Registry
from inferway_cli.views import bare, load_state

POLL_SECONDS = 0.2
Version = resources_pb2.ModelVersion


async def until_loaded(
    registry: Registry, versions: Iterable[str], timeout_seconds: float, tell: Callable[[str], None]
) -> None:
    """Returns when a worker has each of the versions ready, or it is unloaded. Something must name them all.

    Raises VersionLoadFailed when every worker that tried one has failed, CommandError when the time is over.
    """
    waiting = ""
    try:
        async with asyncio.timeout(timeout_seconds):
            for waiting in versions:
                while not _is_settled(version := await _read(registry, waiting)):
                    states = [f"{bare(entry.worker)} {load_state(entry.status)}" for entry in version.workers]
                    tell(", ".join(states) or "no worker has taken it yet")
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"{waiting} is not ready after {timeout_seconds:g} s; `inferway status` shows the workers"
        ) from None


async def until_followed(
    registry: Registry, versions: Iterable[str], timeout_seconds: float, tell: Callable[[str], None]
) -> None:
    """Returns when the automatic endpoints that are to move to one of the versions have moved; raises the same."""
    for name in versions:
        model, _ = names.parse_version(name)
        endpoint = await registry.endpoint(model)
        if endpoint.automatic and endpoint.next_version == name:
            await until_ready(registry, name, timeout_seconds, tell)


async def _read(registry: Registry, name: str) -> Version:
    return await answered(lambda _: registry.version(name))


def _is_settled(version: Version) -> bool:
    """Raises VersionLoadFailed."""
    entries = version.workers
    if any(entry.status.state == worker_service_pb2.LOAD_STATE_READY for entry in entries):
        return True
    failed = [entry for entry in entries if entry.status.state == worker_service_pb2.LOAD_STATE_FAILED]
    if failed and len(failed) == len(entries):
        cause = from_status(failed[0].status.error).message
        raise VersionLoadFailed(f"{bare(failed[0].worker)} could not load {version.name}: {cause}")
    return version.state == Version.STATE_UNLOADED
