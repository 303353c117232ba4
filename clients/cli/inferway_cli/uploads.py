"""Publishes a model: begin or resume, send what is missing, publish.

A push that broke, in this process or an earlier one, goes on where it stopped: the same content from the same machine
asks for its upload under the same request id, and the registry says how much of each file it has.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from inferway import names
from inferway.errors import Unavailable, UploadConflict, UploadNotFound, UploadOffsetMismatch
from inferway.registry.v1 import registry_service_pb2, resources_pb2
from inferway_cli.local_model import LocalModel
from inferway_cli.registry import Registry, StatusLost

CHUNK_BYTES = 256 * 1024
ATTEMPTS_WITHOUT_PROGRESS = 5
RETRY_SECONDS = 0.5

Progress = Callable[[int], None]
"""Is told the bytes that the registry has, of all files together."""


async def push(
    registry: Registry,
    model: str,
    local: LocalModel,
    config: resources_pb2.VersionConfig,
    alias: str,
    progress: Progress,
) -> resources_pb2.ModelVersion:
    """Uploads and publishes; returns the version. Raises what the rpcs of an upload raise."""
    upload = await _begin(registry, model, local, config)
    sending = _Sending(registry, upload, local.files, progress)
    for artifact in local.manifest.artifacts:
        await sending.send(artifact)
    return await registry.publish(upload.name, alias)


class _Sending:
    """Sends the files of one upload; `committed` is what the registry said last."""

    def __init__(
        self, registry: Registry, upload: resources_pb2.Upload, files: Mapping[str, Path], progress: Progress
    ) -> None:
        self._registry = registry
        self._name = upload.name
        self._files = files
        self._progress = progress
        self._committed = _committed(upload)
        progress(sum(self._committed.values()))

    async def send(self, artifact: resources_pb2.Artifact) -> None:
        """Sends the rest of a file, again and again as long as the registry gets further."""
        failures, limit_bytes = 0, None
        while (start := self._committed.get(artifact.path, 0)) < artifact.size_bytes:
            try:
                messages = self._messages(artifact.path, start, limit_bytes)
                self._committed[artifact.path] = await self._registry.upload_artifact(messages)
                limit_bytes = None if limit_bytes is None else CHUNK_BYTES
            except (Unavailable, UploadConflict, UploadOffsetMismatch, StatusLost) as error:
                if isinstance(error, StatusLost):
                    # A header alone, then a chunk a call: nothing is being written when the registry says no again.
                    limit_bytes = 0
                await self._ask()
                failures = 0 if self._committed.get(artifact.path, 0) > start else failures + 1
                if failures > ATTEMPTS_WITHOUT_PROGRESS:
                    raise
                await asyncio.sleep(error.retry_after_seconds or RETRY_SECONDS)

    async def _ask(self) -> None:
        with suppress(Unavailable):
            self._committed = _committed(await self._registry.upload(self._name))

    async def _messages(
        self, path: str, offset_bytes: int, limit_bytes: int | None
    ) -> AsyncIterator[registry_service_pb2.UploadArtifactRequest]:
        header = registry_service_pb2.ArtifactHeader(upload=self._name, path=path, offset_bytes=offset_bytes)
        yield registry_service_pb2.UploadArtifactRequest(header=header)
        sent = sum(self._committed.values())
        with self._files[path].open("rb") as file:
            file.seek(offset_bytes)
            while limit_bytes != 0 and (chunk := file.read(CHUNK_BYTES)):
                yield registry_service_pb2.UploadArtifactRequest(chunk=chunk)
                sent += len(chunk)
                self._progress(sent)
                limit_bytes = None if limit_bytes is None else limit_bytes - len(chunk)


async def _begin(
    registry: Registry, model: str, local: LocalModel, config: resources_pb2.VersionConfig
) -> resources_pb2.Upload:
    request = registry_service_pb2.CreateUploadRequest(
        model=names.model_name(model),
        runtime=local.kind.runtime,
        manifest=local.manifest,
        config=config,
    )
    fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    request.request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{uuid.getnode()}/{fingerprint}"))
    upload = await registry.create_upload(request)
    try:
        return await registry.upload(upload.name)
    except UploadNotFound:  # it was published or has expired: this push is a new one
        request.request_id = str(uuid.uuid4())
        return await registry.create_upload(request)


def _committed(upload: resources_pb2.Upload) -> dict[str, int]:
    return {file.path: file.committed_bytes for file in upload.files}
