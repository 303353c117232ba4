"""One gateway's link: which requests it has underway, and what there is to tell it next.

Nothing is sent by a timer. Whatever became known since the last message goes with the next: all answers of a batch
in one frame, and credits for many rows in one grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Self

from inferway.errors import InvalidBatch, InvalidName, StreamProtocolViolated
from inferway.names import parse_version
from inferway_chassis.failpoints import reach
from inferway_inference.credits import CreditPool
from inferway_inference.latency import Speed
from inferway_inference.work import Answer, Request
from inferway_inference.worker import Worker

MAX_ROWS = 1 << 24
"""That a request may claim: credits are counted in rows, and a claim beyond any batch would break their books."""
MAX_HELD_VERSIONS = 1000
"""That one gateway's streams may need."""
QUIET_SECONDS = 0.5
"""A link of a draining worker ends when nothing came for this long: what the gateway had sent before it heard of the
drain has arrived by then."""


NEWS = 0.1
"""A speed is told again when it changed by more than this part."""


@dataclass(frozen=True, slots=True)
class Grant:
    """More room for one version."""

    version: str
    rows: int
    speed: Speed | None
    """What was learned of it; None if that was told before and is about the same."""


@dataclass(slots=True)
class Outgoing:
    """What to tell the gateway, in this order."""

    hello: bool = False
    answers: list[tuple[Request, Answer]] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    drain: bool = False


class LinkSession:
    """See the module. Use as a context manager: leaving it cancels what is underway."""

    def __init__(self, worker: Worker, gateway: str) -> None:
        """The first `take` has the hello and the first credits."""
        self.gateway = gateway
        """The other side's name."""
        self._worker = worker
        self._told: dict[str, float] = {}
        """Rows a second, by version."""
        self._underway: dict[int, Request] = {}
        self._answers: list[tuple[Request, Answer]] = []
        self._pools: dict[str, CreditPool] = {}
        self._hello_due = True
        self._drain_told = False
        self._closing = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._stop_listening = worker.listen(self._worker_changed)

    def __enter__(self) -> Self:
        """Takes part."""
        return self

    def __exit__(self, *_: object) -> None:
        """The link is gone: nobody waits for what is underway, and its credits are void."""
        self._worker.link_lost(self)
        self._stop_listening()
        for request in self._underway.values():
            self._worker.cancel(request)
        for executor in self._worker.ready().values():
            executor.credits.leave(self)

    def submit(self, requests: Iterable[Request]) -> None:
        """Takes a frame of requests in; raises StreamProtocolViolated if an id is underway already."""
        accepted = []
        for request in requests:
            if request.id in self._underway:
                raise StreamProtocolViolated(f"envelope id {request.id} is underway already", expected="a unique id")
            self._underway[request.id] = request
            if 0 <= request.claimed_rows <= MAX_ROWS:
                accepted.append(request)
            else:
                self.reply(request, Answer(error=_bad_claim(request)))
        self._worker.submit(accepted)
        if self._drain_told:
            self._wake.set()  # not quiet

    def cancel(self, ids: Iterable[int]) -> None:
        """Forgets requests; they get no answer."""
        for request_id in ids:
            request = self._underway.pop(request_id, None)
            if request is not None:
                self._worker.cancel(request)
                self._give_back(request)
                self._wake.set()

    def hold(self, versions: Collection[str]) -> None:
        """The gateway's streams need these versions; raises StreamProtocolViolated if too many, or no names."""
        if len(versions) > MAX_HELD_VERSIONS:
            raise StreamProtocolViolated(
                f"{len(versions)} versions to hold are too many", expected=f"at most {MAX_HELD_VERSIONS}"
            )
        try:
            for version in versions:
                parse_version(version, "hold.versions")
        except InvalidName as error:
            raise StreamProtocolViolated(error.message, expected="names of versions") from error
        self._worker.hold(self, frozenset(versions))

    def reply(self, request: Request, answer: Answer) -> None:
        """The `reply` of this link's requests."""
        if self._underway.pop(request.id, None) is not None:
            reach("link.answer")
            self._answers.append((request, answer))
            self._give_back(request)
            self._wake.set()

    def half_close(self) -> None:
        """The gateway sends nothing more."""
        self._closing = True
        self._wake.set()

    @property
    def finished(self) -> bool:
        """Nothing more will come, and everything is answered and told."""
        return self._closing and not self._underway and not self._answers

    async def wait(self) -> None:
        """Returns when there is something to tell, or the link may end."""
        if self._drain_told:
            await self._wait_until_quiet()
        else:
            await self._wake.wait()
        self._wake.clear()

    def take(self) -> Outgoing:
        """What is to be told now; it counts as told."""
        outgoing = Outgoing(hello=self._hello_due, answers=self._answers)
        self._answers = []
        if self._hello_due:
            self._hello_due = False
            self._pools = {name: executor.credits for name, executor in self._worker.ready().items()}
        due = [(version, pool, pool.take_due(self)) for version, pool in self._pools.items()]
        outgoing.grants = [Grant(version, rows, self._news(version, pool)) for version, pool, rows in due if rows]
        self._pools = {}
        if self._worker.draining and not self._drain_told:
            self._drain_told = outgoing.drain = True
        return outgoing

    async def _wait_until_quiet(self) -> None:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            self._closing = not self._underway

    def _give_back(self, request: Request) -> None:
        if request.credits is not None:
            request.credits.finished(self, request.claimed_rows)
            self._pools[request.version] = request.credits

    def _news(self, version: str, pool: CreditPool) -> Speed | None:
        """The version's speed if the gateway does not know it, or knows it wrong."""
        rate, told = pool.speed.rows_per_second, self._told.get(version, 0.0)
        if abs(rate - told) <= NEWS * told:
            return None
        self._told[version] = rate
        return pool.speed

    def _worker_changed(self) -> None:
        self._hello_due = True
        self._wake.set()


def _bad_claim(request: Request) -> InvalidBatch:
    return InvalidBatch.at("rows", f"{request.claimed_rows} is not between 0 and {MAX_ROWS}")
