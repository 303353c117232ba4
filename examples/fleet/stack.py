"""The inferway that the vehicles ask: one that the example starts for itself, or one that runs already.

StartedStack: `inferway up` as a child, and a second gateway if sessions are shared ─► its workers can be killed
JoinedStack: addresses ─► nothing of it can be killed from here
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil

from examples.fleet.model import ROOT, CommandFailed, last_line, tethered
from inferway_cli.console import CommandError
from inferway_cli.data_directory import DataDirectory
from inferway_cli.stack.child import Child
from inferway_cli.stack.log_file import LogFile
from inferway_cli.stack.plan import plan_stack
from inferway_cli.stack.ports import Claim, Ports, address, check_free

OFFSETS = range(1_000, 20_000, 100)
SECOND_GATEWAY = 3
"""Above the port of the first one's gRPC, where nothing else of a stack listens."""
STOP_SECONDS = 12.0
SESSION_STORE = "INFERWAY_GATEWAY_SESSION_STORE"
MEMORY_STORE = "sessions are in the one gateway's memory: start with --redis URL"


class NotPossible(Exception):
    """The key does nothing here; the message says why."""


class Stack(Protocol):
    """What the example needs of an inferway."""

    gateways: list[str]
    """`host:port` of each."""
    registry: str

    def kill_worker(self) -> str:
        """`kill -9`; returns the worker's name. Raises NotPossible."""
        ...

    def end_gateway(self, number: signal.Signals) -> str:
        """SIGKILL or SIGTERM to one gateway after the other; returns its name. Raises NotPossible."""
        ...


class JoinedStack:
    """Somebody else's."""

    def __init__(self, gateways: list[str], registry: str) -> None:
        """They serve already."""
        self.gateways, self.registry = gateways, registry

    def kill_worker(self) -> str:
        """See Stack."""
        raise NotPossible("this stack was not started here; kill a worker of it yourself")

    def end_gateway(self, number: signal.Signals) -> str:
        """See Stack."""
        raise NotPossible(f"this stack was not started here; send {number.name} yourself")


class StartedStack:
    """A stack on free ports and in a directory of its own, for use as `async with`; leaving ends it."""

    def __init__(self, workers: int, redis: str, tell: Callable[[str], None]) -> None:
        """`redis` is the URL of a shared session store, or empty; `tell` gets a line when a process comes back."""
        self._workers, self._redis, self._tell = workers, redis, tell
        self._ports = _free_ports(workers)
        self.gateways = [address(self._ports.grpc)]
        self.registry = address(self._ports.registry)
        self._turn = 0
        self._second: Child | None = None

    async def __aenter__(self) -> Self:
        """Returns when it serves; raises CommandFailed, CommandError."""
        async with AsyncExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferway-fleet-")))
            self._up = await self._start(root)
            stack.push_async_callback(self._stop)
            await self._until_serving()
            following = asyncio.create_task(self._follow())
            stack.callback(following.cancel)
            if self._redis:
                await self._start_second(DataDirectory(root), stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends every process and removes the directory."""
        await self._stack.__aexit__(kind, error, traceback)

    def kill_worker(self) -> str:
        """See Stack. One after the other."""
        workers = sorted(self._children("inferway_inference"), key=_worker_name)
        if not workers:
            raise NotPossible("no worker is alive just now")
        self._turn += 1
        worker = workers[self._turn % len(workers)]
        name = _worker_name(worker)
        worker.kill()
        return name

    def end_gateway(self, number: signal.Signals) -> str:
        """See Stack."""
        if self._second is None:
            raise NotPossible(MEMORY_STORE)
        self._turn += 1
        first = next((child.pid for child in self._children("inferway_gateway")), None)
        name, pid = [("gateway", first), ("gateway-2", self._second.pid)][self._turn % 2]
        if pid is None:
            raise NotPossible(f"{name} is down just now")
        os.kill(pid, number)
        return name

    def _children(self, module: str) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._up.pid).children():
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if module in child.cmdline() and "inferway_cli.stack.tether" not in child.cmdline():
                        yield child

    async def _start(self, root: Path) -> asyncio.subprocess.Process:
        store = {SESSION_STORE: self._redis} if self._redis else {}
        options = ["--workers", str(self._workers), "--port-offset", str(self._ports.grpc - Ports().grpc)]
        return await asyncio.create_subprocess_exec(
            *tethered("inferway_cli", "up", "--no-demo", "--data-dir", str(root), *options),
            cwd=ROOT,
            env={**os.environ, **store},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def _until_serving(self) -> None:
        assert self._up.stdout is not None
        said = b""
        async for line in self._up.stdout:
            said += line
            if line.startswith(b"serving on "):
                return
        raise CommandFailed(f"inferway up: {last_line(said)}")

    async def _follow(self) -> None:
        """Reads on, so that it never waits for a reader, and passes on who is back."""
        assert self._up.stdout is not None
        async for line in self._up.stdout:
            self._tell_back(line.decode(errors="replace").strip())

    async def _stop(self) -> None:
        with suppress(ProcessLookupError):
            self._up.terminate()
        try:
            await asyncio.wait_for(self._up.wait(), STOP_SECONDS)
        except TimeoutError:
            os.killpg(self._up.pid, signal.SIGKILL)  # its children are tethered to it
            await self._up.wait()

    async def _start_second(self, data: DataDirectory, stack: AsyncExitStack) -> None:
        """As `inferway up` runs the first one, but for the ports."""
        first = plan_stack(self._ports, 0, data, "")[-1]
        target = address(self._ports.grpc + SECOND_GATEWAY)
        own = {
            "INFERWAY_GATEWAY_GRPC_ADDRESS": target,
            "INFERWAY_GATEWAY_HTTP_ADDRESS": "",
            "INFERWAY_GATEWAY_METRICS_ADDRESS": "",
            "INFERWAY_GATEWAY_DATA_DIR": str(data.of("gateway-2")),
            SESSION_STORE: self._redis,
        }
        plan = replace(first, name="gateway-2", target=target, environment={**first.environment, **own})
        log = LogFile(data.logs / "gateway-2.log")
        stack.callback(log.close)
        self._second = Child(plan, log, self._tell_back)
        await self._second.start()
        stack.push_async_callback(self._second.stop, STOP_SECONDS)
        await self._second.until_serving()
        supervising = asyncio.create_task(self._second.supervise())
        stack.callback(supervising.cancel)
        self.gateways.append(target)

    def _tell_back(self, line: str) -> None:
        name, _, happened = line.partition(" ")
        if happened == "serves again":
            self._tell(f"{name} is back")


def _worker_name(worker: psutil.Process) -> str:
    return worker.environ().get("INFERWAY_INFERENCE_WORKER", f"worker {worker.pid}")


def _free_ports(workers: int) -> Ports:
    """Anywhere; beside the usual ports, which may be somebody's."""
    for offset in random.sample(OFFSETS, len(OFFSETS)):
        ports = Ports().shifted(offset)
        second = Claim(ports.grpc + SECOND_GATEWAY, "second gateway", "")
        with suppress(CommandError):
            check_free([*ports.claims(workers), second])
            return ports
    raise CommandFailed("no free ports for a stack")
