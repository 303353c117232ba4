"""The streams and sessions of the fake gateway, and what can go wrong with them.

    gateway.streams.suffer(Trouble.CUT_APPLIED, Trouble.DRAIN)

One item is applied after the other, as it is read. All sessions are kept, whatever happens to streams: the fake stands
for all gateways of one store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from inferway.errors import (
    InferwayError,
    InvalidField,
    SessionNotFound,
    SessionTakenOver,
    StreamProtocolViolated,
    TooManyConcurrent,
    Unreachable,
)
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.status import to_status
from inferway_client.tensors import Array

State = Mapping[str, Array]
Apply = Callable[[pb.StreamItem, State], tuple[pb.StreamPrediction, State]]
"""Computes an item with the state before it; returns the answer and the state after it. Raises InferwayError."""
MAX_IN_FLIGHT = 64
GRACE_SECONDS = 60


class Trouble(StrEnum):
    """What can happen to a stream, and when."""

    REFUSED = "refused"
    """It is not opened."""
    CUT_UNAPPLIED = "cut unapplied"
    """It is cut with an item that was read and not applied."""
    CUT_APPLIED = "cut applied"
    """It is cut with an item that was applied and not answered."""
    CUT_ANSWERED = "cut answered"
    """It is cut after an answer."""
    DRAIN = "drain"
    """Its client is asked to go elsewhere, after an answer."""
    SILENCE = "silence"
    """Nothing comes any more, after an answer, and nothing is read."""


@dataclass(slots=True)
class FakeSession:
    """What outlives a stream."""

    epoch: int = 0
    state: State = field(default_factory=dict)
    applied_item: int = 0
    kept: deque[pb.StreamResult] = field(default_factory=deque)
    ended: bool = False
    """Its client sends no more and has everything, or was cut off just then: the two look alike, so it stays."""


class FakeStreams:
    """What all streams of a gateway share. Change `max_in_flight` and `heartbeat_seconds` before they open."""

    def __init__(self) -> None:
        """No troubles, no sessions."""
        self.max_in_flight = MAX_IN_FLIGHT
        self.heartbeat_seconds = 5.0
        self.applied: list[int] = []
        """Ids of all items that were applied or have failed, on any stream."""
        self.opened = 0
        """How many streams there were."""
        self.present = 0
        """How many there are."""
        self.sessions: dict[str, FakeSession] = {}
        """By resume token."""
        self.troubles: deque[Trouble] = deque()
        """Yet to come."""
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until messages of clients have made `condition` true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def changed(self) -> None:
        """A message was taken."""
        self._changed.set()

    def suffer(self, *troubles: Trouble) -> None:
        """Lets these happen to streams, one after the other, each as soon as it can."""
        self.troubles.extend(troubles)

    def reach(self, trouble: Trouble) -> bool:
        """Whether it is time for this one."""
        if self.troubles and self.troubles[0] is trouble:
            self.troubles.popleft()
            return True
        return False


class FakeStream:
    """One stream."""

    def __init__(
        self, streams: FakeStreams, opening: pb.StreamOpen, version: str, apply: Apply, *, stateful: bool
    ) -> None:
        """`run` it once."""
        self._streams, self._opening, self._version, self._apply = streams, opening, version, apply
        self._stateful = stateful
        self._max_in_flight = min(opening.max_in_flight or streams.max_in_flight, streams.max_in_flight)
        self._sent = self._acknowledged = self._epoch = self._resumed_at = 0

    async def run(self, requests: AsyncIterator[pb.StreamPredictRequest]) -> AsyncIterator[pb.StreamPredictResponse]:
        """Yields the gateway's messages. Raises what ends the stream."""
        self._cut_at(Trouble.REFUSED)
        self._streams.opened += 1
        self._streams.present += 1
        try:
            async for response in self._carry(requests):
                yield response
        finally:
            self._streams.present -= 1
            self._streams.changed()

    async def _carry(self, requests: AsyncIterator[pb.StreamPredictRequest]) -> AsyncIterator[pb.StreamPredictResponse]:
        token, session = self._session()
        self._epoch, self._resumed_at = session.epoch, session.applied_item
        yield self._opened(token, session)
        self._sent = len(session.kept)
        for response in self._answers(list(session.kept)):
            yield response
        async for request in requests:
            if session.epoch != self._epoch:
                raise SessionTakenOver("another stream has resumed this session")
            responses = self._answers(self._results(request, session))
            self._streams.changed()
            for response in responses:
                yield response
                async for trouble in self._after_answer():
                    yield trouble

    async def _after_answer(self) -> AsyncIterator[pb.StreamPredictResponse]:
        self._cut_at(Trouble.CUT_ANSWERED)
        if self._streams.reach(Trouble.DRAIN):
            yield pb.StreamPredictResponse(drain=pb.StreamDrain())
        if self._streams.reach(Trouble.SILENCE):
            await asyncio.Event().wait()

    def _session(self) -> tuple[str, FakeSession]:
        """The session and its token; of a stateless model one that nobody hears of."""
        opening, sessions = self._opening, self._streams.sessions
        if opening.HasField("resume"):
            token = opening.resume.token
            if token not in sessions:
                raise SessionNotFound("the session ended or expired")
            _acknowledge_up_to(sessions[token].kept, opening.resume.acknowledged_item)
            sessions[token].epoch += 1
            sessions[token].ended = False
            return token, sessions[token]
        token = secrets.token_hex(8) if self._stateful and opening.acknowledges_results else ""
        session = FakeSession()
        if token:
            sessions[token] = session
        return token, session

    def _opened(self, token: str, session: FakeSession) -> pb.StreamPredictResponse:
        opened = pb.StreamOpened(max_in_flight=self._max_in_flight)
        opened.heartbeat_interval.FromNanoseconds(int(self._streams.heartbeat_seconds * 1e9))
        if self._stateful:
            opened.session.resume_token, opened.session.applied_item = token, session.applied_item
            opened.session.grace.seconds = GRACE_SECONDS if token else 0
            opened.session.model_version = self._version
        return pb.StreamPredictResponse(opened=opened)

    def _results(self, request: pb.StreamPredictRequest, session: FakeSession) -> list[pb.StreamResult]:
        if request.HasField("acknowledge"):
            self._acknowledge(request.acknowledge.results, session)
            session.ended = request.acknowledge.ends_session
            return []
        if not request.HasField("item") and not request.HasField("items"):
            raise StreamProtocolViolated.at("message", "the stream is open already", expected="item")
        items = [request.item] if request.HasField("item") else request.items.items
        return [self._result(item, session) for item in items if not (self._stateful and item.id <= self._resumed_at)]

    def _result(self, item: pb.StreamItem, session: FakeSession) -> pb.StreamResult:
        self._cut_at(Trouble.CUT_UNAPPLIED)
        result = pb.StreamResult(id=item.id)
        try:
            if self._sent - self._acknowledged >= self._max_in_flight and self._opening.acknowledges_results:
                raise TooManyConcurrent(f"{self._max_in_flight} items are in flight already")
            prediction, session.state = self._apply(item, session.state)
            result.prediction.CopyFrom(prediction)
        except InferwayError as error:
            result.error.CopyFrom(to_status(error))
        session.applied_item = item.id
        self._streams.applied.append(item.id)
        self._sent += 1
        if self._stateful and self._opening.acknowledges_results:
            session.kept.append(result)
        return result

    def _answers(self, results: list[pb.StreamResult]) -> Iterable[pb.StreamPredictResponse]:
        if results:
            self._cut_at(Trouble.CUT_APPLIED)
        if len(results) > 1 and self._opening.max_results_per_message >= len(results):
            return [pb.StreamPredictResponse(results=pb.StreamResults(results=results))]
        return [pb.StreamPredictResponse(result=result) for result in results]

    def _acknowledge(self, results: int, session: FakeSession) -> None:
        if not self._acknowledged <= results <= self._sent:
            raise InvalidField.at("acknowledge.results", f"{self._sent} results were sent")
        for _ in range(min(results - self._acknowledged, len(session.kept))):
            session.kept.popleft()
        self._acknowledged = results

    def _cut_at(self, trouble: Trouble) -> None:
        if self._streams.reach(trouble):
            raise _cut()


def _acknowledge_up_to(kept: deque[pb.StreamResult], item: int) -> None:
    while kept and kept[0].id <= item:
        kept.popleft()


def _cut() -> InferwayError:
    return Unreachable("the connection was cut", retry_after_seconds=0.0)
