"""Between protobuf and the gateway's own types: the routing snapshot and the link. The doors convert their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from inferway import names
from inferway.datatypes import Datatype, element_count
from inferway.errors import InvalidName
from inferway.registry.v1 import resources_pb2, rollouts_pb2, watch_service_pb2
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_gateway.forecast import Speed
from inferway_gateway.lane import Flight
from inferway_gateway.matching import MatchRule
from inferway_gateway.rollouts.plan import ExamplePolicy, MirrorPlan, RolloutPlan
from inferway_gateway.routing import WHOLE, Arm, Endpoint, RoutingTable, StreamPolicy, TableRefused, Version
from inferway_gateway.signature import Signature, TensorSpec
from inferway_gateway.state import StatePlan, StateSpec
from inferway_gateway.workers import LoadState, Standing

PLATFORMS = {
    resources_pb2.RUNTIME_TENSORFLOW: "tensorflow_savedmodel",
    resources_pb2.RUNTIME_ONNX: "onnxruntime_onnx",
    resources_pb2.RUNTIME_LITERT: "litert",
}
"""Runtimes as Triton names platforms."""

_STREAM_POLICIES = {
    resources_pb2.STREAM_POLICY_FINISH: StreamPolicy.FINISH,
    resources_pb2.STREAM_POLICY_MIGRATE: StreamPolicy.MIGRATE,
}
_EXAMPLES = {
    rollouts_pb2.EXAMPLE_POLICY_UNSPECIFIED: ExamplePolicy.OUTPUTS,
    rollouts_pb2.EXAMPLE_POLICY_REDACTED: ExamplePolicy.REDACTED,
    rollouts_pb2.EXAMPLE_POLICY_OUTPUTS: ExamplePolicy.OUTPUTS,
    rollouts_pb2.EXAMPLE_POLICY_INPUTS_AND_OUTPUTS: ExamplePolicy.INPUTS_AND_OUTPUTS,
}
"""One that a newer registry knows keeps nothing of requests."""
_ABSOLUTE_TOLERANCE, _RELATIVE_TOLERANCE = 1e-5, 1e-3
"""Where a snapshot says nothing."""
EMPTY_STRING_BYTES = 4
"""An empty byte string in raw contents: its length."""
_HOP_RESERVE_SHARE = 0.02
_HOP_RESERVE_SECONDS = 0.001


def to_table(snapshot: watch_service_pb2.RoutingSnapshot) -> RoutingTable:
    """The table that `snapshot` describes; raises TableRefused if its parts contradict each other."""
    try:
        versions = [_version(routed) for routed in snapshot.versions]
        return RoutingTable(
            epoch=snapshot.epoch,
            revision=snapshot.revision,
            endpoints={endpoint.name: endpoint for endpoint in map(_endpoint, snapshot.endpoints)},
            versions={version.name: version for version in versions},
            aliases={(names.parse(alias.model, "models"), alias.alias): alias.version for alias in snapshot.aliases},
        )
    except (InvalidName, ValueError) as error:
        raise TableRefused(str(error)) from error


def to_addresses(snapshot: watch_service_pb2.RoutingSnapshot) -> set[str]:
    """Where the workers of `snapshot` listen."""
    return {worker.address for worker in snapshot.workers}


def _version(routed: watch_service_pb2.RoutedVersion) -> Version:
    source = routed.model_version
    model, number = names.parse_version(source.name)
    config = source.config
    signatures = {signature.name: _signature(signature) for signature in source.signatures if _is_known(signature)}
    stateful = _state_plans(config.state, signatures)
    return Version(
        name=source.name,
        model=model,
        number=number,
        signatures=signatures | {name: plan.public for name, plan in stateful.items()},
        wanted=routed.wanted,
        unloaded=source.state == resources_pb2.ModelVersion.STATE_UNLOADED,
        idempotent=config.idempotent if config.HasField("idempotent") else True,
        max_batch_rows=config.max_batch_rows,
        platform=PLATFORMS.get(source.runtime, ""),
        stateful=stateful,
    )


def _state_plans(
    bindings: Iterable[resources_pb2.StateBinding], signatures: Mapping[str, Signature]
) -> dict[str, StatePlan]:
    """The plan of each stateful signature; raises ValueError if a binding names what is not there."""
    specs = defaultdict[str, list[StateSpec]](list)
    for binding in bindings:
        if binding.signature in signatures:
            specs[binding.signature].append(_state_spec(signatures[binding.signature], binding))
    return {name: StatePlan(signatures[name], tuple(found)) for name, found in specs.items()}


def _state_spec(signature: Signature, binding: resources_pb2.StateBinding) -> StateSpec:
    plan = signature.plans.get(binding.input)
    if plan is None:
        raise ValueError(f"signature {signature.name} has no input {binding.input} to take its state")
    count = element_count(binding.shape)
    initial = binding.initial or bytes(count * (plan.item_bytes or EMPTY_STRING_BYTES))
    return StateSpec(binding.input, binding.output, plan.spec.datatype, tuple(binding.shape), initial)


def _signature(source: tensor_pb2.Signature) -> Signature:
    return Signature(source.name, tuple(map(_spec, source.inputs)), tuple(map(_spec, source.outputs)))


def _is_known(source: tensor_pb2.Signature) -> bool:
    """Whether this gateway can speak of all its tensors; one that cannot serves the other signatures."""
    known = {int(datatype) for datatype in Datatype}
    return all(spec.datatype in known for spec in (*source.inputs, *source.outputs))


def _spec(source: tensor_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(source.name, Datatype(source.datatype), None if source.unknown_rank else tuple(source.shape))


def _endpoint(source: resources_pb2.Endpoint) -> Endpoint:
    return Endpoint(
        name=names.parse(source.name, "endpoints"),
        arms=tuple(Arm(arm.arm, arm.version, arm.weight_basis_points) for arm in source.arms),
        salt=source.salt,
        generation=source.generation,
        next_version=source.next_version,
        stream_policy=_STREAM_POLICIES.get(source.stream_policy),
        match_rules=tuple(map(_match_rule, source.match_rules)),
        rollout=_rollout(source.rollout) if source.HasField("rollout") else None,
    )


def _match_rule(source: resources_pb2.MatchRule) -> MatchRule:
    match = source.match
    kind = match.WhichOneof("value")
    if not match.header or kind is None:
        raise TableRefused(f"a rule for arm {source.arm} matches nothing")
    return MatchRule(match.header, match.prefix if kind == "prefix" else match.exact, kind == "prefix", source.arm)


def _rollout(source: resources_pb2.RolloutDirective) -> RolloutPlan:
    return RolloutPlan(
        rollout=source.rollout,
        stable_arm=source.stable_arm,
        candidate_arm=source.candidate_arm,
        counts=source.counts,
        profiles=source.profiles,
        p95_seconds=source.p95_us / 1e6,
        p99_seconds=source.p99_us / 1e6,
        edges={each.output: _ascending(each.edges, each.output) for each in source.output_edges},
        brake_alpha=source.brake_alpha,
        mirror=_mirror(source.mirror) if source.HasField("mirror") else None,
    )


def _mirror(source: resources_pb2.MirrorDirective) -> MirrorPlan:
    mirror = source.mirror
    if not 1 <= mirror.sample_basis_points <= WHOLE:
        raise TableRefused(f"copies for {source.version} are of {mirror.sample_basis_points} basis points of the units")
    return MirrorPlan(
        version=source.version,
        sample_basis_points=mirror.sample_basis_points,
        absolute_tolerance=mirror.absolute_tolerance if mirror.HasField("absolute_tolerance") else _ABSOLUTE_TOLERANCE,
        relative_tolerance=mirror.relative_tolerance if mirror.HasField("relative_tolerance") else _RELATIVE_TOLERANCE,
        examples=_EXAMPLES.get(mirror.examples, ExamplePolicy.REDACTED),
    )


def _ascending(edges: Sequence[float], output: str) -> tuple[float, ...]:
    if any(not low < high for low, high in pairwise(edges)):
        raise TableRefused(f"the edges of output {output} do not ascend")
    return tuple(edges)


def to_standings(statuses: Iterable[worker_service_pb2.VersionStatus]) -> dict[str, Standing]:
    """How versions stand, by name. States of a newer worker that this gateway does not know count as none."""
    known = {int(state) for state in LoadState}
    return {
        status.version: Standing(LoadState(status.state if status.state in known else 0), status.error.message)
        for status in statuses
    }


def to_speeds(statuses: Iterable[worker_service_pb2.VersionStatus]) -> dict[str, Speed]:
    """What is known of the speed of versions, by name."""
    return {status.version: to_speed(status.speed) for status in statuses if status.speed.rows_per_second > 0}


def to_speed(source: worker_service_pb2.SpeedModel) -> Speed:
    """What a worker has told."""
    return Speed(source.rows_per_second, source.fixed_us, source.row_us)


def write_envelope(target: worker_service_pb2.Envelope, flight: Flight, now: float) -> None:
    """Writes what `flight` carries into the empty message `target`; `now` is on the gateway's clock."""
    envelope = flight.envelope
    left = envelope.deadline - now
    target.id = flight.ticket
    target.version = envelope.version.name
    target.signature = envelope.signature
    target.rows = envelope.rows
    reserve = max(_HOP_RESERVE_SECONDS, left * _HOP_RESERVE_SHARE)
    target.remaining_us = max(1, int((left - reserve) * 1e6))  # 0 would mean that there is no deadline
    target.criticality = envelope.caller.criticality  # type: ignore[assignment] # the numbers are the enum's
    target.attempt = flight.attempt
    target.endpoint = envelope.endpoint
    target.arm = envelope.arm
    target.generation = envelope.generation
    target.propensity_basis_points = envelope.propensity
    target.prediction_id = envelope.prediction_id
    target.gateway_queue_us = int((flight.bound_at - envelope.received_at) * 1e6)
    if envelope.caller.tenant:
        target.tenant = envelope.caller.tenant
    if envelope.outputs:
        target.output_names.extend(envelope.outputs)
    if envelope.traceparent:
        target.traceparent, target.tracestate = envelope.traceparent, envelope.tracestate
    # A field of bytes is copied once here; a message passed whole would be copied by way of its serialised form.
    for name, datatype, shape, raw in envelope.inputs:
        target.inputs.add(name=name, datatype=int(datatype), shape=shape, raw=raw)
