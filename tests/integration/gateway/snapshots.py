"""Routing snapshots as a registry would send them, from a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferway.registry.v1.resources_pb2 import RUNTIME_TENSORFLOW, Arm, Endpoint, ModelVersion
from inferway.registry.v1.watch_service_pb2 import RoutedAlias, RoutedVersion, RoutedWorker, RoutingSnapshot
from inferway.type.v1 import tensor_pb2
from inferway_chassis.routing_feed import digest_of

FP32, INT8, BYTES, FP16 = (
    tensor_pb2.DATA_TYPE_FP32,
    tensor_pb2.DATA_TYPE_INT8,
    tensor_pb2.DATA_TYPE_BYTES,
    tensor_pb2.DATA_TYPE_FP16,
)


def spec(
    name: str, shape: Sequence[int] = (-1, 4), datatype: tensor_pb2.DataType.ValueType = FP32
) -> tensor_pb2.TensorSpec:
    """One input or output."""
    return tensor_pb2.TensorSpec(name=name, datatype=datatype, shape=shape)


def signature(
    *inputs: tensor_pb2.TensorSpec, outputs: Sequence[tensor_pb2.TensorSpec] = (), name: str = "serving_default"
) -> tensor_pb2.Signature:
    """A callable; one FP32 output `y` if none is given."""
    return tensor_pb2.Signature(name=name, inputs=inputs, outputs=outputs or [spec("y")])


ECHO = signature(spec("x"))
"""Takes `x` FP32 [-1,4] and answers `y` of the same form."""


def version(
    number: int = 1,
    model: str = "echo",
    signatures: Sequence[tensor_pb2.Signature] = (ECHO,),
    *,
    wanted: bool = True,
    unloaded: bool = False,
    idempotent: bool = True,
) -> RoutedVersion:
    """A published version."""
    state = ModelVersion.STATE_UNLOADED if unloaded else ModelVersion.STATE_PUBLISHED
    routed = RoutedVersion(
        model_version=ModelVersion(
            name=f"models/{model}/versions/{number}",
            version=number,
            state=state,
            signatures=signatures,
            runtime=RUNTIME_TENSORFLOW,
        ),
        wanted=wanted,
    )
    routed.model_version.config.idempotent = idempotent
    return routed


def endpoint(
    name: str = "echo", arms: Mapping[str, int] | None = None, next_version: str = "", salt: str = "salt"
) -> Endpoint:
    """An endpoint; `arms` are weights by version name, version 1 alone if none are given."""
    weights = {f"models/{name}/versions/1": 10_000} if arms is None else arms
    return Endpoint(
        name=f"endpoints/{name}",
        arms=[Arm(arm=f"v{v.rpartition('/')[2]}", version=v, weight_basis_points=w) for v, w in weights.items()],
        salt=salt,
        generation=7,
        next_version=next_version,
    )


def snapshot(
    *,
    versions: Sequence[RoutedVersion],
    endpoints: Sequence[Endpoint] = (),
    aliases: Mapping[str, str] | None = None,
    workers: Sequence[str] = (),
    revision: int = 1,
) -> RoutingSnapshot:
    """A whole snapshot with its digest; `aliases` of model `echo` by name, `workers` by address."""
    whole = RoutingSnapshot(
        epoch="test",
        revision=revision,
        membership_revision=revision,
        versions=versions,
        endpoints=endpoints or [endpoint()],
        aliases=[RoutedAlias(model="models/echo", alias=a, version=v) for a, v in (aliases or {}).items()],
        workers=[RoutedWorker(name=f"workers/w{i}", address=address) for i, address in enumerate(workers)],
    )
    whole.digest = digest_of(whole)
    return whole
