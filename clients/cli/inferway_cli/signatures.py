"""What a model takes and gives, asked of the gateway that will answer for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import grpc

from inferway.datatypes import Datatype
from inferway.errors import NotSupported
from inferway.foreign.inference import grpc_service_pb2
from inferway_cli.addresses import MAX_MESSAGE_BYTES
from inferway_client import Version
from inferway_client.transport import open_channel, translated_errors

_METHOD = "/inference.GRPCInferenceService/ModelMetadata"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Datatype and shape of one input or output; -1 is any size."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """The default signature of a version."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


async def fetch_signature(gateway: str, endpoint: str, version: Version, timeout_seconds: float) -> Signature:
    """Asks by the Open Inference Protocol. Raises Unreachable, EndpointNotFound, VersionNotFound and the like."""
    request = grpc_service_pb2.ModelMetadataRequest(name=endpoint, version="" if version is None else str(version))
    async with open_channel(gateway, MAX_MESSAGE_BYTES) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[
            grpc_service_pb2.ModelMetadataRequest, grpc_service_pb2.ModelMetadataResponse
        ] = channel.unary_unary(
            _METHOD,
            grpc_service_pb2.ModelMetadataRequest.SerializeToString,
            grpc_service_pb2.ModelMetadataResponse.FromString,
        )
        with translated_errors(gateway):
            metadata = await call(request, timeout=timeout_seconds)
    return Signature(_specs(metadata.inputs), _specs(metadata.outputs))


def _specs(tensors: Iterable[grpc_service_pb2.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, _datatype(tensor.datatype), tuple(tensor.shape)) for tensor in tensors)


def _datatype(name: str) -> Datatype:
    if name not in Datatype.__members__:
        raise NotSupported(f"the model has a tensor of datatype {name}, which this command does not know", feature=name)
    return Datatype[name]
