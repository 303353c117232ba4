"""How a stream of ours begins: what its first message says, its route, and the session that it carries or resumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

from inferway.errors import InvalidField, StreamProtocolViolated, TooManyConcurrent
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_gateway.doors.call import TimeLimits
from inferway_gateway.doors.prediction_messages import FIELD_NAMES, selector_of
from inferway_gateway.doors.session_items import Carried, SessionItems
from inferway_gateway.doors.stream_items import PlainItems, StreamItems, StreamOptions
from inferway_gateway.envelope import Caller
from inferway_gateway.predictor import Opening, Predictor
from inferway_gateway.sessions.sessions import Sessions, new_token, session_key
from inferway_gateway.sessions.store import SessionRecord
from inferway_gateway.stream_route import StreamRoute

OPEN_SECONDS = 30.0
"""A client that calls and does not open the stream for so long is sent away."""
MAX_RESULTS_PER_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What streams may take, and how long they last."""

    max_streams: int = 1024
    """Open at once in this process."""
    max_in_flight: int = 32
    """Items in flight at once on one stream."""
    drain_seconds: float = 10.0
    """Told to clients when they shall go: the time to half-close."""
    heartbeat_seconds: float = 5.0
    """After so long without a message, one says that the server is there."""
    idle_seconds: float = 300.0
    """A stream on which nothing came for so long is asked to end; 0 never."""
    max_age_seconds: float = 3600.0
    """A stream that is so old is asked to end, so that streams spread over gateways again; 0 never."""


class OpenStream(NamedTuple):
    """A stream that may begin."""

    items: StreamItems
    opened: pb.StreamPredictResponse
    results_per_message: int


class StreamOpener:
    """See the module."""

    def __init__(self, predictor: Predictor, sessions: Sessions, time_limits: TimeLimits, limits: StreamLimits) -> None:
        """`limits` bound what clients may ask for."""
        self._predictor, self._sessions, self._time_limits, self._limits = predictor, sessions, time_limits, limits

    async def open(self, requests: AsyncIterator[pb.StreamPredictRequest], caller: Caller) -> OpenStream:
        """Reads the first message and does what it says.

        Raises StreamProtocolViolated, InvalidField, InvalidName, SessionNotFound, SessionVersionGone,
        SessionStoreUnavailable, TooManyConcurrent, and what `Predictor.open_route` raises.
        """
        options = await self._options(requests, caller)
        message = pb.StreamPredictResponse()
        opened = message.opened
        opened.max_in_flight = options.max_in_flight
        opened.heartbeat_interval.FromNanoseconds(int(self._limits.heartbeat_seconds * 1e9))
        if options.opening.HasField("resume"):
            items = await self._resume(options, opened)
        else:
            items = await self._begin(options, opened)
        return OpenStream(items, message, options.opening.max_results_per_message)

    async def _options(self, requests: AsyncIterator[pb.StreamPredictRequest], caller: Caller) -> StreamOptions:
        """What the first message says. Raises StreamProtocolViolated, InvalidField, InvalidName."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                first = await anext(requests, None)
        except TimeoutError:
            # The client may well have sent it: with thousands that come back at once, it waits to be read.
            raise TooManyConcurrent(f"the stream was not opened within {OPEN_SECONDS:g} s; try again") from None
        if first is None or not first.HasField("open"):
            raise StreamProtocolViolated.at("message", "the first message must be open", expected="open")
        opening = first.open
        if opening.max_in_flight < 0:
            raise InvalidField.at("open.max_in_flight", "must not be negative")
        if opening.order not in pb.ResultOrder.values():
            raise InvalidField.at("open.order", f"{opening.order} is no order")
        if not 0 <= opening.max_results_per_message <= MAX_RESULTS_PER_MESSAGE:
            raise InvalidField.at("open.max_results_per_message", f"expected 0 to {MAX_RESULTS_PER_MESSAGE}")
        if opening.HasField("resume") and not opening.acknowledges_results:
            raise InvalidField.at("open.acknowledges_results", "must be true to resume a session")
        most = self._limits.max_in_flight
        max_in_flight = min(opening.max_in_flight or most, most)
        return StreamOptions(opening, selector_of(opening.target), caller, self._time_limits, max_in_flight)

    async def _begin(self, options: StreamOptions, opened: pb.StreamOpened) -> StreamItems:
        token = new_token() if options.opening.acknowledges_results and self._sessions.resumable else ""
        key = _key(token, options)
        route = self._route(options, key)
        if route.plan is None:
            return PlainItems(options, route, self._predictor)
        record = SessionRecord(
            key=key,
            endpoint=options.selector.endpoint,
            version=route.version.name,
            signature=options.selector.signature,
            tenant=options.caller.tenant,
        )
        if token:
            try:
                await self._sessions.create(record)
            except BaseException:
                route.close()
                raise
        return self._carry(Carried(record, token), options, route, opened)

    async def _resume(self, options: StreamOptions, opened: pb.StreamOpened) -> StreamItems:
        token = options.opening.resume.token
        record = await self._sessions.claim(_key(token, options))
        try:
            route = self._route(options, record.key, record.version)
        except BaseException:
            await self._sessions.release(record)
            raise
        return self._carry(Carried(record, token), options, route, opened)

    def _carry(
        self, carried: Carried, options: StreamOptions, route: StreamRoute, opened: pb.StreamOpened
    ) -> StreamItems:
        session, record = opened.session, carried.record
        session.resume_token, session.applied_item = carried.token, record.applied
        session.model_version = record.version
        if carried.token:
            session.grace.FromNanoseconds(int(self._sessions.grace_seconds * 1e9))
        return SessionItems(options, carried, route, self._predictor, self._sessions)

    def _route(self, options: StreamOptions, key: str, begun_with: str = "") -> StreamRoute:
        opening = options.opening
        # A session has the same arm whenever it is resumed.
        unit = opening.affinity_key or options.caller.affinity_key or key
        return self._predictor.open_route(
            Opening(options.selector, unit, opening.output_names, FIELD_NAMES, begun_with, options.caller.headers)
        )


def _key(token: str, options: StreamOptions) -> str:
    selector = options.selector
    return session_key(token, options.caller.tenant, selector.endpoint, selector.signature) if token else ""
