"""Publishes a SavedModel directory through the registry's contract, with generated stubs alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2

M = TypeVar("M", bound=Message)

CHUNK_BYTES = 1024 * 1024


def publish(
    target: str,
    model: str,
    directory: Path,
    alias: str = "",
    config: resources_pb2.VersionConfig | None = None,
    runtime: resources_pb2.Runtime.ValueType = resources_pb2.RUNTIME_TENSORFLOW,
) -> resources_pb2.ModelVersion:
    """Uploads every file below `directory` as a new version of `model` and returns it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    manifest = resources_pb2.Manifest(
        artifacts=[
            resources_pb2.Artifact(
                path=str(path.relative_to(directory)),
                size_bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in files
        ]
    )
    with grpc.insecure_channel(target) as channel:
        call = _Caller(channel)
        request = pb.CreateUploadRequest(model=f"models/{model}", runtime=runtime, manifest=manifest, config=config)
        upload = call("CreateUpload", request, pb.CreateUploadResponse).upload
        done = {file.path: file.committed_bytes for file in upload.files}
        for artifact in manifest.artifacts:
            offset = done.get(artifact.path, 0)
            if offset < artifact.size_bytes:
                call.upload(upload.name, artifact.path, (directory / artifact.path).read_bytes(), offset)
        published = pb.PublishUploadRequest(name=upload.name, alias=alias)
        return call("PublishUpload", published, pb.PublishUploadResponse).model_version


class _Caller:
    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __call__(self, method: str, request: Message, response: type[M]) -> M:
        call = self._channel.unary_unary(
            f"/inferway.registry.v1.RegistryService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        answer: M = call(request, timeout=30)
        return answer

    def upload(self, upload: str, path: str, data: bytes, offset: int) -> None:
        def messages() -> Iterator[pb.UploadArtifactRequest]:
            yield pb.UploadArtifactRequest(header=pb.ArtifactHeader(upload=upload, path=path, offset_bytes=offset))
            for start in range(offset, len(data), CHUNK_BYTES):
                yield pb.UploadArtifactRequest(chunk=data[start : start + CHUNK_BYTES])

        call = self._channel.stream_unary(
            "/inferway.registry.v1.RegistryService/UploadArtifact",
            request_serializer=pb.UploadArtifactRequest.SerializeToString,
            response_deserializer=pb.UploadArtifactResponse.FromString,
        )
        call(messages(), timeout=60)
