"""Where a version gets its place to compute: a process of its own, one shared with others, or none at all.

A process that has imported a framework in advance makes the next load of that framework fast. There is at most one
such spare for each runtime, started after the first version of the runtime was loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from inferway.errors import VersionLoadFailed
from inferway_inference.runner.base import Runner
from inferway_inference.runner.host import RunnerHost
from inferway_inference.runner.inline import InlineRunner
from inferway_inference.runner.process import RunnerProcess

_LOG = logging.getLogger(__name__)

GROUP_VERSIONS = 16
"""Versions in one process at most."""
_GROUP_SLOTS = 3 * GROUP_VERSIONS
"""One call of each version computes and another waits; a version being loaded has two copies."""


class RunnerSupply:
    """Of one worker."""

    def __init__(self, spare_permitted: Callable[[str], bool] = lambda _: False) -> None:
        """`spare_permitted` says of a runtime whether a spare process of it may be started now."""
        self._spare_permitted = spare_permitted
        self._spares: dict[str, RunnerHost] = {}
        self._groups: dict[str, list[RunnerHost]] = {}
        self._grouping = asyncio.Lock()
        self._starting = set[asyncio.Task[None]]()
        self._stopped = False

    async def runner(self, name: str, runtime: str, isolation: str) -> Runner:
        """An empty runner; raises VersionLoadFailed if no process can be started."""
        try:
            if isolation == "inline":
                return InlineRunner(name)
            if isolation == "group":
                return await self._in_group(name, runtime)
            return RunnerProcess(name, await self._alone(name, runtime))
        except OSError as error:
            message = "the worker could not start a process for the version"
            raise VersionLoadFailed(message, cause="no process") from error

    def loaded(self, runtime: str) -> None:
        """A version of this runtime was loaded into a process of its own: more are likely to follow."""
        if runtime not in self._spares and not self._stopped and self._spare_permitted(runtime):
            task = asyncio.create_task(self._start_spare(runtime), name=f"spare {runtime}")
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def stop(self) -> None:
        """Ends the spares; runners end with their versions."""
        self._stopped = True
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(host.stop(by_force=True) for host in self._spares.values()))
        self._spares.clear()

    async def _alone(self, name: str, runtime: str) -> RunnerHost:
        spare = self._spares.pop(runtime, None)
        if spare is not None and spare.usable:
            spare.name = name
            return spare
        return await RunnerHost.start(name)

    async def _in_group(self, name: str, runtime: str) -> RunnerProcess:
        async with self._grouping:
            hosts = [host for host in self._groups.get(runtime, []) if host.usable]
            host = next((host for host in hosts if len(host.tenants) < GROUP_VERSIONS), None)
            if host is None:
                host = await RunnerHost.start(f"a group of {runtime} versions", _GROUP_SLOTS)
                hosts.append(host)
            self._groups[runtime] = hosts
            return RunnerProcess(name, host)

    async def _start_spare(self, runtime: str) -> None:
        try:
            host = await RunnerHost.start(f"spare {runtime}")
        except OSError as error:
            _LOG.warning("a spare process could not be started", extra={"runtime": runtime, "cause": str(error)})
            return
        if self._stopped or runtime in self._spares:
            await host.stop(by_force=True)
            return
        host.prepare(runtime)
        self._spares[runtime] = host
