"""Fuzz targets: the two ends of a link, played by a list of events. Each pair of bytes is one event: which, and what.

Whatever the order, every request ends exactly once and nothing stays behind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from inferway.errors import NoWorker, StreamProtocolViolated, VersionNotReady
from inferway_inference.credits import CreditPool
from inferway_inference.latency import Speed
from inferway_inference.link import LinkSession
from inferway_inference.work import Answer, Request
from tests.unit.gateway.bench import V1
from tests.unit.gateway.builders import FakeAnswer
from tests.unit.gateway.test_dispatch_stories import ACTIONS, Story

MOST_EVENTS = 120


class RoughStory(Story):
    """What no worker should do, too."""

    def answer_stray(self, number: int) -> None:
        """An answer to nothing, or a second one."""
        for lane in self.lanes[number % 4 : number % 4 + 1]:
            self.bench.dispatcher.answered(lane, number, FakeAnswer())  # type: ignore[arg-type]

    def refuse(self, number: int) -> None:
        """A worker that does not have the version, after all."""
        for flight in self._bound()[number : number + 1]:
            self.bench.fail(flight, VersionNotReady("not here", model="echo", version=1))

    def refuse_all(self, number: int) -> None:
        for flight in self._bound():
            self.bench.fail(flight, NoWorker("going"))

    def grant(self, number: int) -> None:
        """Credits, and their opposite."""
        for lane in self.lanes[number % 4 : number % 4 + 1]:
            self.bench.dispatcher.grant(lane, V1, number - 8)

    def drain(self, number: int) -> None:
        for lane in self.lanes[number : number + 1]:
            lane.draining = True
            self.bench.dispatcher.set_ready(lane, ())

    def wait(self, number: int) -> None:
        self.bench.now += number / 1000


ROUGH = (
    RoughStory.answer_stray,
    RoughStory.refuse,
    RoughStory.refuse_all,
    RoughStory.grant,
    RoughStory.drain,
    RoughStory.wait,
)
GATEWAY_EVENTS: Sequence[Callable[..., None]] = (*ACTIONS, *ROUGH)


def gateway_end(data: bytes) -> None:
    """The dispatcher and its lanes."""
    _loop().run_until_complete(_gateway_end(data))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all inputs: making one takes longer than most of them."""
    return asyncio.new_event_loop()


async def _gateway_end(data: bytes) -> None:
    story = RoughStory()
    for event, number in _events(data):
        GATEWAY_EVENTS[event % len(GATEWAY_EVENTS)](story, number)
    story.end()

    assert all(flight.result.done() for flight in story.flights)
    assert sum(story.bench.codes().values()) == len(story.flights) + story.refused
    assert all((len(one), one.rows, one.worker.rows, one.worker.large_calls) == (0, 0, 0, 0) for one in story.lanes)
    assert all(len(pool.queue) == 0 for _, pool in story.bench.dispatcher.pools())
    for flight in story.flights:
        if not flight.result.cancelled():
            flight.result.exception()


class FakeWorker:
    """Takes what a session hands it, and answers when told."""

    def __init__(self) -> None:
        self.draining = False
        self.held: list[Request] = []
        self.cancelled: list[Request] = []
        self.changed: Callable[[], None] = lambda: None
        self.credits = CreditPool(16)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.changed = changed
        return lambda: None

    def submit(self, requests: list[Request]) -> None:
        for request in requests:
            request.credits = self.credits
        self.held += requests

    def cancel(self, request: Request) -> None:
        """As the real one: what is not held any more was answered."""
        if request in self.held:
            self.held.remove(request)
            self.cancelled.append(request)

    def link_lost(self, link: LinkSession) -> None:
        """Nothing was held for it."""

    def ready(self) -> dict[str, FakeExecutor]:
        return {V1: FakeExecutor(self.credits)}


class FakeExecutor:
    """As much of an executor as a session looks at."""

    def __init__(self, credits: CreditPool) -> None:  # noqa: A002 - the name it has in the worker
        self.credits = credits


class SessionStory:
    """A worker's end of a link to which anything may happen."""

    def __init__(self) -> None:
        self.worker = FakeWorker()
        self.session = LinkSession(self.worker, "gateway/fuzz")  # type: ignore[arg-type]
        self.told = Counter[int]()
        self.accepted: list[Request] = []
        self.drains = 0

    def submit(self, number: int) -> None:
        request = _request(number, self.session.reply)
        underway = {one.id for one in self.worker.held}
        try:
            self.session.submit([request])
        except StreamProtocolViolated:
            assert number in underway
        else:
            assert number not in underway
            self.accepted.append(request)

    def cancel(self, number: int) -> None:
        self.session.cancel([number])

    def answer(self, number: int) -> None:
        for request in self.worker.held[number : number + 1]:
            self.worker.held.remove(request)
            self.session.reply(request, Answer())

    def change(self, number: int) -> None:
        del number
        self.worker.changed()

    def drain(self, number: int) -> None:
        self.worker.draining = True
        self.change(number)

    def resize(self, number: int) -> None:
        self.worker.credits.resize(number, Speed(float(number), 1.0, 1.0))

    def half_close(self, number: int) -> None:
        del number
        self.session.half_close()

    def tell(self, number: int) -> None:
        """What the writer of the link does."""
        del number
        outgoing = self.session.take()
        self.told.update(id(request) for request, _ in outgoing.answers)
        assert all(grant.rows > 0 for grant in outgoing.grants)
        self.drains += outgoing.drain


SESSION_EVENTS: Sequence[Callable[[SessionStory, int], None]] = (
    SessionStory.submit,
    SessionStory.cancel,
    SessionStory.answer,
    SessionStory.change,
    SessionStory.drain,
    SessionStory.resize,
    SessionStory.half_close,
    SessionStory.tell,
)


def worker_end(data: bytes) -> None:
    """A link session of a worker."""
    story = SessionStory()
    with story.session:
        for event, number in _events(data):
            SESSION_EVENTS[event % len(SESSION_EVENTS)](story, number)
        for request in list(story.worker.held):
            story.worker.held.remove(request)
            story.session.reply(request, Answer())
        story.session.half_close()
        story.tell(0)
        assert story.session.finished
    assert max(story.told.values(), default=1) == 1
    gone = {id(request) for request in story.worker.cancelled}
    assert all((story.told[id(request)] == 1) is (id(request) not in gone) for request in story.accepted)
    assert story.drains <= 1


def _request(number: int, reply: Callable[[Request, Answer], None]) -> Request:
    return Request(number, V1, "serving_default", [], (), 1 + number % 3, 0.0, 10.0, reply)


def _events(data: bytes) -> Sequence[tuple[int, int]]:
    return list(zip(data[0::2], data[1::2], strict=False))[:MOST_EVENTS]
