"""Several gateway processes on one port: started, started again when they die, and seen as one.

The kernel spreads connections among them (SO_REUSEPORT), so one connection is served by one process. Each has links of
its own to every worker, and its share of the bounds; workers grant credits to them as to any other gateways.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from inferway_chassis.addresses import AddressTaken, refuse_open_plaintext, split_address
from inferway_chassis.process import Process, Stoppable
from inferway_gateway.app import running
from inferway_gateway.member import HEADER, READY
from inferway_gateway.settings import GatewaySettings

_LOG = logging.getLogger(__name__)

START_SECONDS = 60.0
RESTART_SECONDS = (0.2, 10.0)
"""First and longest wait before a process that died is started again."""
SCRAPE_SECONDS = 2.0
KILL_SECONDS = 2.0
"""Beyond the grace that a process gives to requests, before it is killed."""
SHARED = ("queue_max_requests", "queue_max_rows", "queue_max_bytes", "memory_limit_bytes", "max_streams")
"""Bounds of the gateway as a whole, of which each process gets its share."""


@asynccontextmanager
async def running_all(settings: GatewaySettings, process: Process) -> AsyncIterator[Stoppable]:
    """A started gateway of as many processes as `settings` says. Raises AddressTaken, SettingsRefused."""
    if settings.processes == 1:
        async with running(settings, process) as server:
            yield server
        return
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in ("grpc_address", "http_address"):
            if address := getattr(settings, name):
                refuse_open_plaintext(address, settings)
                addresses[name] = stack.enter_context(reserved(address, shared=settings.share_port))
        members = [Member(n, _environment(settings, n, addresses), settings) for n in range(settings.processes)]
        process.telemetry.stop_exporting_metrics()  # every member exports its own
        process.telemetry.registry.register(MembersMetrics(members))
        group = Members(members)
        stack.push_async_callback(group.stop, 0.0)
        await group.start()
        _LOG.info("listening", extra={"address": addresses["grpc_address"], "processes": len(members)})
        yield group


class Member:
    """One process."""

    def __init__(self, number: int, environment: Mapping[str, str], settings: GatewaySettings) -> None:
        """Not started."""
        self.number = number
        self._environment, self._grace_seconds = environment, settings.drain_seconds + settings.grace_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        """Set while the process listens."""
        self._question, self._unread = 0, bytearray()
        self._asking = threading.Lock()
        self._told_to_end = False

    async def start(self) -> None:
        """Returns when it listens; raises AddressTaken if it does not come to that."""
        self._socket, self._told_to_end, self._unread = None, False, bytearray()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "inferway_gateway.member",
                stdin=theirs.fileno(),
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the parent, which tells the others
            )
        ours.settimeout(START_SECONDS)
        try:
            said = await asyncio.to_thread(_received, ours)
            assert said == READY
        except OSError as error:
            ours.close()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise AddressTaken("a gateway process ended before it listened; its log says why") from error
        ours.settimeout(SCRAPE_SECONDS)
        self._socket = ours

    async def ended(self) -> int:
        """Its exit status, when it has one."""
        assert self._process is not None
        status = await self._process.wait()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return status

    def terminate(self) -> None:
        """Asks it to drain and end. Once only: a second signal would end it at once."""
        if self._process is not None and self._process.returncode is None and not self._told_to_end:
            self._told_to_end = True
            self._process.send_signal(signal.SIGTERM)

    async def stopped(self) -> None:
        """Returns when it has ended; kills it if it takes longer than its settings permit."""
        self.terminate()
        if self._process is None:
            return
        try:
            async with asyncio.timeout(self._grace_seconds + KILL_SECONDS):
                await self.ended()
        except TimeoutError:
            self._process.kill()
            await self.ended()

    def metrics(self) -> str:
        """What it would show on a metrics port of its own; empty if it does not answer."""
        with self._asking:
            source = self._socket
            if source is None:
                return ""
            self._question = (self._question + 1) % 256
            try:
                source.sendall(bytes([self._question]))
                while True:
                    number, text = self._next_answer(source)
                    if number == self._question:  # else it is late, for somebody who has given up
                        return text.decode()
            except OSError:
                return ""

    def _next_answer(self, source: socket.socket) -> tuple[int, bytes]:
        """Number and text. What came of it before a timeout is kept for the next time."""
        while True:
            if len(self._unread) >= HEADER.size:
                number, length = HEADER.unpack_from(self._unread)
                end = HEADER.size + length
                if len(self._unread) >= end:
                    text = bytes(self._unread[HEADER.size : end])
                    del self._unread[:end]
                    return number, text
            self._unread += _received(source)


class Members:
    """All processes of one gateway, each started again when it dies."""

    def __init__(self, members: list[Member]) -> None:
        """None is started."""
        self._members = members
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when all listen."""
        await asyncio.gather(*(member.start() for member in self._members))
        self._keepers = [asyncio.create_task(_keep(member), name="member") for member in self._members]

    async def drain(self) -> None:
        """They tell everybody themselves, and end."""
        await self._release()
        for member in self._members:
            member.terminate()

    async def stop(self, grace_seconds: float) -> None:
        """Returns when all have ended; each has the grace of its own settings."""
        del grace_seconds
        await self._release()
        await asyncio.gather(*(member.stopped() for member in self._members))

    async def _release(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []


async def _keep(member: Member) -> None:
    delay = RESTART_SECONDS[0]
    while True:
        status = await member.ended()
        _LOG.error("a gateway process ended and is started again", extra={"member": member.number, "status": status})
        await asyncio.sleep(delay)
        delay = min(delay * 2, RESTART_SECONDS[1])
        with contextlib.suppress(AddressTaken, OSError):
            await member.start()
            delay = RESTART_SECONDS[0]


class MembersMetrics(Collector):
    """The metrics of all processes, each sample with the label `process`."""

    def __init__(self, members: list[Member]) -> None:
        """Asks `members` at every scrape."""
        self._members = members

    def describe(self) -> list[Metric]:
        """Nothing is known before there are processes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family once."""
        families: dict[str, Metric] = {}
        for member in self._members:
            for family in text_string_to_metric_families(member.metrics()):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = {**sample.labels, "process": str(member.number)}
                    merged.samples.append(sample._replace(labels=labels))
        yield from families.values()


@contextlib.contextmanager
def reserved(address: str, *, shared: bool) -> Iterator[str]:
    """Keeps `address` for processes that share it, and yields it with its port. Raises AddressTaken.

    Unless it is `shared` with others anyway, nobody else may listen there: the kernel would not say so.
    """
    host, port = split_address(address) or ("", 0)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, socket.socket(family) as keeper:
        try:
            if not shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.close()
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            keeper.bind((host, port))
        except OSError as error:
            message = f"{address} is taken by another process, or is no address of this machine"
            raise AddressTaken(message) from error
        yield f"{address.rpartition(':')[0]}:{keeper.getsockname()[1]}"


def _environment(settings: GatewaySettings, number: int, addresses: Mapping[str, str]) -> dict[str, str]:
    def share(total: int) -> int:
        return -(-total // settings.processes)

    own = {name: share(getattr(settings, name)) for name in SHARED}
    held = max(share(settings.max_held_bytes), min(settings.max_held_bytes, settings.max_message_bytes))
    values = {
        **own,
        **addresses,
        "max_held_bytes": held,
        "metrics_address": "",
        "processes": 1,
        "share_port": "true",
        "data_dir": settings.data_dir / f"process-{number}",
    }
    return {**os.environ, **{f"{settings.prefix}{name.upper()}": str(value) for name, value in values.items()}}


def _received(source: socket.socket) -> bytes:
    """What there is, and at least one byte; raises OSError if nothing comes."""
    data = source.recv(65536)
    if not data:
        raise ConnectionResetError("the other end is gone")
    return data
