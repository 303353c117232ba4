"""Between protobuf and the worker's own values, for the link and the status. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from inferway.status import to_status
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway_inference.counters import VersionCounters
from inferway_inference.explain import ExplainedCurve, ExplainedDecision, Explanation
from inferway_inference.latency import Speed
from inferway_inference.link import Grant, Outgoing
from inferway_inference.plan import PlanTrial, ServingPlan
from inferway_inference.tensors import Tensor
from inferway_inference.versions import VersionStatus
from inferway_inference.work import Answer, Request, Trace
from inferway_inference.worker import Worker

PROTOCOL_VERSION = 1
CAPABILITIES = ("hold",)
"""Older workers end a link that brings messages they do not know."""
DEFAULT_SIGNATURE = "serving_default"
FRAME_BYTES = 1024 * 1024
"""Answers beyond this go in further frames, so that a frame never comes near the limit of a message."""

_CRITICAL = tensor_pb2.CRITICALITY_CRITICAL

Reply = Callable[[Request, Answer], None]


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What gateways are told and given."""

    max_link_envelope_bytes: int
    default_timeout_seconds: float
    drain_grace_seconds: float


def request_of(envelope: pb.Envelope, reply: Reply, now: float, default_timeout_seconds: float) -> Request:
    """The request in an envelope, unchecked; 0 µs left counts as unset, and the default holds."""
    remaining_us = envelope.remaining_us
    return Request(
        id=envelope.id,
        version=envelope.version,
        signature_name=envelope.signature or DEFAULT_SIGNATURE,
        inputs=[Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), tensor.raw) for tensor in envelope.inputs],
        output_names=envelope.output_names,
        claimed_rows=envelope.rows,
        received_at=now,
        deadline=now + (remaining_us / 1e6 if remaining_us else default_timeout_seconds),
        reply=reply,
        criticality=envelope.criticality or _CRITICAL,
        tenant=envelope.tenant,
        gateway_queue_us=envelope.gateway_queue_us,
        trace=_trace(envelope) if envelope.traceparent else None,
        parameters=_parameters(envelope) if envelope.parameters else (),
    )


def responses(outgoing: Outgoing, worker: Worker, limits: LinkLimits) -> Iterator[pb.LinkResponse]:
    """The messages that tell a gateway what there is to tell."""
    if outgoing.hello:
        yield pb.LinkResponse(hello=hello(worker, limits.max_link_envelope_bytes))
    grants = [_grant(grant) for grant in outgoing.grants]
    for frame in _frames(outgoing.answers):
        frame.credits.extend(grants)
        grants = []
        yield pb.LinkResponse(answers=frame)
    for grant in grants:
        yield pb.LinkResponse(credits=grant)
    if outgoing.drain:
        grace = Duration()
        grace.FromNanoseconds(int(limits.drain_grace_seconds * 1e9))
        yield pb.LinkResponse(drain=pb.Drain(grace=grace))


def hello(worker: Worker, max_link_envelope_bytes: int) -> pb.WorkerHello:
    """How the worker introduces itself."""
    return pb.WorkerHello(
        protocol_version=PROTOCOL_VERSION,
        worker=worker.identity.name,
        boot_id=worker.identity.boot_id,
        capabilities=CAPABILITIES,
        versions=map(version_status, worker.statuses()),
        max_link_envelope_bytes=max_link_envelope_bytes,
    )


def version_status(status: VersionStatus) -> pb.VersionStatus:
    """How a version stands."""
    return pb.VersionStatus(
        version=status.version,
        state=pb.LoadState.ValueType(status.state),
        error=None if status.error is None else to_status(status.error),
        memory_bytes=status.memory_bytes,
        speed=_speed(status.speed),
        failed_attempts=status.failed_attempts,
        plan=None if status.plan is None else _plan(status.plan),
    )


def fill_answer(message: pb.Answer, request: Request, answer: Answer) -> None:
    """Writes an answer to `request` into `message`."""
    message.id = request.id
    if answer.error is not None:
        message.error.CopyFrom(to_status(answer.error))
    for tensor in answer.outputs:
        message.outputs.add(
            name=tensor.name,
            datatype=tensor_pb2.DataType.ValueType(tensor.datatype),
            shape=tensor.shape,
            raw=tensor.raw,
        )
    timing = answer.timing
    if timing is not None:
        told = message.timing
        told.gateway_queue_us = timing.gateway_queue_us
        told.worker_wait_us = timing.worker_wait_us
        told.compute_us = timing.compute_us
        told.batch_rows = timing.batch_rows
        told.dispatch_reason = tensor_pb2.DispatchReason.ValueType(timing.reason)


def statistics(version: str, counters: VersionCounters) -> pb.VersionStatistics:
    """The counters of a version."""
    return pb.VersionStatistics(
        version=version,
        success_count=counters.successes,
        failure_count=counters.failures,
        row_count=counters.rows,
        execution_count=counters.executions,
        queue_ns=counters.queue_ns,
        compute_input_ns=counters.input_ns,
        compute_infer_ns=counters.infer_ns,
        compute_output_ns=counters.output_ns,
        success_ns=counters.success_ns,
        failure_ns=counters.failure_ns,
        last_inference_ms=counters.last_inference_ms,
        batches=[
            pb.BatchStatistics(
                rows=rows,
                count=batch.count,
                compute_input_ns=batch.input_ns,
                compute_infer_ns=batch.infer_ns,
                compute_output_ns=batch.output_ns,
            )
            for rows, batch in sorted(counters.batches.items())
        ],
    )


def explanation(told: Explanation) -> pb.ExplainVersionResponse:
    """How a version is served, and why."""
    queue = told.queue
    return pb.ExplainVersionResponse(
        status=version_status(told.status),
        curves=map(_curve, told.curves),
        queue=pb.QueueStatus(
            requests=queue.requests, rows=queue.rows, bytes=queue.byte_count, oldest_us=int(queue.oldest_seconds * 1e6)
        ),
        credits=[
            pb.LinkCredits(gateway=link.gateway, open_rows=link.open_rows, share_rows=link.share_rows)
            for link in told.credits
        ],
        decisions=map(_decision, told.decisions),
    )


def _curve(curve: ExplainedCurve) -> pb.LatencyCurve:
    points = [
        pb.LatencyPoint(rows=knot.rows, compute_us=knot.seconds * 1e6, samples=knot.samples) for knot in curve.knots
    ]
    return pb.LatencyCurve(signature=curve.signature, shape=curve.shape, points=points)


def _decision(decision: ExplainedDecision) -> pb.BatchDecision:
    dispatch = decision.dispatch
    return pb.BatchDecision(
        dispatch_time_us=decision.dispatch_time_us,
        signature=dispatch.signature,
        requests=dispatch.requests,
        rows=dispatch.rows,
        reason=tensor_pb2.DispatchReason.ValueType(dispatch.reason),
        waited_us=int(dispatch.waited_seconds * 1e6),
        expected_us=int(dispatch.expected_seconds * 1e6),
        compute_us=int(dispatch.compute_seconds * 1e6),
        explanation=decision.words,
    )


def _grant(grant: Grant) -> pb.CreditGrant:
    speed = None if grant.speed is None else _speed(grant.speed)
    return pb.CreditGrant(version=grant.version, rows=grant.rows, speed=speed)


def _speed(speed: Speed) -> pb.SpeedModel:
    return pb.SpeedModel(rows_per_second=speed.rows_per_second, fixed_us=speed.fixed_us, row_us=speed.row_us)


def _plan(plan: ServingPlan) -> pb.ServingPlan:
    return pb.ServingPlan(
        isolation=plan.isolation,
        instances=plan.instances,
        callers=plan.callers,
        threads=plan.threads,
        call_path=plan.call_path,
        buckets=plan.buckets,
        max_batch_rows=plan.max_batch_rows,
        max_queue_delay_us=plan.max_queue_delay_us,
        trials=map(_trial, plan.trials),
    )


def _trial(trial: PlanTrial) -> pb.PlanTrial:
    return pb.PlanTrial(
        callers=trial.callers,
        threads=trial.threads,
        rows=trial.rows,
        rows_per_second=trial.rows_per_second,
        call_path=trial.call_path,
    )


def _frames(answers: Iterable[tuple[Request, Answer]]) -> Iterator[pb.AnswerFrame]:
    frame, size = pb.AnswerFrame(), 0
    for request, answer in answers:
        fill_answer(frame.answers.add(), request, answer)
        size += sum([len(tensor.raw) for tensor in answer.outputs])
        if size > FRAME_BYTES:
            yield frame
            frame, size = pb.AnswerFrame(), 0
    if frame.answers:
        yield frame


def _trace(envelope: pb.Envelope) -> Trace:
    return Trace(envelope.traceparent, envelope.tracestate, envelope.prediction_id, envelope.endpoint, envelope.arm)


def _parameters(envelope: pb.Envelope) -> Hashable:
    """Equal for envelopes whose parameters are equal, types included."""
    return tuple(sorted((name, value.SerializeToString()) for name, value in envelope.parameters.items()))
