"""Waits until a published version answers or is overtaken, and says meanwhile how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferway.errors import VersionLoadFailed
from inferway.registry.v1 import resources_pb2
from inferway.status import from_status
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.console import CommandError
from inferway_cli.registry import Registry
from inferway_cli.views import bare, load_state

POLL_SECONDS = 0.2


async def until_ready(registry: Registry, name: str, timeout_seconds: float, tell: Callable[[str], None]) -> int | None:
    """Returns None when a worker has the version ready and its endpoint has moved to it.

    Returns at once the number of a version that was published after it and takes the traffic instead. Raises
    VersionLoadFailed with the cause when every worker that tried has failed, CommandError when the time is over.
    `tell` gets a line whenever something changed.
    """
    told = ""
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                version = await registry.version(name)
                endpoint = await registry.endpoint(name.split("/")[1])
                if (newer := _overtaken_by(endpoint, version)) is not None:
                    return newer
                if _is_ready(version) and endpoint.next_version != name:
                    return None
                _raise_if_failed(version)
                told = _tell_change(version, told, tell)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"{name} is not ready after {timeout_seconds:g} s ({told}); `inferway status` shows the workers"
        ) from None


def _is_ready(version: resources_pb2.ModelVersion) -> bool:
    return any(entry.status.state == worker_service_pb2.LOAD_STATE_READY for entry in version.workers)


def _overtaken_by(endpoint: resources_pb2.Endpoint, version: resources_pb2.ModelVersion) -> int | None:
    named = [arm.version for arm in endpoint.arms] + [endpoint.next_version] * bool(endpoint.next_version)
    if not endpoint.automatic or version.name in named:
        return None
    newest = max((int(name.rpartition("/")[2]) for name in named), default=0)
    return newest if newest > version.version else None


def _raise_if_failed(version: resources_pb2.ModelVersion) -> None:
    failed = [entry for entry in version.workers if entry.status.state == worker_service_pb2.LOAD_STATE_FAILED]
    if failed and len(failed) == len(version.workers):
        cause = from_status(failed[0].status.error).message
        raise VersionLoadFailed(f"{bare(failed[0].worker)} could not load {version.name}: {cause}")


def _tell_change(version: resources_pb2.ModelVersion, told: str, tell: Callable[[str], None]) -> str:
    states = ", ".join(f"{bare(entry.worker)} {load_state(entry.status)}" for entry in version.workers)
    now = states or "no worker has taken it yet"
    if now != told:
        tell(now)
    return now
