"""Models in the words of the Open Inference Protocol and of Triton: metadata, configuration, statistics, index."""

from __future__ import annotations

from collections.abc import Iterable

from inferway.datatypes import Datatype
from inferway.foreign.inference import grpc_service_pb2 as pb
from inferway.foreign.inference import model_config_pb2 as config_pb
from inferway.worker.v1.worker_service_pb2 import BatchStatistics, GetWorkerStatusResponse, VersionStatistics
from inferway_gateway.models import Description, IndexEntry
from inferway_gateway.routing import Version
from inferway_gateway.sessions.sequences import SequenceLimits
from inferway_gateway.signature import TensorSpec
from inferway_gateway.state import StatePlan

EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "model_configuration",
    "schedule_policy",
    "statistics",
    "binary_tensor_data",
    "parameters",
)
"""Triton's names for what is served in full."""
_DEFAULT_MAX_BATCH_ROWS = 512
"""What tools are told of a version whose publisher left the limit to the worker."""
_TYPES: dict[Datatype, config_pb.DataType.ValueType] = {
    datatype: config_pb.TYPE_STRING if datatype is Datatype.BYTES else config_pb.DataType.Value(f"TYPE_{datatype.name}")
    for datatype in Datatype
}


def to_metadata(name: str, description: Description) -> pb.ModelMetadataResponse:
    """Shapes include the batch dimension; a tensor of unknown rank shows none."""
    response = pb.ModelMetadataResponse(
        name=name, versions=map(str, description.numbers), platform=description.version.platform
    )
    for spec in description.signature.inputs:
        response.inputs.add(name=spec.name, datatype=spec.datatype.name, shape=spec.shape or ())
    for spec in description.signature.outputs:
        response.outputs.add(name=spec.name, datatype=spec.datatype.name, shape=spec.shape or ())
    return response


def to_config(name: str, description: Description, limits: SequenceLimits) -> pb.ModelConfigResponse:
    """Dimensions are without that of the batch if the signature has one. `limits` are those of stateful models."""
    version, signature = description.version, description.signature
    response = pb.ModelConfigResponse()
    config = response.config
    config.name, config.platform = name, version.platform
    config.backend = version.platform.partition("_")[0]
    config.version_policy.specific.versions.append(version.number)
    if signature.batchable:
        config.max_batch_size = version.max_batch_rows or _DEFAULT_MAX_BATCH_ROWS
    plan = version.stateful.get(signature.name)
    if plan is not None:
        _write_sequences(config.sequence_batching, plan, limits)
    elif signature.batchable:
        config.dynamic_batching.SetInParent()
    for spec in signature.inputs:
        dims = _dims(spec, batched=signature.batchable)
        config.input.add(name=spec.name, data_type=_TYPES[spec.datatype], dims=dims)
    for spec in signature.outputs:
        dims = _dims(spec, batched=signature.batchable)
        config.output.add(name=spec.name, data_type=_TYPES[spec.datatype], dims=dims)
    return response


def _write_sequences(batching: config_pb.ModelSequenceBatching, plan: StatePlan, limits: SequenceLimits) -> None:
    batching.max_sequence_idle_microseconds = round(limits.idle_seconds * 1e6)
    batching.oldest.max_candidate_sequences = limits.max_sequences
    for spec in plan.specs:
        data_type = _TYPES[spec.datatype]
        state = batching.state.add(input_name=spec.input, output_name=spec.output, data_type=data_type, dims=spec.shape)
        if not any(spec.initial):
            state.initial_state.add(name=spec.input, data_type=data_type, dims=spec.shape, zero_data=True)


def _dims(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    return (spec.shape or ())[1 if batched else 0 :]


def to_index(entries: Iterable[IndexEntry], *, ready_only: bool) -> pb.RepositoryIndexResponse:
    """One row a version."""
    response = pb.RepositoryIndexResponse()
    for version, state, reason in entries:
        if state == "READY" or not ready_only:
            response.models.add(name=version.model, version=str(version.number), state=state, reason=reason)
    return response


def to_statistics(
    versions: Iterable[Version], workers: Iterable[GetWorkerStatusResponse]
) -> pb.ModelStatisticsResponse:
    """The counters of all workers for each of `versions`, summed; versions that nobody has counted show zeros."""
    counted: dict[str, list[VersionStatistics]] = {}
    for worker in workers:
        for statistics in worker.statistics:
            counted.setdefault(statistics.version, []).append(statistics)
    response = pb.ModelStatisticsResponse()
    for version in versions:
        target = response.model_stats.add(name=version.model, version=str(version.number))
        for statistics in counted.get(version.name, ()):
            _add(target, statistics)
    return response


def _add(target: pb.ModelStatistics, source: VersionStatistics) -> None:
    target.last_inference = max(target.last_inference, source.last_inference_ms)
    target.inference_count += source.row_count
    target.execution_count += source.execution_count
    stats = target.inference_stats
    _add_duration(stats.success, source.success_count, source.success_ns)
    _add_duration(stats.fail, source.failure_count, source.failure_ns)
    _add_duration(stats.queue, source.success_count, source.queue_ns)
    _add_duration(stats.compute_input, source.success_count, source.compute_input_ns)
    _add_duration(stats.compute_infer, source.success_count, source.compute_infer_ns)
    _add_duration(stats.compute_output, source.success_count, source.compute_output_ns)
    for batch in source.batches:
        _add_batch(_batch_of(target, batch.rows), batch)


def _batch_of(target: pb.ModelStatistics, rows: int) -> pb.InferBatchStatistics:
    for batch in target.batch_stats:
        if batch.batch_size == rows:
            return batch
    return target.batch_stats.add(batch_size=rows)


def _add_batch(target: pb.InferBatchStatistics, source: BatchStatistics) -> None:
    _add_duration(target.compute_input, source.count, source.compute_input_ns)
    _add_duration(target.compute_infer, source.count, source.compute_infer_ns)
    _add_duration(target.compute_output, source.count, source.compute_output_ns)


def _add_duration(target: pb.StatisticDuration, count: int, nanoseconds: int) -> None:
    target.count += count
    target.ns += nanoseconds
