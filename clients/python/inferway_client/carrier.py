"""Carries the items of a ledger to the server and the results back, over one call after another.

    open ─► carry: (a writer sends and acknowledges, a reader receives) ─► lost? wait, open again, carry on ─► end

A session is resumed by its token, from the last result that the caller has taken. The server then sends again what
came after that, and the ledger what was not applied, so that each item is applied once and each result taken once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from inferway.errors import Cancelled, DeadlineExceeded, Draining, InferwayError, Internal, SessionNotFound
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway_client.ledger import Ledger
from inferway_client.reconnecting import Outage, ReconnectPolicy
from inferway_client.results import StreamResult, stream_result_from
from inferway_client.stream_call import StreamCall

OpenCall = Callable[[pb.StreamOpen, float], Awaitable[StreamCall]]
"""Opens a call within seconds."""
Clock = Callable[[], float]
MESSAGE_ITEMS = 256
MESSAGE_BYTES = 256 * 1024
"""Of a message of several items; larger ones go alone."""
IDLE_SECONDS = 0.05
"""Results that were taken are acknowledged after so long without anything else to say."""


class Carrier:
    """See the module."""

    def __init__(  # noqa: PLR0913 - its parts
        self,
        open_call: OpenCall,
        opening: pb.StreamOpen,
        ledger: Ledger[pb.StreamItem, StreamResult],
        *,
        policy: ReconnectPolicy | None,
        timeout_seconds: float,
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        """Calls `changed` after whatever the caller may be waiting for.

        Without a policy it never reconnects; with one, opening again may take `timeout_seconds` each time.
        """
        self._open_call, self._opening, self._ledger = open_call, opening, ledger
        self._policy, self._timeout_seconds = policy, timeout_seconds
        self._changed, self._clock = changed, clock
        self._awake = asyncio.Event()
        self._outage: Outage | None = None
        self._draining = self._finishing = False
        self.session: pb.SessionOpened | None = None
        """As the server last described it; None of a stateless model."""
        self.connected_at: float | None = None
        """When the call that there is was opened; None while there is none."""
        self.refusal: InferwayError | None = None
        """Why nothing may be sent."""
        self.failure: InferwayError | None = None
        """What ended the stream before its time."""
        self.ended = False

    async def open(self, timeout_seconds: float) -> None:
        """Opens a call. Raises the errors of StreamPredict, Unreachable, DeadlineExceeded."""
        if self.session is not None:
            self._opening.resume.token = self.session.resume_token
            self._opening.resume.acknowledged_item = self._ledger.taken_item
        call = await self._open_call(self._opening, timeout_seconds)
        opened = call.opened
        self.session = opened.session if opened.HasField("session") else None
        if self.session is None and self._opening.HasField("resume"):
            call.cancel()
            raise SessionNotFound("the model keeps no state any more, so there is no session to resume")
        applied = self.session.applied_item if self.session is not None else None
        acknowledges = self._opening.acknowledges_results and call.knows_sessions
        self._ledger.begin_call(opened.max_in_flight, acknowledges=acknowledges, applied_item=applied)
        self._call, self._draining = call, False
        self.connected_at = self._clock()
        self._changed()

    async def run(self) -> None:
        """Carries until the stream has ended: `ended`, and `failure` if that was before its time."""
        try:
            while (loss := await self._carry()) is not None and await self._reopen(loss):
                pass
            self._end()
        except InferwayError as error:
            self.failure = error
            self._end()
        finally:
            self.close()

    def close(self) -> None:
        """Ends what has not ended by itself, though `run` may never have begun: what is unanswered stays so."""
        self._call.cancel()
        if not self.ended:
            self.refusal = Cancelled("the stream was closed, or its client was")
            self.failure = self.refusal if self._ledger.unanswered else None
            self._end()

    def wake(self) -> None:
        """There may be something to send."""
        self._awake.set()

    def taken(self) -> None:
        """The caller has taken a result."""
        if self._finishing or self._ledger.has_work or self._ledger.behind == 1:
            self.wake()

    def finish(self) -> None:
        """Sends no more than what was added."""
        self._finishing = True
        self.wake()

    async def _carry(self) -> InferwayError | None:
        """Carries until the call is lost, and returns the loss; None if the stream has ended.

        A call that drains is left as soon as it owes nothing. Raises what cannot be mended.
        """
        writer = asyncio.create_task(self._write(), name="stream-writer")
        try:
            while (message := await self._call.read()) is not None:
                self._receive(message)
                if self._draining and not self._ledger.owed:
                    return self._mendable(Draining("the server is going away"))
        except InferwayError as error:
            return self._mendable(error)
        finally:
            await self._leave(writer)
        return self._ended_by_server()

    async def _leave(self, writer: asyncio.Task[None]) -> None:
        self.connected_at = None
        writer.cancel()
        self._call.cancel()
        await asyncio.wait([writer])
        self._changed()

    def _receive(self, message: pb.StreamPredictResponse) -> None:
        if message.HasField("drain") or message.HasField("heartbeat"):
            self._ledger.has_all_repeated()
        if message.HasField("drain"):
            self._drain()
            return
        for result in [message.result] if message.HasField("result") else message.results.results:
            self._ledger.receive(result.id, stream_result_from(result))
        self._outage = None
        self._changed()
        if self._finishing or self._ledger.has_work:
            self.wake()

    def _drain(self) -> None:
        if self._policy is not None:
            self._draining = True
        else:
            self.refusal = self.refusal or Draining("the server is going away; open a new stream")
            self._changed()

    async def _write(self) -> None:
        ledger, call = self._ledger, self._call
        while not (self._finishing and ledger.all_sent):
            is_last = self._finishing and not ledger.in_flight
            if (results := ledger.acknowledgement(idle=is_last)) is not None:
                await call.acknowledge(results)
            elif not self._draining and (items := ledger.next_to_send(MESSAGE_ITEMS, MESSAGE_BYTES)):
                await call.send(items, self._clock())
            else:
                await self._something_to_say()
        if self.session is not None and self.session.resume_token:
            await call.end_session(ledger.acknowledged)
        await call.finish()

    async def _something_to_say(self) -> None:
        self._awake.clear()
        try:
            async with asyncio.timeout(IDLE_SECONDS if self._ledger.behind else None):
                await self._awake.wait()
        except TimeoutError:
            if (results := self._ledger.acknowledgement(idle=True)) is not None:
                await self._call.acknowledge(results)

    def _mendable(self, error: InferwayError) -> InferwayError | None:
        """The error, if the stream can go on; None if it had nothing left to do."""
        if self._policy is None or not error.retryable:
            raise error
        if self._is_over:
            return None
        if self.session is not None and not self.session.resume_token:
            raise error
        return error

    @property
    def _is_over(self) -> bool:
        """Nothing is to be sent, and no result to come, neither of an item nor of what a session kept."""
        is_kept = self.session is not None and self._ledger.owed > 0
        return self._finishing and not self._ledger.unanswered and not is_kept

    def _ended_by_server(self) -> InferwayError | None:
        missing = self._ledger.owed if self._policy is not None else self._ledger.unanswered
        if missing:
            raise Internal(f"the stream ended with {missing} items unanswered")
        if self._policy is None or self._is_over:
            return None
        return self._mendable(Draining("the server ended the stream"))

    async def _reopen(self, loss: InferwayError) -> bool:
        """Whether there is a call again; not if none is needed any more. Raises the loss when it is given up."""
        assert self._policy is not None
        if self._outage is None:
            self._outage = Outage(self._policy, self._clock(), self._grace_seconds(self._policy))
        if self.session is None and not self._policy.resend:
            self._fail_sent(loss)
        while not self._is_over:
            wait = self._outage.wait_seconds(loss, self._clock())
            if wait is None:
                raise loss
            await asyncio.sleep(wait)
            try:
                await self.open(min(self._timeout_seconds, self._outage.seconds_left(self._clock())))
            except DeadlineExceeded:
                continue  # says less than the loss itself
            except InferwayError as error:
                loss = error
            else:
                return True
        return False

    def _fail_sent(self, loss: InferwayError) -> None:
        for number in self._ledger.sent():
            self._ledger.settle(number, StreamResult(number, None, loss))
        self._changed()

    def _grace_seconds(self, policy: ReconnectPolicy) -> float:
        grace = self.session.grace.ToNanoseconds() / 1e9 if self.session is not None else 0.0
        return min(policy.give_up_seconds, grace or policy.give_up_seconds)

    def _end(self) -> None:
        self.ended = True
        ended = Draining("the server ended the stream; open a new one")
        self.refusal = self.failure or self.refusal or ended
        self._changed()
