"""The workers that the gateway dials: those of the latest snapshot, and those that are still there.

A link outranks the registry's membership: a registry that has just restarted knows no worker yet, and that must not
cost a request. So an address goes only when a snapshot without it came *and* no link to it is up.

A worker that is frozen, or behind a network that swallows everything, keeps its links. Who owes an answer for a while
is therefore asked for a sign of life, which costs a worker that merely computes for long next to nothing.
"""

from __future__ import annotations

import asyncio
import logging

from grpc import StatusCode, aio

from inferway.worker.v1.worker_service_pb2 import GetWorkerStatusRequest, GetWorkerStatusResponse
from inferway_chassis.clock import Clock
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.link import Large, Link, LinkOptions
from inferway_gateway.workers import Worker

_STATUS_SECONDS = 2.0
REACH_SECONDS = 0.02
WATCH_SECONDS = 0.25
OWED_SECONDS = 0.5
"""Who owes an answer for longer is asked for a sign of life."""
SIGN_SECONDS = 1.0
"""Who gives none for so long is silent. With the two above: within 2 s of its last answer."""
STALL_SECONDS = 0.25
"""A sign that was waited for so much longer was missed because this process stood still, not the worker."""
_LOG = logging.getLogger(__name__)


class _Dialled:
    """One worker with everything that leads to it."""

    def __init__(self, worker: Worker, large: Large) -> None:
        self.worker, self.large = worker, large
        self.was_missed = False
        """A link could not be made, or was lost."""
        self.tasks: list[asyncio.Task[None]] = []
        self.links: list[Link] = []


class Fleet:
    """See the module. One for the process; all calls come from its event loop."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, options: LinkOptions) -> None:
        """Dials nobody yet."""
        self._dispatcher, self._clock, self._options = dispatcher, clock, options
        self._dialled: dict[str, _Dialled] = {}
        self._wanted: set[str] = set()
        self._held: frozenset[str] = frozenset()
        self._closing = set[asyncio.Task[None]]()

    def apply(self, addresses: set[str]) -> None:
        """Dials what is new; lets go of what is gone and not connected."""
        self._wanted = addresses
        for address in addresses - self._dialled.keys():
            self._dial(address)
        for address in self._dialled.keys() - addresses:
            self._let_go(address)

    def hold(self, versions: frozenset[str]) -> None:
        """Asks all workers, also those to come, to keep these versions (by name) for streams that go on with them.

        Each call replaces the one before. A worker keeps what it has of them, for a bounded time after nothing routes
        to it; of more than 1,000 it is told the first by name.
        """
        self._held = versions
        for dialled in self._dialled.values():
            for link in dialled.links:
                link.hold(versions)

    async def wait_reached(self) -> None:
        """Returns when every worker that is known has been reached, or could not be."""
        while any(not (each.worker.links_up or each.was_missed) for each in self._dialled.values()):  # noqa: ASYNC110 - once
            await asyncio.sleep(REACH_SECONDS)

    async def statuses(self) -> list[GetWorkerStatusResponse]:
        """What every connected worker says of itself; those that do not answer in time are left out."""
        calls = [
            dialled.large.stub.GetWorkerStatus(GetWorkerStatusRequest(), timeout=_STATUS_SECONDS)
            for dialled in self._dialled.values()
            if dialled.worker.links_up
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, GetWorkerStatusResponse)]

    async def close(self) -> None:
        """Closes every link."""
        self._wanted = set()
        for address in list(self._dialled):
            self._close_soon(address)
        await asyncio.gather(*self._closing)

    def _dial(self, address: str) -> None:
        worker = Worker(address)
        large = Large(address, self._dispatcher, self._clock, self._options.max_message_bytes)
        dialled = self._dialled[address] = _Dialled(worker, large)
        self._dispatcher.workers.append(worker)
        dialled.tasks.append(asyncio.create_task(self._watch(dialled), name=f"watch-{address}"))
        for _ in range(self._options.links_per_worker):
            link = Link(worker, self._dispatcher, self._clock, self._options, large)
            link.hold(self._held)
            dialled.links.append(link)
            task = asyncio.create_task(link.run(lambda: self._missed(address)), name=f"link-{address}")
            dialled.tasks.append(task)

    async def _watch(self, dialled: _Dialled) -> None:
        """Finds out, again and again, whether the worker has fallen silent, and when it speaks again."""
        worker = dialled.worker
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            owed_for = self._clock() - self._dispatcher.oldest_bound_at(worker)
            if owed_for < OWED_SECONDS and not worker.is_silent:
                continue
            gives_sign = await self._gives_sign(dialled)
            if gives_sign is worker.is_silent:
                words = "a worker speaks again" if gives_sign else "a worker fell silent"
                _LOG.warning(words, extra={"worker": worker.name, "address": worker.address})
                (self._dispatcher.spoke_again if gives_sign else self._dispatcher.fell_silent)(worker)

    async def _gives_sign(self, dialled: _Dialled) -> bool:
        """Whether the worker answers anything at all, or nobody can tell."""
        began = self._clock()
        try:
            await dialled.large.stub.GetWorkerStatus(
                GetWorkerStatusRequest(), timeout=SIGN_SECONDS, wait_for_ready=True
            )
        except aio.AioRpcError as error:
            waited = self._clock() - began
            return error.code() is not StatusCode.DEADLINE_EXCEEDED or waited > SIGN_SECONDS + STALL_SECONDS
        return True

    def _missed(self, address: str) -> None:
        if address in self._dialled:
            self._dialled[address].was_missed = True
        self._let_go(address)

    def _let_go(self, address: str) -> None:
        dialled = self._dialled.get(address)
        if dialled is not None and address not in self._wanted and not dialled.worker.links_up:
            self._close_soon(address)

    def _close_soon(self, address: str) -> None:
        dialled = self._dialled.pop(address)
        self._dispatcher.workers.remove(dialled.worker)
        task = asyncio.create_task(_close(dialled), name=f"close-{address}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(dialled: _Dialled) -> None:
    for task in dialled.tasks:
        task.cancel()
    await asyncio.gather(*dialled.tasks, return_exceptions=True)
    await dialled.large.close()
