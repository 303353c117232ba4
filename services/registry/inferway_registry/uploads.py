"""Uploads: begun, received file by file, published or given up.

A file is complete when its content is among the blobs. Until then its staged bytes say how far it is, and whoever
comes last completes it: the call that brought the last byte, or the publishing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from inferway import names
from inferway.errors import (
    ArtifactNotFound,
    DigestMismatch,
    StorageFull,
    TooManyConcurrent,
    UploadConflict,
    UploadIncomplete,
    UploadNotFound,
    UploadOffsetMismatch,
    UploadTooLarge,
)
from inferway_registry import catalogue, model_file, state_bindings
from inferway_registry.blobs import Blobs
from inferway_registry.ledger import OF_REGISTRY, Call, Change, Ledger
from inferway_registry.manifest import LAYOUTS
from inferway_registry.presence import Presence
from inferway_registry.resources import (
    Action,
    Artifact,
    Manifest,
    ModelVersion,
    Runtime,
    Signature,
    Upload,
    VersionConfig,
)
from inferway_registry.signatures import forbid_nan
from inferway_registry.staging import StagedFile, Staging
from inferway_registry.store.reader import Reader
from inferway_registry.store.sql import Store
from inferway_registry.threads import in_thread
from inferway_registry.wording import shown

_HEADS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Options:
    """How many uploads there may be, and how patient the registry is with them."""

    max_uploads: int = 64
    lifetime: timedelta = timedelta(hours=24)
    """From the last sign of life to the giving up."""
    idle: timedelta = timedelta(minutes=10)
    """An upload that no call has touched for longer makes room for a new one when there are too many."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What an upload is made of."""

    model: str
    runtime: Runtime
    manifest: Manifest
    config: VersionConfig


@dataclass(frozen=True, slots=True)
class Progress:
    """An upload, and how many bytes of each file are stored, in the order of its manifest."""

    upload: Upload
    committed_bytes: tuple[int, ...]


class Uploads:
    """All uploads of one registry. One process owns the staged files."""

    def __init__(self, store: Store, ledger: Ledger, staging: Staging, blobs: Blobs, options: Options) -> None:
        self._store = store
        self._ledger = ledger
        self._staging = staging
        self._blobs = blobs
        self._options = options
        self._claims: set[tuple[str, str]] = set()
        self._presence = Presence(ledger.time, options.lifetime)

    async def create(self, call: Call, upload_id: str, draft: Draft, encode: Callable[[Progress], bytes]) -> bytes:
        """Begins an upload and returns its encoded progress; raises TooManyConcurrent and what `answer_once` raises.

        When there are as many as may be, those idle for longest are given up to make room.
        """
        committed = await self._committed(upload_id, draft.manifest)
        evicted: list[str] = []

        async def operation(change: Change) -> Progress:
            evicted.extend(await self._make_room(change))
            expires = change.now + self._options.lifetime
            upload = Upload(upload_id, draft.model, draft.runtime, draft.manifest, draft.config, expires)
            await change.rows.add_upload(upload)
            change.audited(upload.name, Action.CREATED)
            return Progress(upload, committed)

        answer = await self._ledger.answer_once(call, operation, encode)
        for gone in evicted:
            await self._staging.discard(gone)
        return answer

    async def progress(self, upload_id: str) -> Progress:
        """How far an upload is; raises UploadNotFound."""
        async with self._store.reading() as rows:
            upload = await _require(rows, upload_id)
        with self._presence.using(upload_id):
            return Progress(upload, await self._committed(upload_id, upload.manifest))

    async def receive(self, upload_id: str, path: str, offset_bytes: int, chunks: AsyncIterator[bytes]) -> int:
        """Appends chunks to one file and returns how many bytes of it are stored; verifies it when it is whole.

        Raises UploadNotFound, ArtifactNotFound, UploadConflict, UploadOffsetMismatch, UploadTooLarge, DigestMismatch,
        StorageFull and what `chunks` raises. What had arrived stays, except after DigestMismatch and StorageFull, which
        start the file again. Chunks of a file that is complete are not read.
        """
        upload, artifact = await self._prolonged(upload_id, path)
        with self._presence.using(upload_id), self._claimed(upload, artifact):
            if await self._blobs.size_bytes(artifact.sha256) is not None:
                # Perhaps another upload has brought the same content meanwhile: no reason to fail this one.
                return artifact.size_bytes
            file = await self._staging.open(upload.upload, artifact.sha256)
            try:
                _check_offset(artifact, file.size_bytes, offset_bytes)
                async for chunk in chunks:
                    await _append(file, chunk, artifact)
                if file.size_bytes == artifact.size_bytes:
                    await self._complete(upload, artifact, file)
            except StorageFull:
                # Kept, it would leave no room for a smaller upload either.
                await in_thread(file.path.unlink, missing_ok=True)
                raise
            else:
                return file.size_bytes
            finally:
                file.close()

    async def publish(self, call: Call, upload_id: str, alias: str, encode: Callable[[ModelVersion], bytes]) -> bytes:
        """Verifies every file, makes the version visible, and returns it encoded; `alias` may be empty.

        Raises UploadNotFound, UploadIncomplete, DigestMismatch, CorruptArtifact, InvalidPath, InvalidField,
        NotSupported, StorageFull and what `answer_once` raises.
        """
        async with self._store.reading() as rows:
            earlier = await self._ledger.earlier_answer(rows, call)
            if earlier is not None:
                return earlier
            upload = await _require(rows, upload_id)

        async def operation(change: Change) -> ModelVersion:
            present = replace(await _require(change.rows, upload_id), config=config)
            return await catalogue.publish(change, present, signatures, alias)

        with self._presence.using(upload_id):
            for artifact in upload.manifest.artifacts:
                await self._verify(upload, artifact)
            signatures = await self._signatures(upload)
            config = _resolved(upload.config, signatures)
            answer = await self._ledger.answer_once(call, operation, encode)
        await self._staging.discard(upload_id)
        return answer

    async def delete(self, call: Call, upload_id: str) -> None:
        """Gives an upload up and frees what it stored; raises UploadNotFound."""

        async def operation(change: Change) -> None:
            upload = await _require(change.rows, upload_id)
            await change.rows.delete_upload(upload)
            change.audited(upload.name, Action.DELETED)

        await self._ledger.apply(call, operation)
        await self._staging.discard(upload_id)

    async def _make_room(self, change: Change) -> list[str]:
        """Gives up as few idle uploads as let one more begin, and returns them; raises TooManyConcurrent."""
        present = await change.rows.upload_ids()
        self._presence.keep(present)
        excess = len(present) + 1 - self._options.max_uploads
        if excess <= 0:
            return []
        uploads = [upload for upload_id in present if (upload := await change.rows.upload(upload_id)) is not None]
        longest_idle = sorted(uploads, key=self._presence.idle, reverse=True)[:excess]
        wait = self._options.idle - self._presence.idle(longest_idle[-1])
        if wait >= timedelta():
            raise _too_many(self._options.max_uploads, wait.total_seconds())
        for upload in longest_idle:
            await change.rows.delete_upload(upload)
            change.audited(upload.name, Action.DELETED)
        return [upload.upload for upload in longest_idle]

    async def _prolonged(self, upload_id: str, path: str) -> tuple[Upload, Artifact]:
        async def operation(change: Change) -> Upload:
            upload = await _require(change.rows, upload_id)
            await change.rows.extend_upload(upload_id, change.now + self._options.lifetime)
            return upload

        upload = await self._ledger.apply(Call(OF_REGISTRY, "ProlongUpload"), operation)
        artifact = upload.manifest.artifact(path)
        if artifact is None:
            raise ArtifactNotFound(
                f"the manifest of {upload.name} has no file {shown(path)!r}", upload=upload.name, path=shown(path)
            )
        return upload, artifact

    @contextmanager
    def _claimed(self, upload: Upload, artifact: Artifact) -> Iterator[None]:
        claim = (upload.upload, artifact.sha256)
        if claim in self._claims:
            raise UploadConflict(
                f"another call is writing {artifact.path}; ask GetUpload how far it is, then go on",
                upload=upload.name,
                path=artifact.path,
            )
        self._claims.add(claim)
        try:
            yield
        finally:
            self._claims.remove(claim)

    async def _committed(self, upload_id: str, manifest: Manifest) -> tuple[int, ...]:
        turns = asyncio.Semaphore(_HEADS_AT_ONCE)

        async def committed(artifact: Artifact) -> int:
            async with turns:
                stored = await self._blobs.size_bytes(artifact.sha256)
            return stored if stored is not None else self._staging.staged_bytes(upload_id, artifact.sha256)

        return tuple(await asyncio.gather(*map(committed, manifest.artifacts)))

    async def _verify(self, upload: Upload, artifact: Artifact) -> None:
        """Completes a file whose last byte came just before a call broke, and reads the whole content once more."""
        if await self._blobs.size_bytes(artifact.sha256) is None:
            await self._complete_staged(upload, artifact)
        if not await self._blobs.verified(artifact.sha256):
            await self._blobs.delete(artifact.sha256)
            raise _mismatch(artifact, "content that changed in store")

    async def _complete_staged(self, upload: Upload, artifact: Artifact) -> None:
        staged = self._staging.staged_bytes(upload.upload, artifact.sha256)
        if staged != artifact.size_bytes:
            raise UploadIncomplete(
                f"{artifact.path} has {staged} of {artifact.size_bytes} bytes; send the rest, then publish",
                upload=upload.name,
                path=artifact.path,
            )
        with self._claimed(upload, artifact):
            file = await self._staging.open(upload.upload, artifact.sha256)
            try:
                await self._complete(upload, artifact, file)
            finally:
                file.close()

    async def _complete(self, upload: Upload, artifact: Artifact, file: StagedFile) -> None:
        """Makes a whole staged file a blob, or starts it again if it is not what it should be."""
        try:
            if file.sha256 != artifact.sha256:
                await in_thread(file.path.unlink)
                raise _mismatch(artifact, file.sha256)
            await in_thread(file.seal)
            await self._blobs.add(artifact.sha256, file.path)
        except FileNotFoundError as error:
            raise UploadNotFound(f"{upload.name} was deleted meanwhile", upload=upload.name) from error

    async def _signatures(self, upload: Upload) -> tuple[Signature, ...]:
        main = upload.manifest.artifact(LAYOUTS[upload.runtime].main)
        assert main is not None, "the manifest was checked when the upload began"
        content = b"".join([chunk async for chunk in self._blobs.read(main.sha256)])
        signatures = await in_thread(model_file.read_signatures, upload.runtime, content, upload.manifest)
        return forbid_nan(signatures, upload.config.forbid_nan_inputs)


def _resolved(config: VersionConfig, signatures: tuple[Signature, ...]) -> VersionConfig:
    """The publisher's choices, complete; raises InvalidField for what the signatures do not permit."""
    return replace(config, state=state_bindings.resolve(config.state, signatures, config.forbid_nan_inputs))


async def _require(rows: Reader, upload_id: str) -> Upload:
    upload = await rows.upload(upload_id)
    if upload is None:
        name = names.upload_name(upload_id)
        raise UploadNotFound(f"there is no {name}: it was published or deleted, or it expired", upload=name)
    return upload


def _too_many(limit: int, wait_seconds: float) -> TooManyConcurrent:
    seconds = max(1, math.ceil(wait_seconds))
    return TooManyConcurrent(
        f"{limit} uploads are in progress, as many as may be; try again in {seconds} s, or publish or delete one",
        retry_after_seconds=seconds,
        limit=limit,
    )


async def _append(file: StagedFile, chunk: bytes, artifact: Artifact) -> None:
    if file.size_bytes + len(chunk) > artifact.size_bytes:
        raise UploadTooLarge(
            f"{artifact.path} has {artifact.size_bytes} bytes in the manifest, and more were sent",
            path=artifact.path,
            limit=artifact.size_bytes,
        )
    await in_thread(file.append, chunk)


def _check_offset(artifact: Artifact, expected: int, actual: int) -> None:
    if actual != expected:
        raise UploadOffsetMismatch(
            f"{artifact.path}: {expected} bytes are stored; go on from there, not from {actual}",
            path=artifact.path,
            expected=expected,
            actual=actual,
        )


def _mismatch(artifact: Artifact, actual: str) -> DigestMismatch:
    return DigestMismatch(
        f"{artifact.path} is not what the manifest says; send it again from the start",
        path=artifact.path,
        expected=artifact.sha256,
        actual=actual,
    )
