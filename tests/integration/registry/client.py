"""Talks to a registry as any client does: generated stubs over a channel."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from typing import Any

from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.errors import InferwayError
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2 as resources
from inferway.registry.v1.endpoint_service_pb2 import GetEndpointRequest
from inferway.registry.v1.endpoint_service_pb2_grpc import EndpointServiceStub
from inferway.registry.v1.fleet_service_pb2_grpc import FleetServiceStub
from inferway.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceStub
from inferway.status import from_status
from tests.unit.registry.graphs import model_files, sha256

CALL_SECONDS = 10.0


class Client:
    """Stubs of all four services, and the steps of an upload."""

    def __init__(self, channel: aio.Channel, target: str = "") -> None:
        """Calls go over `channel`, which leads to `target`."""
        self.channel = channel
        self.target = target
        self.registry = RegistryServiceStub(channel)
        self.endpoints = EndpointServiceStub(channel)
        self.fleet = FleetServiceStub(channel)
        self.watch = WatchServiceStub(channel)

    async def begin(
        self, model: str = "digits", files: Mapping[str, bytes] | None = None, **fields: Any
    ) -> resources.Upload:
        """Begins an upload of `files`."""
        request = pb.CreateUploadRequest(
            model=f"models/{model}",
            runtime=fields.pop("runtime", resources.RUNTIME_TENSORFLOW),
            manifest=fields.pop("manifest", manifest(model_files() if files is None else files)),
            **fields,
        )
        return (await self.registry.CreateUpload(request, timeout=CALL_SECONDS)).upload

    async def send(self, upload: str, path: str, chunks: Iterable[bytes], offset: int = 0) -> int:
        """Sends chunks of one file and returns how much of it is stored."""
        messages = [header(upload, path, offset), *(pb.UploadArtifactRequest(chunk=chunk) for chunk in chunks)]
        response = await self.registry.UploadArtifact(iter(messages), timeout=CALL_SECONDS)
        return response.file.committed_bytes

    async def fill(self, files: Mapping[str, bytes] | None = None, **fields: Any) -> resources.Upload:
        """Begins an upload and sends every file."""
        files = model_files() if files is None else files
        upload = await self.begin(files=files, **fields)
        stored = {file.path: file.committed_bytes for file in upload.files}
        for path, data in files.items():
            if stored[path] < len(data):
                await self.send(upload.name, path, [data])
        return upload

    async def publish(self, upload: str, alias: str = "", request_id: str = "") -> resources.ModelVersion:
        """Publishes an upload."""
        request = pb.PublishUploadRequest(name=upload, alias=alias, request_id=request_id)
        return (await self.registry.PublishUpload(request, timeout=CALL_SECONDS)).model_version

    async def push(
        self, model: str = "digits", weights: bytes = b"weights", alias: str = "", **fields: Any
    ) -> resources.ModelVersion:
        """All of it."""
        upload = await self.fill(model_files(weights), model=model, **fields)
        return await self.publish(upload.name, alias)

    async def progress(self, upload: str) -> dict[str, int]:
        """Committed bytes by path."""
        response = await self.registry.GetUpload(pb.GetUploadRequest(name=upload), timeout=CALL_SECONDS)
        return {file.path: file.committed_bytes for file in response.upload.files}

    async def download(self, version: str, path: str, offset: int = 0) -> bytes:
        """A file of a version."""
        request = pb.DownloadArtifactRequest(version=version, path=path, offset_bytes=offset)
        call = self.registry.DownloadArtifact(request, timeout=CALL_SECONDS)
        return b"".join([response.chunk async for response in call])

    async def endpoint(self, name: str) -> resources.Endpoint:
        """An endpoint."""
        request = GetEndpointRequest(name=f"endpoints/{name}")
        return (await self.endpoints.GetEndpoint(request, timeout=CALL_SECONDS)).endpoint

    async def model(self, name: str) -> resources.Model:
        """A model."""
        return (await self.registry.GetModel(pb.GetModelRequest(name=f"models/{name}"), timeout=CALL_SECONDS)).model


def manifest(files: Mapping[str, bytes]) -> resources.Manifest:
    """The manifest of files."""
    return resources.Manifest(
        artifacts=[
            resources.Artifact(path=path, size_bytes=len(data), sha256=sha256(data)) for path, data in files.items()
        ]
    )


def header(upload: str, path: str, offset: int = 0) -> pb.UploadArtifactRequest:
    """The first message of an upload's call."""
    return pb.UploadArtifactRequest(header=pb.ArtifactHeader(upload=upload, path=path, offset_bytes=offset))


def request_id() -> str:
    """A fresh one."""
    return str(uuid.uuid4())


async def refusal(call: Awaitable[object]) -> InferwayError:
    """The typed error with which a call ends."""
    try:
        answer = await call
    except aio.AioRpcError as error:
        refused = error
    else:
        raise AssertionError(f"not refused: {answer}")
    details = dict(refused.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(details, bytes), f"grpc itself refused: {refused.code().name} {refused.details()}"
    return from_status(Status.FromString(details))


async def first(stream: AsyncIterable[Any]) -> Any:
    """The next message of a stream, in time."""
    async with asyncio.timeout(CALL_SECONDS):
        return await anext(aiter(stream))
