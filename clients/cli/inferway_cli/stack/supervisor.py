"""Starts the processes of a stack in order, keeps them running, ends them in the reverse order of traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from inferway_cli.progress import Steps
from inferway_cli.stack.child import Child
from inferway_cli.stack.log_file import LogFile
from inferway_cli.stack.plan import ProcessPlan

STOP_SECONDS = 7.5
"""For all together; what is left goes to those that are ended later."""
GATEWAY_STOP_SECONDS = 2.5
WORKERS_STOP_SECONDS = 3.5


class Supervisor:
    """Children of `inferway up`, for use as `async with`; leaving ends them all, within eight seconds."""

    def __init__(self, plans: Sequence[ProcessPlan], logs: Path, tell: Callable[[str], None]) -> None:
        """`plans` begin with the registry and end with the gateway."""
        self._files = ExitStack()
        self._children = [Child(plan, self._log(logs, plan), tell) for plan in plans]
        self._watching = AsyncExitStack()

    @property
    def children(self) -> Sequence[Child]:
        """All of them, in the order of their start."""
        return self._children

    async def __aenter__(self) -> Self:
        """Nothing runs yet; see `start`."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends gateway, workers, registry, each group within its time."""
        registry, *workers, gateway = self._children
        clock = asyncio.get_running_loop().time
        deadline = clock() + STOP_SECONDS
        await self._watching.aclose()
        await gateway.stop(GATEWAY_STOP_SECONDS)
        await asyncio.gather(*(worker.stop(WORKERS_STOP_SECONDS) for worker in workers))
        await registry.stop(deadline - clock())
        self._files.close()

    async def start(self, steps: Steps) -> None:
        """Starts everything and waits until it serves; from then on restarts what dies. Raises CommandError."""
        registry, *others = self._children
        for child in self._children:
            await child.start()
        for child in (registry, *reversed(others)):
            with steps.step(child.plan.name) as step:
                await child.until_serving()
                step.detail = child.plan.target
        for child in self._children:
            self._watching.push_async_callback(_cancel, asyncio.create_task(child.supervise()))

    def _log(self, logs: Path, plan: ProcessPlan) -> LogFile:
        log = LogFile(logs / f"{plan.name}.log")
        self._files.callback(log.close)
        return log


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
