"""What is inside a stream of ours: items in, results out. A stateful model's stream has another inside than others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple, Protocol

from inferway.errors import InferwayError, InvalidField, StreamProtocolViolated, TooManyConcurrent
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.status import to_status
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.prediction_messages import FIELD_NAMES, tensors_of, timeout_of, to_stream_prediction
from inferway_gateway.doors.results import Pending, Result, Results
from inferway_gateway.envelope import Ask, Caller
from inferway_gateway.predictor import Predictor
from inferway_gateway.routing import Selector
from inferway_gateway.stream_route import StreamRoute


class Key(NamedTuple):
    """Names a result to the client."""

    item: int
    accepted: bool
    """The item was begun; until its answer is out, no other may have its id."""


class StreamItems(Protocol):
    """One stream's items, from `start` to `close`."""

    def start(self, item: pb.StreamItem) -> None:
        """Takes an item. A bad one gets its error as its result."""

    def acknowledge(self, said: pb.StreamAcknowledge) -> None:
        """What the client has by now. Raises StreamProtocolViolated if that cannot be."""

    async def room(self) -> None:
        """Returns when another message may be read."""

    def end(self, failure: BaseException | None = None) -> None:
        """No more items come."""

    def nudge(self) -> None:
        """Lets `take` look round."""

    def refresh(self, now: float) -> bool:
        """Follows the routing though no item comes. Whether the client should open another stream."""

    def take(self) -> AsyncIterator[list[pb.StreamResult]]:
        """Yields results to be sent, and nothing after a nudge, until the end. Raises what fails the stream."""

    def sending(self, count: int) -> None:
        """So many of the results that were taken leave now."""

    async def close(self) -> None:
        """The stream is over."""


class StreamOptions(NamedTuple):
    """What holds for all items of a stream."""

    opening: pb.StreamOpen
    selector: Selector
    caller: Caller
    time_limits: TimeLimits
    max_in_flight: int


class Window:
    """How many results were sent and acknowledged."""

    def __init__(self, *, acknowledges: bool) -> None:
        """`acknowledges`: an item is in flight until its result was acknowledged."""
        self._acknowledges = acknowledges
        self.sent = self.acknowledged = 0

    @property
    def unacknowledged(self) -> int:
        """Results that the client may not have yet."""
        return self.sent - self.acknowledged if self._acknowledges else 0

    def acknowledge(self, results: int) -> int:
        """How many more these are; raises StreamProtocolViolated for results that were not sent."""
        if results > self.sent:
            raise StreamProtocolViolated.at(
                "acknowledge.results", f"{results} results acknowledged; {self.sent} were sent", expected=self.sent
            )
        more = max(0, results - self.acknowledged)
        self.acknowledged += more
        return more


class PlainItems:
    """Items that have nothing to do with each other: every one is answered as soon as a worker has done it."""

    def __init__(self, options: StreamOptions, route: StreamRoute, predictor: Predictor) -> None:
        """`route` is closed at the end."""
        self._options, self._route, self._predictor = options, route, predictor
        ordered = options.opening.order == pb.RESULT_ORDER_ORDERED
        self._results: Results[Key] = Results(ordered=ordered)
        self._window = Window(acknowledges=options.opening.acknowledges_results)
        self._unanswered_ids = set[int]()
        self._outputs = list(options.opening.output_names)

    def start(self, item: pb.StreamItem) -> None:
        """See StreamItems."""
        try:
            self._check(item)
            flight = self._predictor.submit(self._ask(item))
        except InferwayError as error:
            self._results.fail(Key(item.id, accepted=False), error)
        else:
            self._unanswered_ids.add(item.id)
            pending = Pending(flight.result, partial(self._predictor.abandon, flight))
            self._results.start(Key(item.id, accepted=True), pending)

    def acknowledge(self, said: pb.StreamAcknowledge) -> None:
        """See StreamItems."""
        self._window.acknowledge(said.results)

    async def room(self) -> None:
        """See StreamItems. Refusals wait to be written, too: a client that ignores its limit is not read on."""
        await self._results.room(2 * self._options.max_in_flight)

    def end(self, failure: BaseException | None = None) -> None:
        """See StreamItems."""
        self._results.end(failure)

    def nudge(self) -> None:
        """See StreamItems."""
        self._results.nudge()

    def refresh(self, now: float) -> bool:
        """See StreamItems."""
        over = self._route.is_over(now)
        self._route.decide(self._predictor.table, now)
        return over or self._route.plan is not None  # that of another stream: this one has no session

    async def take(self) -> AsyncIterator[list[pb.StreamResult]]:
        """See StreamItems."""
        async for known in self._results.take():
            for result in known:
                if result.key.accepted:
                    self._unanswered_ids.discard(result.key.item)
            yield [encoded(result, timing=self._options.opening.timing_requested) for result in known]

    def sending(self, count: int) -> None:
        """See StreamItems."""
        self._window.sent += count
        self._results.sending(count)

    async def close(self) -> None:
        """See StreamItems."""
        self._results.close()
        self._route.close()

    def _check(self, item: pb.StreamItem) -> None:
        limit = self._options.max_in_flight
        if self._results.unanswered + self._window.unacknowledged >= limit:
            raise too_many(limit)
        if item.id in self._unanswered_ids:
            raise InvalidField.at("item.id", f"{item.id} is that of another unanswered item")

    def _ask(self, item: pb.StreamItem) -> Ask:
        ask = ask_of(item, self._options, self._outputs)
        if item.affinity_key:
            return ask  # that decides for this item alone
        now = self._predictor.clock()
        return ask._replace(decision=self._route.decide(self._predictor.table, now))


def ask_of(item: pb.StreamItem, options: StreamOptions, outputs: list[str]) -> Ask:
    """What an item asks for. Raises InvalidRequest."""
    timeout = timeout_of(item.timeout) if item.HasField("timeout") else None
    return Ask(
        selector=options.selector,
        inputs=tensors_of(item.inputs),
        outputs=outputs,
        unit=item.affinity_key,
        timeout_seconds=options.time_limits.bounded(timeout),
        caller=options.caller,
        field_names=FIELD_NAMES,
    )


def encoded(result: Result[Key], *, timing: bool) -> pb.StreamResult:
    """A result as the client gets it."""
    message = pb.StreamResult(id=result.key.item)
    if isinstance(result.outcome, InferwayError):
        message.error.CopyFrom(to_status(result.outcome))
    else:
        to_stream_prediction(result.outcome, message.prediction, timing=timing)
    return message


def too_many(limit: int) -> TooManyConcurrent:
    """The error of an item beyond the limit."""
    return TooManyConcurrent(f"{limit} items of this stream are in flight already", limit=limit)
