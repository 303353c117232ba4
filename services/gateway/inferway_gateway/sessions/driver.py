"""Drives a session: sends the item that is next, and settles it by what came back.

A worker that goes away, drains or has lost the version costs a session nothing: the item is sent again, with the state
that there was before it, until its deadline. Nothing waits in a task; everything happens in callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferway.errors import InferwayError, Internal
from inferway_gateway.envelope import Prediction
from inferway_gateway.lane import Flight
from inferway_gateway.predictor import Predictor
from inferway_gateway.sessions.session import Item, Session
from inferway_gateway.stream_route import StreamRoute

AGAIN_AFTER = frozenset({"WORKER_LOST", "NO_WORKER", "VERSION_NOT_READY", "DRAINING"})
"""Errors after which an item is sent again: nobody knows its answer, and no session has its state."""
LEFT_BEHIND = frozenset({"VERSION_NOT_SERVED", "VERSION_UNLOADED", "VERSION_LOAD_FAILED"})
"""Errors after which a session that has stayed with an older version goes on with the present one, if it can."""
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Before each repetition; the last one is that of all further ones. One item of a session is repeated at a time, so
this, too, bounds what repetitions add."""


Listener = Callable[[int, Prediction | InferwayError], None]
"""Gets the results of a session with the ids of their items, in the order of the items."""


class SessionDriver:
    """See the module. One for each session that is carried here."""

    def __init__(self, session: Session, route: StreamRoute, predictor: Predictor, listener: Listener) -> None:
        """Takes over `session` and `route`."""
        self.session, self.route = session, route
        self._predictor, self._listener = predictor, listener
        self._clock, self._loop = predictor.clock, asyncio.get_running_loop()
        self._flight: Flight | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._attempts = 0
        self._closed = self._paused = False

    def offer(self, item: Item) -> None:
        """Takes an item; its result goes to the listener, maybe at once."""
        self.session.offer(item)
        self._advance()

    def refresh(self) -> None:
        """Follows the routing, unless an item is on its way; raises what that costs the session."""
        if self.session.current is None:
            self.route.decide(self._predictor.table, self._clock())

    def pause(self) -> None:
        """Begins no further item until told to `go_on`."""
        self._paused = True

    def go_on(self) -> None:
        """Begins items again."""
        if self._paused:
            self._paused = False
            self._advance()

    def drop(self) -> None:
        """Gives up the item in flight, as if it had never come: the listener hears nothing of it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._predictor.abandon(flight)
        self.session.current = None
        self._advance()

    def close(self) -> None:
        """Gives up what is in flight and what waits. The state is that after the last item that was settled."""
        self._closed = True
        self.drop()
        self.route.close()

    def _advance(self) -> None:
        """Begins items until one is on its way."""
        while not (self._closed or self._paused) and (item := self.session.begin()) is not None:
            self._attempts = 0
            self._send(item)

    def _send(self, item: Item) -> None:
        self._timer = None
        try:
            if isinstance(item.ask, InferwayError):
                raise item.ask
            now = self._clock()
            decision = self.route.decide(self._predictor.table, now)
            ask = item.ask._replace(timeout_seconds=item.due - now, decision=decision, state=self.session.state)
            flight = self._flight = self._predictor.submit(ask)
        except InferwayError as error:
            self._failed(item, error)
        else:
            flight.result.add_done_callback(lambda _: self._landed(item, flight))

    def _landed(self, item: Item, flight: Flight) -> None:
        if self._flight is not flight:
            return  # given up
        self._flight = None
        future = flight.result
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or not (error is None or isinstance(error, InferwayError)):
            error = Internal("the item was lost in the gateway")
        if error is None:
            self._answered(item, future.result())
        else:
            self._failed(item, error)
        self._advance()

    def _answered(self, item: Item, prediction: Prediction) -> None:
        plan, envelope = self.route.plan, prediction.envelope
        assert plan is not None
        try:
            answer, state = plan.split(prediction.answer, envelope.rows)
            self.session.check(state)
        except InferwayError as error:
            self._settle_failed(item, error)
            return
        self.session.applied(state, envelope.rows, envelope.version.name)
        envelope.outputs = _asked(item)  # those of the state are gone from the answer
        self._listener(item.id, prediction._replace(answer=answer))

    def _failed(self, item: Item, error: InferwayError) -> None:
        if error.reason in LEFT_BEHIND and self.route.leave(self._clock()):
            self._send(item)
            return
        pause = PAUSES_SECONDS[min(self._attempts, len(PAUSES_SECONDS) - 1)]
        if self._is_worth_repeating(error) and self._clock() + pause < item.due:
            self._attempts += 1
            self._timer = self._loop.call_later(pause, self._again, item)
        else:
            self._settle_failed(item, error)

    def _is_worth_repeating(self, error: InferwayError) -> bool:
        # Of a model that must not be asked twice, the dispatcher takes the permission to retry away.
        return error.reason in AGAIN_AFTER and error.retry_after_seconds is not None and not self._closed

    def _again(self, item: Item) -> None:
        self._send(item)
        if self.session.current is None:
            self._advance()

    def _settle_failed(self, item: Item, error: InferwayError) -> None:
        self.session.failed()
        self._listener(item.id, error)


def _asked(item: Item) -> list[str]:
    return [] if isinstance(item.ask, InferwayError) else list(item.ask.outputs)
