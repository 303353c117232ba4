"""`RegistryService`: converts, calls, converts."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from inferway import names
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2
from inferway_registry import catalogue, convert, paging
from inferway_registry.artifact_stream import ArtifactStream
from inferway_registry.downloads import Downloads
from inferway_registry.fleet import Fleet
from inferway_registry.ledger import Call, Ledger
from inferway_registry.manifest import Limits
from inferway_registry.once import ANONYMOUS, call_of, once
from inferway_registry.resources import ModelVersion
from inferway_registry.store.sql import Store
from inferway_registry.uploads import Progress, Uploads

_NEWEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class RegistryServicer:
    """Models, versions, artifacts and aliases."""

    store: Store
    ledger: Ledger
    uploads: Uploads
    downloads: Downloads
    fleet: Fleet
    limits: Limits
    patience_seconds: float
    """How long an upload's call may send nothing."""

    async def CreateUpload(self, request: pb.CreateUploadRequest, _: object) -> pb.CreateUploadResponse:
        draft = convert.draft(request, self.limits)
        answer = await self.uploads.create(call_of(request), uuid.uuid4().hex, draft, _encode_created)
        return pb.CreateUploadResponse.FromString(answer)

    async def GetUpload(self, request: pb.GetUploadRequest, _: object) -> pb.GetUploadResponse:
        progress = await self.uploads.progress(names.parse(request.name, "uploads"))
        return pb.GetUploadResponse(upload=convert.upload_message(progress))

    async def UploadArtifact(
        self, requests: AsyncIterator[pb.UploadArtifactRequest], _: object
    ) -> pb.UploadArtifactResponse:
        stream = ArtifactStream(requests, self.patience_seconds)
        header = await stream.header()
        upload = names.parse(header.upload, "uploads", "header.upload")
        committed = await self.uploads.receive(upload, header.path, header.offset_bytes, stream.chunks())
        file = resources_pb2.UploadedFile(path=header.path, committed_bytes=committed)
        return pb.UploadArtifactResponse(file=file)

    async def PublishUpload(self, request: pb.PublishUploadRequest, _: object) -> pb.PublishUploadResponse:
        upload = names.parse(request.name, "uploads")
        alias = names.check_alias(request.alias, "alias") if request.alias else ""
        answer = await self.uploads.publish(call_of(request), upload, alias, _encode_published)
        return pb.PublishUploadResponse.FromString(answer)

    async def DeleteUpload(self, request: pb.DeleteUploadRequest, _: object) -> pb.DeleteUploadResponse:
        await self.uploads.delete(Call(ANONYMOUS, "DeleteUpload"), names.parse(request.name, "uploads"))
        return pb.DeleteUploadResponse()

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, _: object
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        model, number = names.parse_version(request.version, "version")
        async for chunk in self.downloads.read(model, number, request.path, request.offset_bytes):
            yield pb.DownloadArtifactResponse(chunk=chunk)

    async def GetModel(self, request: pb.GetModelRequest, _: object) -> pb.GetModelResponse:
        async with self.store.reading() as rows:
            model = await catalogue.require_model(rows, names.parse(request.name, "models"))
        return pb.GetModelResponse(model=convert.model_message(model))

    async def ListModels(self, request: pb.ListModelsRequest, _: object) -> pb.ListModelsResponse:
        size, after = paging.read_size(request.page_size), paging.read_token("models", request.page_token)
        async with self.store.reading() as rows:
            found = await rows.models(after, size + 1)
        page, token = paging.cut("models", found, size, lambda model: model.model)
        return pb.ListModelsResponse(models=map(convert.model_message, page), next_page_token=token)

    async def DeleteModel(self, request: pb.DeleteModelRequest, _: object) -> pb.DeleteModelResponse:
        model = names.parse(request.name, "models")
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.delete_model(change, model, request.etag),
            lambda _none: pb.DeleteModelResponse(),
            pb.DeleteModelResponse,
        )

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, _: object) -> pb.GetModelVersionResponse:
        model, number = names.parse_version(request.name)
        async with self.store.reading() as rows:
            version = await catalogue.require_version(rows, model, number)
        return pb.GetModelVersionResponse(model_version=self._standing(version))

    async def ListModelVersions(self, request: pb.ListModelVersionsRequest, _: object) -> pb.ListModelVersionsResponse:
        model = names.parse(request.parent, "models", "parent")
        listing = f"versions of {model}"
        size, before = paging.read_size(request.page_size), paging.read_number(listing, request.page_token, _NEWEST)
        async with self.store.reading() as rows:
            await catalogue.require_model(rows, model)
            found = await rows.versions(model, before, size + 1)
        page, token = paging.cut(listing, found, size, lambda version: str(version.number))
        return pb.ListModelVersionsResponse(model_versions=map(self._standing, page), next_page_token=token)

    async def SetServingOptions(self, request: pb.SetServingOptionsRequest, _: object) -> pb.SetServingOptionsResponse:
        model, number = names.parse_version(request.name)
        options = convert.serving_options(request.serving_options)
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.set_serving_options(change, model, number, options, request.etag),
            lambda version: pb.SetServingOptionsResponse(model_version=self._standing(version)),
            pb.SetServingOptionsResponse,
        )

    async def SetVersionPolicy(self, request: pb.SetVersionPolicyRequest, _: object) -> pb.SetVersionPolicyResponse:
        model, policy = names.parse(request.name, "models"), convert.version_policy(request.version_policy)
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.set_version_policy(change, model, policy, request.etag),
            lambda changed: pb.SetVersionPolicyResponse(model=convert.model_message(changed)),
            pb.SetVersionPolicyResponse,
        )

    async def SetModelVersionState(
        self, request: pb.SetModelVersionStateRequest, _: object
    ) -> pb.SetModelVersionStateResponse:
        model, number = names.parse_version(request.name)
        state = convert.version_state(request.state)
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.set_state(change, model, number, state, request.etag),
            lambda version: pb.SetModelVersionStateResponse(model_version=self._standing(version)),
            pb.SetModelVersionStateResponse,
        )

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, _: object
    ) -> pb.DeleteModelVersionResponse:
        model, number = names.parse_version(request.name)
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.delete_version(change, model, number, request.etag),
            lambda _none: pb.DeleteModelVersionResponse(),
            pb.DeleteModelVersionResponse,
        )

    async def SetAlias(self, request: pb.SetAliasRequest, _: object) -> pb.SetAliasResponse:
        model, alias = names.parse(request.model, "models", "model"), convert.alias(request.alias)
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.set_alias(change, model, alias, request.etag),
            lambda changed: pb.SetAliasResponse(model=convert.model_message(changed)),
            pb.SetAliasResponse,
        )

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, _: object) -> pb.DeleteAliasResponse:
        model, alias = names.parse(request.model, "models", "model"), names.check_alias(request.alias, "alias")
        return await once(
            self.ledger,
            request,
            lambda change: catalogue.delete_alias(change, model, alias, request.etag),
            lambda changed: pb.DeleteAliasResponse(model=convert.model_message(changed)),
            pb.DeleteAliasResponse,
        )

    def _standing(self, version: ModelVersion) -> resources_pb2.ModelVersion:
        return convert.version_message(version, self.fleet.standing(version.name))


def _encode_created(progress: Progress) -> bytes:
    return pb.CreateUploadResponse(upload=convert.upload_message(progress)).SerializeToString()


def _encode_published(version: ModelVersion) -> bytes:
    return pb.PublishUploadResponse(model_version=convert.version_message(version)).SerializeToString()
