"""One sequence in Triton's sense: a session whose items name it by an id, and come over any call.

    offered ─► in line ─► in flight ─► committed ─► answered

Items are applied one at a time, in order of arrival. One that starts the sequence begins it anew, whatever became of
the older one; after one that ends it, it is forgotten, whatever became of that item. This is what Triton's sequence
batcher does with a start for an id that it knows (`sequence_batch_scheduler.cc`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from contextvars import copy_context
from dataclasses import replace
from typing import NamedTuple

from inferway.errors import (
    Cancelled,
    FieldViolation,
    InferwayError,
    InvalidParameter,
    SessionNotFound,
    SessionTakenOver,
    SessionVersionGone,
    TooManyConcurrent,
)
from inferway_gateway.envelope import Ask, Prediction
from inferway_gateway.predictor import Opening, Predictor
from inferway_gateway.routing import shown
from inferway_gateway.sessions.driver import SessionDriver
from inferway_gateway.sessions.session import Item, Session
from inferway_gateway.sessions.sessions import Sessions
from inferway_gateway.sessions.store import SessionRecord
from inferway_gateway.stream_route import StreamRoute

MAX_WAITING = 64
"""Items in line for one sequence."""
MAX_TAKEOVERS = 3
"""How often an item is applied again because another gateway took the sequence over meanwhile."""
_EPOCH_BITS = 48
"""Epochs of new records begin anywhere: ids come again, and a gateway that missed the end of the older sequence must
not take the record of the new one for its own."""


class Correlation(NamedTuple):
    """What an item says of the sequence that it is part of."""

    id: int | str
    start: bool
    end: bool


class Turn:
    """One item, from its arrival to its answer."""

    __slots__ = ("ask", "context", "correlation", "due", "result")

    def __init__(self, ask: Ask, correlation: Correlation, due: float, result: asyncio.Future[Prediction]) -> None:
        """`due` is when the answer is worthless, on the gateway's clock. What is traced is what the caller traces."""
        self.ask, self.correlation, self.due, self.result = ask, correlation, due, result
        self.context = copy_context()

    def abandon(self) -> None:
        """Its caller went away. If no answer is there yet, the state stays as it is. Its flags hold all the same."""
        self.result.cancel()
        self.ask = self.ask._replace(inputs=())  # in line, nobody looks at them any more

    def answer(self, prediction: Prediction) -> None:
        """Tells the caller, if it is still there."""
        if not self.result.done():
            self.result.set_result(prediction)

    def fail(self, error: Exception) -> None:
        """Tells the caller, if it is still there."""
        if not self.result.done():
            self.result.set_exception(error)


class Sequence:
    """See the module. Holds a session while it is live: begun or claimed, and not ended since."""

    def __init__(self, key: str, predictor: Predictor, sessions: Sessions, idle_seconds: float) -> None:
        """`key` names it to the session store. It ends when nothing came for `idle_seconds`."""
        self._key, self._predictor, self._sessions = key, predictor, sessions
        self._idle_seconds = idle_seconds
        self._line = deque[Turn]()
        self._driver: SessionDriver | None = None
        self._committed: SessionRecord | None = None
        self._item_id = 0
        """Of the last item that was sent on."""
        self._outcome: asyncio.Future[Prediction | InferwayError] | None = None
        self._rested_at = predictor.clock()

    @property
    def live(self) -> bool:
        """The next item need not start it."""
        return self._driver is not None

    @property
    def idle(self) -> bool:
        """Nothing came for too long. Not to be asked while `run` runs."""
        return self._predictor.clock() >= self._rested_at + self._idle_seconds

    def offer(self, turn: Turn) -> None:
        """Puts an item in line; `run` follows. Raises TooManyConcurrent."""
        if len(self._line) >= MAX_WAITING:
            raise TooManyConcurrent(f"{MAX_WAITING} requests of this sequence are waiting already", limit=MAX_WAITING)
        self._line.append(turn)

    async def run(self) -> None:
        """Answers what is in line, and what gets in line meanwhile."""
        if self.idle:
            await self.end()
        while self._line:
            await self._serve(self._line.popleft())
        self._rested_at = self._predictor.clock()

    async def end(self) -> None:
        """Forgets the state, if it is still ours."""
        record = self._drop()
        if record is not None:
            await self._sessions.delete(record)

    async def release(self) -> None:
        """Leaves the state to whichever gateway gets the next item."""
        record = self._drop()
        if record is not None:
            await self._sessions.release(record)

    async def _serve(self, turn: Turn) -> None:
        if turn.correlation.start:
            await self.end()
        if not turn.result.done():
            try:
                turn.answer(await self._apply(turn))
            except Exception as error:  # noqa: BLE001 - whoever asked raises it
                turn.fail(error)
        if turn.correlation.end:
            await self.end()

    async def _apply(self, turn: Turn) -> Prediction:
        """Computes and commits, an error like an answer: it may be that of a state which is void.

        What another gateway made void is computed again, upon the state that it left.
        """
        takeovers = 0
        while True:
            driver = self._driver or await self._open(turn)
            outcome = await self._compute(driver, turn)
            try:
                await self._commit(driver.session.record)
            except (SessionTakenOver, SessionNotFound):
                takeovers += 1
                if takeovers == MAX_TAKEOVERS or not driver.route.version.idempotent:
                    raise
                continue
            if isinstance(outcome, InferwayError):
                raise outcome
            return outcome

    async def _commit(self, record: SessionRecord) -> None:
        try:
            await self._sessions.commit(record)
        except InferwayError:
            self._drop()  # what holds now, only the store knows
            raise
        self._committed = record

    async def _compute(self, driver: SessionDriver, turn: Turn) -> Prediction | InferwayError:
        outcome: asyncio.Future[Prediction | InferwayError] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        self._item_id += 1
        item = Item(self._item_id, turn.ask, turn.due)
        if not turn.result.done():
            turn.context.run(driver.offer, item)
            await asyncio.wait((outcome, turn.result), return_when=asyncio.FIRST_COMPLETED)
        if not outcome.done():
            driver.drop()
            raise Cancelled("the caller went away")
        return outcome.result()

    def _settled(self, item_id: int, outcome: Prediction | InferwayError) -> None:
        del item_id  # one is in flight at a time
        assert self._outcome is not None
        self._outcome.set_result(outcome)

    async def _open(self, turn: Turn) -> SessionDriver:
        return await (self._begin(turn) if turn.correlation.start else self._resume(turn))

    async def _begin(self, turn: Turn) -> SessionDriver:
        route = self._route(turn)
        selector = turn.ask.selector
        record = SessionRecord(
            key=self._key,
            endpoint=selector.endpoint,
            version=route.version.name,
            signature=route.version.signature(selector.signature, turn.ask.field_names.signature).name,
            tenant=turn.ask.caller.tenant,
            epoch=secrets.randbits(_EPOCH_BITS) + 1,
        )
        try:
            return self._carry(await self._claim_anew(record), route)
        except BaseException:
            route.close()
            raise

    async def _claim_anew(self, record: SessionRecord) -> SessionRecord:
        try:
            older = await self._sessions.claim(self._key)  # of a gateway that did not hear of its end
        except SessionNotFound:
            await self._sessions.create(record)
            return record
        record = replace(record, epoch=older.epoch)
        await self._sessions.commit(record)
        return record

    async def _resume(self, turn: Turn) -> SessionDriver:
        try:
            record = await self._sessions.claim(self._key)
        except SessionNotFound:
            raise _not_started(turn) from None
        try:
            return self._carry(record, self._route(turn, record.version))
        except BaseException:
            await self._sessions.release(record)
            raise

    def _carry(self, record: SessionRecord, route: StreamRoute) -> SessionDriver:
        self._sessions.carry(record, _ignore)
        self._committed, self._item_id = record, record.applied
        self._driver = SessionDriver(Session(record), route, self._predictor, self._settled)
        return self._driver

    def _route(self, turn: Turn, begun_with: str = "") -> StreamRoute:
        ask = turn.ask
        unit = ask.unit or self._key
        headers = ask.caller.headers
        opening = Opening(ask.selector, unit, ask.outputs, ask.field_names, begun_with, headers)
        route = self._predictor.open_route(opening)
        if route.plan is None:
            route.close()
            version = route.version
            raise SessionVersionGone(
                f"{version.name} answers now and keeps no state: begin again",
                model=version.model,
                version=version.number,
            )
        return route

    def _drop(self) -> SessionRecord | None:
        """Carries nothing any more; returns what was carried, as it was committed last."""
        record, self._committed = self._committed, None
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        return record


def _ignore(error: SessionTakenOver) -> None:
    """Commits find out by themselves who owns the record."""


def _not_started(turn: Turn) -> InvalidParameter:
    """In Triton's words, which clients look for."""
    message = (
        f"inference request for sequence {_shown(turn.correlation.id)} to model '{turn.ask.selector.endpoint}' must "
        "specify the START flag on the first request of the sequence"
    )
    violation = FieldViolation("parameters[sequence_start]", "must be true: the sequence is not known, or not any more")
    return InvalidParameter(message, violations=(violation,), parameter="sequence_start")


def _shown(correlation_id: int | str) -> str:
    return shown(correlation_id).strip("'") if isinstance(correlation_id, str) else str(correlation_id)
