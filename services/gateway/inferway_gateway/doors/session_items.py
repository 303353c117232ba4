"""The inside of a stream that carries a session: items are applied one after the other, each to the state before it.

    reader ─► driver ─► results ─► commit ─► client

A result leaves only after the store has it together with the state that it left, so that a client that was answered
can rely on it, whatever dies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from inferway.errors import InferwayError, SessionTakenOver
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_gateway.doors.results import Entry, Result, Results
from inferway_gateway.doors.stream_items import Key, StreamOptions, Window, ask_of, encoded, too_many
from inferway_gateway.envelope import Ask, Prediction
from inferway_gateway.predictor import Predictor
from inferway_gateway.sessions.driver import SessionDriver
from inferway_gateway.sessions.session import Item, Session
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.store import Kept, SessionRecord
from inferway_gateway.stream_route import StreamRoute

MAX_HELD_BYTES = 4 << 20
"""While its client may lack more than this, a session computes nothing: its results are kept, and written with each
commit."""


class Carried(NamedTuple):
    """A session as its stream gets it."""

    record: SessionRecord
    token: str
    """Empty if it ends with the stream."""


class _Expected(NamedTuple):
    entry: Entry[Key]
    byte_count: int
    """Of its inputs, which wait for their turn."""


class _Held:
    """Bytes of results that the client may not have yet."""

    def __init__(self, kept: Iterable[Kept]) -> None:
        """First those of an earlier stream."""
        self._sizes = deque(len(one.result) for one in kept)
        """Of results that were sent, or are next, in that order."""
        self._bytes = sum(self._sizes)

    @property
    def is_full(self) -> bool:
        """Nothing more should be computed for now."""
        return self._bytes > MAX_HELD_BYTES

    def settled(self, outcome: Prediction | InferwayError) -> None:
        """There is one more."""
        self._bytes += _size_of(outcome)

    def take(self, known: Iterable[Result[Key]]) -> None:
        """These are the next to be sent."""
        self._sizes.extend(_size_of(result.outcome) for result in known)

    def release(self, count: int) -> None:
        """The client has so many more."""
        for _ in range(min(count, len(self._sizes))):
            self._bytes -= self._sizes.popleft()


class SessionItems:
    """See the module."""

    def __init__(
        self, options: StreamOptions, carried: Carried, route: StreamRoute, predictor: Predictor, sessions: Sessions
    ) -> None:
        """Goes on from the record; `route` is closed at the end."""
        self._options, self._predictor, self._sessions = options, predictor, sessions
        self._resumable = bool(carried.token)
        self._session = Session(carried.record)
        self._session.acknowledge_up_to(options.opening.resume.acknowledged_item)
        self._committed = self._session.record
        self._driver = SessionDriver(self._session, route, predictor, self._settled)
        self._results: Results[Key] = Results(ordered=True)
        self._results.unanswered = len(self._committed.kept)
        self._most_unacknowledged = max(2 * options.max_in_flight, len(self._committed.kept))
        self._expected = deque[_Expected]()
        self._window = Window(acknowledges=self._resumable)
        self._held = _Held(self._committed.kept)
        self._outputs = list(options.opening.output_names)
        self._over = False
        if self._resumable:
            sessions.carry(carried.record, self._taken_over)

    def start(self, item: pb.StreamItem) -> None:
        """See StreamItems."""
        try:
            if self._session.knows(item.id):
                return
        except InferwayError as error:
            self._results.fail(Key(item.id, accepted=False), error)
            return
        ask, byte_count = self._checked(item)
        due = 0.0 if isinstance(ask, InferwayError) else self._predictor.clock() + ask.timeout_seconds
        self._expected.append(_Expected(self._results.expect(Key(item.id, accepted=True)), byte_count))
        self._driver.offer(Item(item.id, ask, due))

    def acknowledge(self, said: pb.StreamAcknowledge) -> None:
        """See StreamItems."""
        more = self._window.acknowledge(said.results)
        self._session.acknowledge(more)
        self._over = said.ends_session
        if self._resumable:
            self._release(more)

    async def room(self) -> None:
        """See StreamItems. Refusals are kept like answers, so a client that goes on ignoring its limit is cut off."""
        if self._resumable and self._in_flight > self._most_unacknowledged:
            raise too_many(self._options.max_in_flight)
        await self._results.room(2 * self._options.max_in_flight)

    def end(self, failure: BaseException | None = None) -> None:
        """See StreamItems."""
        self._results.end(failure)

    def nudge(self) -> None:
        """See StreamItems."""
        self._results.nudge()

    def refresh(self, now: float) -> bool:
        """See StreamItems."""
        over = self._driver.route.is_over(now)
        self._driver.refresh()
        return over

    async def take(self) -> AsyncIterator[list[pb.StreamResult]]:
        """See StreamItems. First what an earlier stream had left."""
        yield [pb.StreamResult.FromString(result) for _, result in self._session.kept()]
        async for known in self._results.take():
            self._held.take(known)
            results = [encoded(result, timing=self._options.opening.timing_requested) for result in known]
            if results and self._resumable:
                await self._commit(results)
            yield results

    def sending(self, count: int) -> None:
        """See StreamItems."""
        self._window.sent += count
        self._results.sending(count)
        if not self._resumable:
            self._release(count)

    async def close(self) -> None:
        """See StreamItems. The session stays, as it was committed last, unless its client said that it is over."""
        self._driver.close()
        self._results.close()
        for expected in self._expected:
            self._sessions.waiting.give_back(expected.byte_count)
        if not self._resumable:
            return
        record = self._committed
        if self._over:
            await self._sessions.delete(record)
        else:
            await self._sessions.release(record)

    async def _commit(self, results: list[pb.StreamResult]) -> None:
        for result in results:
            self._session.keep(result.id, result.SerializeToString())
        record = self._session.record
        await self._sessions.commit(record)
        self._committed = record

    def _taken_over(self, error: SessionTakenOver) -> None:
        """Somebody else goes on with the session."""
        self._results.end(error)

    def _settled(self, item_id: int, outcome: Prediction | InferwayError) -> None:
        del item_id  # results come in the order of the items
        entry, byte_count = self._expected.popleft()
        self._sessions.waiting.give_back(byte_count)
        self._results.settle(entry, outcome)
        self._held.settled(outcome)
        if self._held.is_full:
            self._driver.pause()

    def _release(self, count: int) -> None:
        self._held.release(count)
        if not self._held.is_full:
            self._driver.go_on()

    @property
    def _in_flight(self) -> int:
        return self._results.unanswered + self._window.unacknowledged

    def _checked(self, item: pb.StreamItem) -> tuple[Ask | InferwayError, int]:
        """The item, and how many bytes of it wait."""
        limit = self._options.max_in_flight
        try:
            if self._in_flight >= limit:
                return too_many(limit), 0
            ask = ask_of(item, self._options, self._outputs)
            return ask, self._sessions.waiting.take(ask.inputs)
        except InferwayError as error:
            return error, 0


def _size_of(outcome: Prediction | InferwayError) -> int:
    return 0 if isinstance(outcome, InferwayError) else sum([len(output.raw) for output in outcome.answer.outputs])
