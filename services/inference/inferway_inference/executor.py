"""Executes the requests of one ready version: the scheduler's decisions become calls, the runners' answers replies.

submit ─► Scheduler ─► pump ─► RunnerSet.call ─► _done ─► reply
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial

from inferway.errors import (
    DeadlineExceeded,
    InferwayError,
    Internal,
    ModelFailed,
    NotSupported,
    RunnerCrashed,
    VersionNotReady,
)
from inferway.names import parse_version
from inferway_chassis.clock import Clock
from inferway_inference.admission import admit
from inferway_inference.batches import join_inputs, join_pieces, rows_by_tenant, split_outputs, wrong_rows
from inferway_inference.counters import VersionCounters
from inferway_inference.credits import CreditPool, window_rows
from inferway_inference.loader import Loaded
from inferway_inference.metrics import VersionMetrics
from inferway_inference.plan import ServingBounds
from inferway_inference.quarantine import Quarantine
from inferway_inference.runner.base import Outcome
from inferway_inference.tensors import Tensor
from inferway_inference.tracing import Tracing
from inferway_inference.work import Answer, Batch, Part, Request, Timing

_LOG = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 63 * 1024 * 1024
"""Outputs that fit into a message of 64 MiB, whatever else is in it."""


class Executor:
    """Of one version."""

    def __init__(
        self,
        version: str,
        loaded: Loaded,
        observers: tuple[VersionCounters, VersionMetrics, Tracing],
        clock: Clock,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Takes over what was loaded, but for ending the runners. `quarantine` outlives them."""
        self.version = version
        self.scheduler = loaded.scheduler
        if quarantine is not None:
            self.scheduler.quarantine = quarantine
        self.credits = CreditPool(0)
        self._runners = loaded.runners
        self.signatures = {signature.name: signature for _, signature in loaded.signatures}
        self._positions = {signature.name: position for position, signature in loaded.signatures}
        self._counters, self._metrics, self._tracing = observers
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        self._metrics.queue_rows.set_function(lambda: self.scheduler.waiting_rows)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._idle: asyncio.Future[None] | None = None
        loaded.runners.on_capacity = self._capacity_changed
        self._capacity_changed(loaded.runners.capacity)

    def rebound(self, bounds: ServingBounds) -> None:
        """Serves within what the operator set from now on; with nothing set, as warm-up chose."""
        self.scheduler.rebound(bounds)
        self._learned()
        self.pump()

    def submit(self, request: Request) -> None:
        """Takes a request in; call `pump` after the last of a frame.

        Raises what is wrong with it, or QueueFull, WouldBeLate or Quarantined.
        """
        request.credits = self.credits
        admit(request, self.signatures)
        if request.trace is not None:
            self._tracing.received(request)
        self.scheduler.offer(request)

    def refused(self, request: Request, error: InferwayError) -> None:
        """Answers a request that could not be taken in, or that failed later."""
        if request.ended:
            return
        request.end()
        now = self._clock()
        self._counters.failed(request.received_at, now)
        self._metrics.failed(error, now - request.received_at)
        self._tracing.answered(request, error)
        if not request.cancelled:
            request.reply(request, Answer(error=error))

    def cancel(self, request: Request) -> None:
        """Nobody waits for the answer: what of it is not at a runner yet is not computed."""
        request.cancelled = True
        if not request.ended:
            self.scheduler.withdraw(request)
            request.end()
            self._tracing.answered(request)
            self._note_idle()

    def pump(self) -> None:
        """Does what the scheduler decides now."""
        now = self._clock()
        decision = self.scheduler.decide(now)
        for request in decision.expired:
            self.refused(request, DeadlineExceeded("no time was left in the worker's queue", stage="worker"))
        for batch in decision.batches:
            self._dispatch(batch)
        if decision.overdue:
            _LOG.error("a runner computes for too long and is ended", extra={"version": self.version})
            self._runners.kill_oldest()
        else:
            self._wake_at(decision.wake_at, now)

    async def drain(self) -> None:
        """Returns when everything it holds is answered; nothing new must be submitted meanwhile."""
        if self.scheduler.idle:
            return
        self._idle = asyncio.get_running_loop().create_future()
        await self._idle

    def close(self) -> None:
        """The runners are gone: answers all it holds with an error that says whether it may have been computed."""
        if self._timer is not None:
            self._timer.cancel()
        running, waiting = self.scheduler.abandon()
        self._refuse_all(running, _crashed())
        self._refuse_all(waiting, self._loading_again())
        self._note_idle()

    def _dispatch(self, batch: Batch) -> None:
        started = time.perf_counter_ns()
        traceparent = self._tracing.dispatched(batch)
        position = self._positions[batch.signature.name]
        inputs = join_inputs(batch)
        input_ns = time.perf_counter_ns() - started
        try:
            self._runners.call(position, inputs, batch.outputs, partial(self._done, batch, input_ns), traceparent)
        except RunnerCrashed:  # its end is about to be reported
            self._refuse_all(self.scheduler.dropped(batch, self._clock()), self._loading_again())
        except OSError:
            _LOG.exception("no memory for a batch", extra={"version": self.version})
            self._failed(batch, Internal("the worker has no memory for the batch"))

    def _done(self, batch: Batch, input_ns: int, outcome: Outcome) -> None:
        self._tracing.computed(batch, outcome.started_ns, outcome.ended_ns)
        error = outcome.error or wrong_rows(batch, outcome.outputs)
        if isinstance(error, RunnerCrashed):
            self._refuse_all(self.scheduler.crashed(batch, self._clock()), _crashed())
            asyncio.get_running_loop().call_soon(self._woken)  # by then it is known whether another runner is there
            return
        if error is not None:
            self._failed(batch, error)
        else:
            self._succeeded(batch, input_ns, outcome)
        self.pump()
        self._note_idle()

    def _failed(self, batch: Batch, error: InferwayError) -> None:
        if isinstance(error, ModelFailed):
            model, number = parse_version(self.version)
            error.metadata |= {"model": model, "version": str(number)}
        self._refuse_all(self.scheduler.failed(batch, self._clock()), error)

    def _refuse_all(self, requests: Iterable[Request], error: InferwayError) -> None:
        for request in requests:
            self.scheduler.withdraw(request)
            self.refused(request, error)

    def _succeeded(self, batch: Batch, input_ns: int, outcome: Outcome) -> None:
        infer_ns = outcome.ended_ns - outcome.started_ns
        now = self._clock()
        if self.scheduler.finished(batch, infer_ns / 1e9, now):
            self._learned()
        started = time.perf_counter_ns()
        shares = split_outputs(batch, outcome.outputs)
        output_ns = time.perf_counter_ns() - started
        tenant_rows = rows_by_tenant(batch)
        answered = [
            part.payload
            for part, share in zip(batch.parts, shares, strict=True)
            if self._answered(part, share, batch, (now, infer_ns // 1000, tenant_rows[part.tenant]))
        ]
        batch.requests = answered
        self._counters.succeeded(batch, input_ns, infer_ns, output_ns, now)
        self._metrics.succeeded(batch.rows, [now - request.received_at for request in answered])

    def _answered(self, part: Part, share: list[Tensor], batch: Batch, measured: tuple[float, int, int]) -> bool:
        """Answers the request of a part, unless it ended before or other parts of it are missing."""
        request = part.payload
        if request.ended:
            return False
        outputs = share if len(request.parts) == 1 else join_pieces(request, part, share)
        if outputs is None:
            return False
        request.end()
        self._tracing.answered(request)
        now, compute_us, tenant_rows = measured
        wait_us = max(0, int((now - request.received_at) * 1e6) - compute_us)
        timing = Timing(request.gateway_queue_us, wait_us, compute_us, tenant_rows, batch.reason)
        request.reply(request, self._bounded(Answer(outputs, None, timing)))
        return True

    def _bounded(self, answer: Answer) -> Answer:
        """An answer that no message can hold would end the link, and with it the answers of others."""
        size = sum([len(tensor.raw) for tensor in answer.outputs])
        if size <= self._max_answer_bytes:
            return answer
        message = f"the outputs have {size} bytes; at most {self._max_answer_bytes} can be sent: ask for fewer rows"
        return Answer(error=NotSupported(message, feature="large answers"))

    def _capacity_changed(self, capacity: int) -> None:
        self.scheduler.set_capacity(capacity)
        self._learned()

    def _learned(self) -> None:
        """Gateways may have as much underway as the runners need, by what is known now."""
        scheduler = self.scheduler
        speed = scheduler.learned()
        rows = window_rows(speed, scheduler.best_rows(), scheduler.max_batch_rows, scheduler.capacity)
        self.credits.resize(rows, speed)

    def _loading_again(self) -> VersionNotReady:
        model, number = parse_version(self.version)
        return VersionNotReady(f"{self.version} is being loaded again", model=model, version=number)

    def _wake_at(self, when: float | None, now: float) -> None:
        """One timer, which is allowed to come early: `pump` then sets the next."""
        if when is None or (self._timer is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - now), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.pump()
        self._note_idle()

    def _note_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and self.scheduler.idle:
            self._idle.set_result(None)


def _crashed() -> RunnerCrashed:
    return RunnerCrashed("the model's process ended while it held the request")
