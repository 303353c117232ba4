"""Executes the requests of one ready version: the scheduler's decisions become calls, the runner's answers replies.

submit ─► Scheduler ─► pump ─► RunnerSet.call ─► _done ─► reply
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
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
from inferway_inference.counters import VersionCounters
from inferway_inference.credits import CreditPool
from inferway_inference.loader import Loaded
from inferway_inference.metrics import VersionMetrics
from inferway_inference.runner.base import Outcome
from inferway_inference.tensors import Array, Tensor, cut_rows
from inferway_inference.tracing import Tracing
from inferway_inference.work import Answer, Batch, Request, Timing

_LOG = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 63 * 1024 * 1024
"""Outputs that fit into a message of 64 MiB, whatever else is in it."""
CREDIT_BATCHES = 2
"""Batches' worth of rows that gateways may have underway."""


class Executor:
    """Of one version."""

    def __init__(
        self,
        version: str,
        loaded: Loaded,
        observers: tuple[VersionCounters, VersionMetrics, Tracing],
        clock: Clock,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Takes over what was loaded, but for ending the runner."""
        self.version = version
        self.scheduler = loaded.scheduler
        self.credits = CreditPool(CREDIT_BATCHES * loaded.scheduler.options.max_batch_rows)
        self._runners = loaded.runners
        self._signatures = {signature.name: signature for _, signature in loaded.signatures}
        self._positions = {signature.name: position for position, signature in loaded.signatures}
        self._counters, self._metrics, self._tracing = observers
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        self._metrics.queue_rows.set_function(lambda: self.scheduler.waiting_rows)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._idle: asyncio.Future[None] | None = None

    def submit(self, request: Request) -> None:
        """Takes a request in; call `pump` after the last of a frame. Raises what is wrong with it, or QueueFull."""
        request.credits = self.credits
        admit(request, self._signatures)
        if request.trace is not None:
            self._tracing.received(request)
        self.scheduler.offer(request)

    def refused(self, request: Request, error: InferwayError) -> None:
        """Answers a request that could not be taken in, or that failed later."""
        now = self._clock()
        self._counters.failed(request.received_at, now)
        self._metrics.failed(error, now - request.received_at)
        self._tracing.answered(request, error)
        if not request.cancelled:
            request.reply(request, Answer(error=error))

    def cancel(self, request: Request) -> None:
        """Nobody waits for the answer: the request is not computed if its batch has not closed."""
        request.cancelled = True
        if self.scheduler.withdraw(request):
            self._tracing.answered(request)
            self._note_idle()

    def pump(self) -> None:
        """Does what the scheduler decides now."""
        now = self._clock()
        decision = self.scheduler.decide(now)
        for request in decision.expired:
            self.refused(request, DeadlineExceeded("the deadline passed in the worker's queue", stage="worker"))
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
        """The runner is gone: answers all it holds with an error that says whether it may have been computed."""
        if self._timer is not None:
            self._timer.cancel()
        running, waiting = self.scheduler.abandon()
        for request in running:
            self.refused(request, RunnerCrashed("the model's process ended while it held the request"))
        for request in waiting:
            model, number = parse_version(self.version)
            self.refused(request, VersionNotReady(f"{self.version} is being loaded again", model=model, version=number))
        self._note_idle()

    def _dispatch(self, batch: Batch) -> None:
        started = time.perf_counter_ns()
        traceparent = self._tracing.dispatched(batch)
        position = self._positions[batch.signature.name]
        inputs = join_inputs(batch)
        input_ns = time.perf_counter_ns() - started
        try:
            self._runners.call(position, inputs, batch.outputs, partial(self._done, batch, input_ns), traceparent)
        except RunnerCrashed:
            return  # its end is about to be reported, and `close` answers everybody
        except OSError:
            _LOG.exception("no memory for a batch", extra={"version": self.version})
            self._failed(batch, Internal("the worker has no memory for the batch"))

    def _done(self, batch: Batch, input_ns: int, outcome: Outcome) -> None:
        self._tracing.computed(batch, outcome.started_ns, outcome.ended_ns)
        error = outcome.error or wrong_rows(batch, outcome.outputs)
        if isinstance(error, RunnerCrashed):
            return  # `close` follows and answers everybody
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
        for request in self.scheduler.failed(batch):
            self.refused(request, error)

    def _succeeded(self, batch: Batch, input_ns: int, outcome: Outcome) -> None:
        infer_ns = outcome.ended_ns - outcome.started_ns
        self.scheduler.finished(batch, infer_ns / 1e9)
        started = time.perf_counter_ns()
        shares = split_outputs(batch, outcome.outputs)
        fits = sum([array.byte_count for array in outcome.outputs]) <= self._max_answer_bytes
        output_ns = time.perf_counter_ns() - started
        now = self._clock()
        tenant_rows = rows_by_tenant(batch)
        for request, outputs in zip(batch.requests, shares, strict=True):
            self._tracing.answered(request)
            if not request.cancelled:
                timing = self._timing(request, batch, now, infer_ns // 1000, tenant_rows)
                answer = Answer(outputs, None, timing)
                request.reply(request, answer if fits else self._bounded(answer))
        self._counters.succeeded(batch, input_ns, infer_ns, output_ns, now)
        self._metrics.succeeded(batch.rows, [now - request.received_at for request in batch.requests])

    def _timing(
        self, request: Request, batch: Batch, now: float, compute_us: int, tenant_rows: dict[str, int]
    ) -> Timing:
        worker_us = int((now - request.received_at) * 1e6)
        wait_us = max(0, worker_us - compute_us)
        return Timing(request.gateway_queue_us, wait_us, compute_us, tenant_rows[request.tenant], batch.reason)

    def _bounded(self, answer: Answer) -> Answer:
        """An answer that no message can hold would end the link, and with it the answers of others."""
        size = sum([len(tensor.raw) for tensor in answer.outputs])
        if size <= self._max_answer_bytes:
            return answer
        message = f"the outputs have {size} bytes; at most {self._max_answer_bytes} can be sent: ask for fewer rows"
        return Answer(error=NotSupported(message, feature="large answers"))

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


def join_inputs(batch: Batch) -> list[Array]:
    """The inputs of a batch: rows one after the other, in the order of its requests. Nothing is copied."""
    first, specs = batch.requests[0], batch.signature.inputs
    if len(batch.requests) == 1:
        return [
            Array(spec.datatype, tensor.shape, (tensor.raw,)) for spec, tensor in zip(specs, first.inputs, strict=True)
        ]
    return [
        Array(
            spec.datatype,
            (batch.rows, *first.inputs[index].shape[1:]),
            [request.inputs[index].raw for request in batch.requests],
        )
        for index, spec in enumerate(specs)
    ]


def split_outputs(batch: Batch, outputs: Sequence[Array]) -> list[list[Tensor]]:
    """Each request's own rows of the outputs that it wants, in the order of the batch."""
    specs = batch.signature.outputs
    shares: list[list[Tensor]] = [[] for _ in batch.requests]
    rows = [request.rows for request in batch.requests]
    for index, array in zip(batch.outputs, outputs, strict=True):
        spec = specs[index]
        pieces = cut_rows(array, rows) if len(rows) > 1 else [bytes(array.parts[0])]
        for request, share, piece in zip(batch.requests, shares, pieces, strict=True):
            if index in request.outputs:
                shape = array.shape if len(rows) == 1 else (request.rows, *array.shape[1:])
                share.append(Tensor(spec.name, spec.datatype, shape, piece))
    return shares


def wrong_rows(batch: Batch, outputs: Sequence[Array]) -> ModelFailed | None:
    """The error of a model that does not answer each row of a batch with a row."""
    if not batch.signature.batchable:
        return None
    for index, array in zip(batch.outputs, outputs, strict=True):
        if array.shape[:1] != (batch.rows,):
            name, shape = batch.signature.outputs[index].name, list(array.shape)
            return ModelFailed(
                f"the model answered {batch.rows} rows with {name!r} of shape {shape}", cause="rows lost or added"
            )
    return None


def rows_by_tenant(batch: Batch) -> dict[str, int]:
    """How many rows of the batch each tenant has: nobody learns how busy the others are."""
    rows: dict[str, int] = {}
    for request in batch.requests:
        rows[request.tenant] = rows.get(request.tenant, 0) + request.rows
    return rows
