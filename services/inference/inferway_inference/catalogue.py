"""What the registry says, as the worker's own values: the snapshot's versions, and the files behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from inferway.datatypes import Datatype
from inferway.errors import InferwayError, StoreUnavailable
from inferway.names import parse_version
from inferway.registry.v1 import registry_service_pb2, resources_pb2
from inferway.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from inferway.registry.v1.watch_service_pb2 import RoutingSnapshot
from inferway.status import from_status
from inferway.type.v1 import tensor_pb2
from inferway_chassis.channel import open_channel
from inferway_inference.plan import ServingBounds
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.versions import Artifact, Desired, Manifest, VersionSpec

_ISOLATIONS = {resources_pb2.ISOLATION_GROUP: "group", resources_pb2.ISOLATION_INLINE: "inline"}
_STATUS_KEY = "grpc-status-details-bin"
_BASE_SECONDS = 30.0
_BYTES_PER_SECOND = 1024 * 1024
"""A download slower than this is begun anew, from where it was."""


def desired(snapshot: RoutingSnapshot) -> Desired:
    """What the snapshot wants of workers; raises InferwayError or ValueError if it cannot be understood."""
    wanted = {}
    for routed in snapshot.versions:
        if routed.wanted:
            parse_version(routed.model_version.name)
            wanted[routed.model_version.name] = version_spec(routed.model_version)
    versions = [routed.model_version for routed in snapshot.versions]
    return Desired(
        wanted,
        known_digests=frozenset(version.manifest.digest for version in versions),
        published={
            version.name: version.manifest.digest
            for version in versions
            if version.state != resources_pb2.ModelVersion.STATE_UNLOADED
        },
    )


def version_spec(version: resources_pb2.ModelVersion) -> VersionSpec:
    """A version of the catalogue; raises ValueError for datatypes that are unknown here."""
    return VersionSpec(
        name=version.name,
        runtime=resources_pb2.Runtime.Name(version.runtime).removeprefix("RUNTIME_").lower(),
        manifest=Manifest(
            version.manifest.digest,
            tuple(Artifact(file.path, file.size_bytes, file.sha256) for file in version.manifest.artifacts),
        ),
        signatures=tuple(map(_signature, version.signatures)),
        max_batch_rows=version.config.max_batch_rows,
        isolation=_ISOLATIONS.get(version.config.isolation, "process"),
        memory_bytes=version.config.memory_bytes,
        bounds=_bounds(version.serving_options),
    )


def _bounds(options: resources_pb2.ServingOptions) -> ServingBounds:
    """Zero means unset, but for the delay: none at all is a choice."""
    delay = options.max_queue_delay.ToTimedelta().total_seconds() if options.HasField("max_queue_delay") else None
    return ServingBounds(options.max_batch_rows or None, delay, tuple(options.buckets), options.instances or None)


def _signature(signature: tensor_pb2.Signature) -> Signature:
    return Signature.of(
        signature.name, [_spec(spec) for spec in signature.inputs], [_spec(spec) for spec in signature.outputs]
    )


def _spec(spec: tensor_pb2.TensorSpec) -> TensorSpec:
    shape = None if spec.unknown_rank else tuple(spec.shape)
    return TensorSpec(spec.name, Datatype(spec.datatype), shape, spec.forbid_nan)


class RegistryFiles:
    """Files of versions, read from the registry."""

    def __init__(self, target: str) -> None:
        """Connects to `target` (`host:port`) for each file anew: loads are rare, and the registry may move."""
        self._target = target

    async def read(self, version: str, path: str, offset: int, size_bytes: int) -> AsyncIterator[bytes]:
        """Yields the rest of a file; raises the registry's error, or StoreUnavailable if it cannot be reached."""
        request = registry_service_pb2.DownloadArtifactRequest(version=version, path=path, offset_bytes=offset)
        timeout = _BASE_SECONDS + (size_bytes - offset) / _BYTES_PER_SECOND
        async with open_channel(self._target) as channel:
            try:
                async for response in RegistryServiceStub(channel).DownloadArtifact(request, timeout=timeout):
                    yield response.chunk
            except grpc.aio.AioRpcError as error:
                raise registry_error(error) from error


def registry_error(error: grpc.aio.AioRpcError) -> InferwayError:
    """The registry's own error if it sent one; otherwise it could not be reached."""
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                break
    return StoreUnavailable(f"the registry cannot be reached ({error.code().name})")
