"""The way of every request, whatever door it came in by: admission, route, queue and link, and back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from opentelemetry import trace

from inferway.errors import DeadlineExceeded, InferwayError, InvalidField, SessionRequired
from inferway.names import check_segment
from inferway_chassis.clock import Clock
from inferway_chassis.memory_gate import MemoryGate
from inferway_chassis.telemetry import inject
from inferway_gateway.admission import FieldNames, admit, check_outputs
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.envelope import Ask, Envelope, Observer, Prediction
from inferway_gateway.lane import Flight
from inferway_gateway.matching import Headers
from inferway_gateway.routing import Decision, Endpoint, RoutingTable, Selector, Version
from inferway_gateway.state import StatePlan, state_bytes
from inferway_gateway.steering import Routing
from inferway_gateway.stream_route import StreamRoute
from inferway_gateway.tensors import Tensor

_LEAST_SECONDS = 0.002
"""With less left, an answer could not come in time: not even begun."""
_MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Of a message to a worker, for what is not contents of inputs."""
_LARGE_BYTES = 64 * 1024
"""Smaller requests take little memory, however many of them the queues hold."""


Observe = Callable[[Endpoint, Decision, Envelope], Observer | None]
"""Says who wants to know what becomes of a request: asked where chance has chosen between arms. Endpoint and decision
are as they were then: those of a stream may be older than the weights of now."""


class PredictorOptions(NamedTuple):
    """What a process is told."""

    boot_id: str
    """Makes prediction ids unique among gateways and their restarts."""
    max_message_bytes: int
    """A worker takes no larger message."""


class Opening(NamedTuple):
    """What a stream or sequence says once, for all of its items."""

    selector: Selector
    unit: str
    """What traffic is split by; empty means this stream alone."""
    outputs: Sequence[str]
    field_names: FieldNames
    begun_with: str = ""
    """The version that a resumed session's state is from."""
    headers: Headers = ()
    """Of the call, for rules."""


class Predictor:
    """Takes asks from doors. One for the process."""

    def __init__(
        self,
        routing: Routing,
        dispatcher: Dispatcher,
        memory: MemoryGate,
        clock: Clock,
        tracer: trace.Tracer,
        options: PredictorOptions,
    ) -> None:
        """Nothing is predicted before `routing` has a table."""
        self._routing, self._dispatcher, self._tracer = routing, dispatcher, tracer
        self.clock = clock
        """Of all deadlines."""
        self.observe: Observe = _nobody
        """Called with each envelope that it is about, before that is on its way."""
        self._memory = memory
        self._prefix = options.boot_id[:12]
        self._max_bytes = options.max_message_bytes - _MESSAGE_OVERHEAD_BYTES
        self._numbers = itertools.count(1)

    def submit(self, ask: Ask) -> Flight:
        """Checks and routes `ask`, and sets it on its way: the flight's `result` follows, or `abandon` it.

        Raises MemoryPressure, NotSynchronised, EndpointNotFound, InvalidName, VersionNotFound, AliasNotFound,
        UnknownSignature, InvalidField, all of `admission.admit` and all of `Dispatcher.submit`.
        """
        self._memory.admit(ask.caller.criticality)
        span = trace.get_current_span()
        if not span.is_recording():
            return self._dispatch(self._admit(ask))
        with self._tracer.start_as_current_span("gateway.admission"):
            envelope = self._admit(ask)
        _describe(span, envelope)
        envelope.traceparent, envelope.tracestate = inject(span)
        flight = self._dispatch(envelope)
        flight.result.add_done_callback(self._queue_span(span))
        return flight

    def open_route(self, opening: Opening) -> StreamRoute:
        """The route of a new stream or sequence. Raises what `submit` would for every item that names the same."""
        self._memory.admit_stream()
        selector, names = opening.selector, opening.field_names
        table = self._routing.table
        if selector.endpoint not in table.endpoints:
            check_segment(selector.endpoint, names.endpoint)
        unit = opening.unit or f"{self._prefix}-{next(self._numbers):x}"
        route = StreamRoute(selector, unit, table, self._routing.pins, opening.begun_with, opening.headers)
        try:
            signature = route.version.signature(selector.signature, names.signature)
            check_outputs(signature, opening.outputs, names)
        except InferwayError:
            route.close()
            raise
        return route

    @property
    def table(self) -> RoutingTable:
        """What routing goes by now; raises NotSynchronised before the first snapshot."""
        return self._routing.table

    def abandon(self, flight: Flight) -> None:
        """The caller does not want it any more."""
        self._dispatcher.abandon(flight)

    def _dispatch(self, envelope: Envelope) -> Flight:
        """What is large is held by now, and let go in the end."""
        byte_count = envelope.byte_count
        if byte_count < _LARGE_BYTES:
            return self._dispatcher.submit(envelope)
        try:
            flight = self._dispatcher.submit(envelope)
        except InferwayError:
            self._memory.release(byte_count)
            raise
        flight.result.add_done_callback(lambda _: self._memory.release(byte_count))
        return flight

    def _admit(self, ask: Ask) -> Envelope:
        received_at = self.clock()
        if ask.timeout_seconds < _LEAST_SECONDS:
            raise DeadlineExceeded("too little time is left to answer", stage="gateway")
        number = next(self._numbers)
        selector, prediction_id = ask.selector, f"{self._prefix}-{number:x}"
        decision = ask.decision or self._decide(ask, prediction_id)
        version = decision.version
        signature = version.signature(selector.signature, ask.field_names.signature)
        inputs, rows, byte_count = admit(signature, ask.inputs, ask.outputs, ask.field_names)
        outputs = ask.outputs
        if version.stateful and signature.name in version.stateful:
            plan = version.stateful[signature.name]
            state = _state_of(ask, version, plan, rows)
            inputs, outputs = plan.inputs(inputs, state), plan.outputs(outputs)
            byte_count += state_bytes(state)
        if byte_count > self._max_bytes:
            raise InvalidField.at("inputs", f"{byte_count} bytes in all; a worker takes at most {self._max_bytes}")
        if byte_count >= _LARGE_BYTES:
            self._memory.hold(byte_count)  # before anybody observes it: who is refused here has met no version
        envelope = Envelope(
            version,
            signature.name,
            inputs,
            outputs,
            rows,
            received_at + ask.timeout_seconds,
            received_at,
            ask.caller,
            selector.endpoint,
            decision.arm,
            decision.generation,
            prediction_id,
            byte_count,
            propensity=decision.propensity,
        )
        endpoint = decision.endpoint
        if endpoint is not None and endpoint.is_split:
            envelope.is_split = True
            if decision.propensity and not endpoint.braked:
                envelope.observer = self.observe(endpoint, decision, envelope)
        return envelope

    def _decide(self, ask: Ask, prediction_id: str) -> Decision:
        table, selector = self._routing.table, ask.selector
        if selector.endpoint not in table.endpoints:
            check_segment(selector.endpoint, ask.field_names.endpoint)
        return table.route(selector, ask.unit, ask.caller.headers, prediction_id)

    def _queue_span(self, parent: trace.Span) -> Callable[[asyncio.Future[Prediction]], None]:
        """A span for the wait, made when it is over: until then nobody knows how long it was."""
        started_ns = time.time_ns()
        context = trace.set_span_in_context(parent)

        def record(result: asyncio.Future[Prediction]) -> None:
            if not result.cancelled() and result.exception() is None:
                ended_ns = started_ns + result.result().gateway_queue_us * 1000
                self._tracer.start_span("gateway.queue", context=context, start_time=started_ns).end(ended_ns)

        return record


def _state_of(ask: Ask, version: Version, plan: StatePlan, rows: int) -> Sequence[Tensor]:
    if ask.state is None:
        raise SessionRequired(
            f"{version.name} keeps state from item to item: open a stream (StreamPredict, or --stream), or name a "
            "sequence_id",
            model=version.model,
            version=version.number,
        )
    return ask.state(plan, rows)


def _nobody(endpoint: Endpoint, decision: Decision, envelope: Envelope) -> None:
    del endpoint, decision, envelope


def _describe(span: trace.Span, envelope: Envelope) -> None:
    span.set_attributes(
        {
            "inferway.endpoint": envelope.endpoint,
            "inferway.arm": envelope.arm,
            "inferway.generation": envelope.generation,
            "inferway.propensity": envelope.propensity,
            "inferway.model_version": envelope.version.name,
            "inferway.prediction_id": envelope.prediction_id,
            "inferway.rows": envelope.rows,
        }
    )
