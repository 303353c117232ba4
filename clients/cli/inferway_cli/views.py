"""Resources as rows: the same for tables and for JSON, so that the two never disagree."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from inferway.datatypes import Datatype
from inferway.registry.v1 import resources_pb2
from inferway.status import from_status
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.rollouts.spec import match_in_words
from inferway_cli.serving_words import options_in_words, plan_in_short, policy_in_words, size, stream_policy_name


def bare(name: str) -> str:
    """The last segment of a resource name."""
    return name.rpartition("/")[2]


def model_row(model: resources_pb2.Model) -> dict[str, Any]:
    """Name, versions, aliases."""
    return {
        "model": bare(model.name),
        "versions": list(model.version_numbers),
        "aliases": {alias.alias: alias.version for alias in model.aliases},
        "version_policy": policy_in_words(model.version_policy),
        "created": timestamp(model.create_time),
    }


def version_row(version: resources_pb2.ModelVersion, aliases: Iterable[resources_pb2.Alias]) -> dict[str, Any]:
    """What the registry and every worker say of a version."""
    artifacts = version.manifest.artifacts
    return {
        "version": version.version,
        "state": resources_pb2.ModelVersion.State.Name(version.state).removeprefix("STATE_"),
        "aliases": [alias.alias for alias in aliases if alias.version == version.version],
        "runtime": resources_pb2.Runtime.Name(version.runtime).removeprefix("RUNTIME_").lower(),
        "bytes": sum(artifact.size_bytes for artifact in artifacts),
        "digest": version.manifest.digest,
        "description": version.config.description,
        "labels": dict(version.config.labels),
        "created": timestamp(version.create_time),
        "serving_options": options_in_words(version.serving_options),
        "workers": {bare(entry.worker): load_state(entry.status) for entry in version.workers},
        "runs": {bare(entry.worker): _runs(entry.status) for entry in version.workers},
        "signatures": {signature.name: _signature(signature) for signature in version.signatures},
        "state_bindings": [_binding(binding) for binding in version.config.state],
    }


def endpoint_row(endpoint: resources_pb2.Endpoint) -> dict[str, Any]:
    """Where an endpoint's traffic goes."""
    return {
        "endpoint": bare(endpoint.name),
        "arms": {arm.arm: f"{_short(arm.version)} {arm.weight_basis_points / 100:g}%" for arm in endpoint.arms},
        "automatic": endpoint.automatic,
        "next": _short(endpoint.next_version) if endpoint.next_version else "",
        "generation": endpoint.generation,
        "streams": stream_policy_name(endpoint.stream_policy),
        "rules": [f"{match_in_words(rule.match)} -> {rule.arm}" for rule in endpoint.match_rules],
        "rollout": endpoint.rollout.rollout.removeprefix("endpoints/").replace("/rollouts/", "/"),
        "split": _split(endpoint.split) if endpoint.HasField("split") else None,
    }


def worker_row(worker: resources_pb2.Worker) -> dict[str, Any]:
    """Where a worker is and how its versions stand."""
    return {
        "worker": bare(worker.name),
        "address": worker.address,
        "state": "DRAINING" if worker.draining else "SERVING",
        "labels": dict(worker.labels),
        "versions": {_short(status.version): load_state(status) for status in worker.versions},
    }


def load_state(status: worker_service_pb2.VersionStatus) -> str:
    """A version's state on a worker; with the reason, if it failed, also while it is tried again."""
    state = worker_service_pb2.LoadState.Name(status.state).removeprefix("LOAD_STATE_")
    if status.state == worker_service_pb2.LOAD_STATE_FAILED:
        return f"{state}: {from_status(status.error).message} (attempt {status.failed_attempts})"
    return f"{state} again, after: {from_status(status.error).message}" if status.HasField("error") else state


def pairs(mapping: dict[str, Any]) -> list[str]:
    """A mapping as the cells of a table show it."""
    return [f"{key} {value}" for key, value in mapping.items()]


def _split(check: resources_pb2.SplitCheck) -> dict[str, Any]:
    return {
        "verdict": "as assigned" if check.mismatch == resources_pb2.SplitCheck.MISMATCH_NONE else "srm",
        "units": {arm.arm: arm.units for arm in check.arms},
        "answered": {arm.arm: arm.answered for arm in check.arms},
        "explanation": check.explanation,
    }


def _runs(status: worker_service_pb2.VersionStatus) -> list[str]:
    memory = [size(status.memory_bytes)] if status.memory_bytes else []
    return memory + ([plan_in_short(status.plan)] if status.HasField("plan") else [])


def _signature(signature: tensor_pb2.Signature) -> dict[str, list[dict[str, Any]]]:
    return {
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def _binding(binding: resources_pb2.StateBinding) -> dict[str, Any]:
    return {
        "signature": binding.signature,
        "output": binding.output,
        "input": binding.input,
        "shape": list(binding.shape),
        "initial": base64.b64encode(binding.initial).decode(),
    }


def _tensor(spec: tensor_pb2.TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": Datatype(spec.datatype).name,
        "shape": None if spec.unknown_rank else list(spec.shape),
    }


def _short(version: str) -> str:
    """`models/digits/versions/3` as `digits/3`."""
    return version.removeprefix("models/").replace("/versions/", "/")


def timestamp(moment: Timestamp) -> str:
    """As ISO 8601 in UTC; empty if it is not set."""
    return moment.ToDatetime().isoformat(timespec="seconds") + "Z" if moment.seconds else ""
