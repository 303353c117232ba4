"""A registry in memory, behind a real socket: as much of it as the command's tests need."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc

from inferway.errors import EndpointNotFound, InferwayError, ModelNotFound, UploadNotFound, VersionNotFound
from inferway.registry.v1 import (
    endpoint_service_pb2,
    fleet_service_pb2,
    registry_service_pb2,
    resources_pb2,
    rollout_service_pb2,
)
from inferway.status import to_status
from inferway.worker.v1 import worker_service_pb2
from inferway_client.transport import STATUS_DETAILS

WORKER = "workers/worker-0"


class FakeRegistry:
    """Publishes what is uploaded, and says that a worker has it ready; for use as `async with`."""

    def __init__(self) -> None:
        self.uploads: dict[str, resources_pb2.Upload] = {}
        self.by_request_id: dict[str, str] = {}
        self.contents: dict[tuple[str, str], bytearray] = {}
        self.versions: dict[str, resources_pb2.ModelVersion] = {}
        self.aliases: dict[str, dict[str, int]] = {}
        self.load_state: worker_service_pb2.LoadState.ValueType = worker_service_pb2.LOAD_STATE_READY
        self.load_error: InferwayError | None = None
        self.plan = worker_service_pb2.ServingPlan(isolation="process", instances=1, callers=1, max_batch_rows=64)
        """How the worker runs every version."""
        self.deaf = False
        """Whether the worker hears of no change."""
        self.policies: dict[str, resources_pb2.VersionPolicy] = {}
        self.automatic = True
        """Whether endpoints follow the newest version, or have arms that somebody set."""
        self.split: resources_pb2.SplitCheck | None = None
        """What is found of the split of every endpoint."""
        self.stream_policies: dict[str, resources_pb2.StreamPolicy.ValueType] = {}
        self.workers: list[resources_pb2.Worker] = []
        self.overtaken = False
        """Whether somebody else publishes right after every publishing."""
        self.break_upload_after: int | None = None
        self.refusal: InferwayError | None = None
        """Ends every call that sends a chunk."""
        self.received_bytes = 0
        self.target = ""

    async def __aenter__(self) -> Self:
        """Listens on a free port."""
        self._server = grpc.aio.server()
        for module, service in (
            (registry_service_pb2, "RegistryService"),
            (endpoint_service_pb2, "EndpointService"),
            (fleet_service_pb2, "FleetService"),
            (rollout_service_pb2, "RolloutService"),
        ):
            self._server.add_generic_rpc_handlers((self._handler(module, service),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops."""
        await self._server.stop(None)

    def model(self, name: str) -> resources_pb2.Model:
        """The model as the registry shows it."""
        numbers = [version.version for key, version in self.versions.items() if key.startswith(f"{name}/")]
        if not numbers:
            raise ModelNotFound(f"no model {name}", model=name)
        aliases = [resources_pb2.Alias(alias=a, version=v) for a, v in sorted(self.aliases.get(name, {}).items())]
        policy = self.policies.get(name)
        return resources_pb2.Model(name=name, version_numbers=sorted(numbers), aliases=aliases, version_policy=policy)

    async def create_upload(self, request: registry_service_pb2.CreateUploadRequest) -> Any:
        """One upload for each request id."""
        name = self.by_request_id.setdefault(request.request_id, f"uploads/u{len(self.by_request_id)}")
        upload = resources_pb2.Upload(
            name=name, model=request.model, manifest=request.manifest, config=request.config, runtime=request.runtime
        )
        if name not in self.uploads and not any(version.etag == name for version in self.versions.values()):
            self.uploads[name] = upload
        return registry_service_pb2.CreateUploadResponse(upload=upload)

    async def get_upload(self, request: registry_service_pb2.GetUploadRequest) -> Any:
        """With what is committed."""
        if request.name not in self.uploads:
            raise UploadNotFound("it was published", upload=request.name)
        upload = self.uploads[request.name]
        del upload.files[:]
        for artifact in upload.manifest.artifacts:
            stored = len(self.contents.get((upload.name, artifact.path), b""))
            upload.files.add(path=artifact.path, committed_bytes=stored)
        return registry_service_pb2.GetUploadResponse(upload=upload)

    async def upload_artifact(self, requests: AsyncIterator[registry_service_pb2.UploadArtifactRequest]) -> Any:
        """Stores chunks; breaks once where the test wants it."""
        header = (await anext(requests)).header
        stored = self.contents.setdefault((header.upload, header.path), bytearray())
        assert header.offset_bytes == len(stored)
        async for message in requests:
            if self.refusal is not None:
                stored.clear()
                raise self.refusal
            stored += message.chunk
            self.received_bytes += len(message.chunk)
            if self.break_upload_after is not None and self.received_bytes >= self.break_upload_after:
                self.break_upload_after = None
                raise ConnectionError
        response = registry_service_pb2.UploadArtifactResponse()
        response.file.committed_bytes = len(stored)
        return response

    async def publish_upload(self, request: registry_service_pb2.PublishUploadRequest) -> Any:
        """The next version, if every digest is right."""
        upload = self.uploads.pop(request.name)
        for artifact in upload.manifest.artifacts:
            stored = bytes(self.contents.get((upload.name, artifact.path), b""))
            assert hashlib.sha256(stored).hexdigest() == artifact.sha256
        number = 1 + sum(key.startswith(f"{upload.model}/") for key in self.versions)
        name = f"{upload.model}/versions/{number}"
        self.versions[name] = resources_pb2.ModelVersion(
            name=name,
            version=number,
            state=resources_pb2.ModelVersion.STATE_PUBLISHED,
            runtime=upload.runtime,
            manifest=upload.manifest,
            config=upload.config,
            etag=request.name,
        )
        if request.alias:
            self.aliases.setdefault(upload.model, {})[request.alias] = number
        if self.overtaken:
            newer = f"{upload.model}/versions/{number + 1}"
            self.versions[newer] = resources_pb2.ModelVersion(name=newer, version=number + 1)
        return registry_service_pb2.PublishUploadResponse(model_version=self.versions[name])

    async def get_model(self, request: registry_service_pb2.GetModelRequest) -> Any:
        """One model."""
        return registry_service_pb2.GetModelResponse(model=self.model(request.name))

    async def list_models(self, request: registry_service_pb2.ListModelsRequest) -> Any:
        """All models, one a page."""
        names = sorted({key.partition("/versions/")[0] for key in self.versions})
        index = int(request.page_token or 0)
        more = str(index + 1) if index + 1 < len(names) else ""
        models = [self.model(name) for name in names[index : index + 1]]
        return registry_service_pb2.ListModelsResponse(models=models, next_page_token=more)

    async def get_model_version(self, request: registry_service_pb2.GetModelVersionRequest) -> Any:
        """One version, as the worker has it."""
        if request.name not in self.versions:
            raise VersionNotFound("no such version")
        return registry_service_pb2.GetModelVersionResponse(model_version=self._on_worker(request.name))

    async def list_model_versions(self, request: registry_service_pb2.ListModelVersionsRequest) -> Any:
        """Newest first."""
        found = [self._on_worker(key) for key in self.versions if key.startswith(f"{request.parent}/")]
        return registry_service_pb2.ListModelVersionsResponse(model_versions=reversed(found))

    async def set_model_version_state(self, request: registry_service_pb2.SetModelVersionStateRequest) -> Any:
        """Withdraws or restores."""
        self.versions[request.name].state = request.state
        return registry_service_pb2.SetModelVersionStateResponse(model_version=self.versions[request.name])

    async def set_serving_options(self, request: registry_service_pb2.SetServingOptionsRequest) -> Any:
        """Stores them; the worker, unless it is deaf, does as told, and of 64 rows and one copy where it is not."""
        options = request.serving_options
        self.versions[request.name].serving_options.CopyFrom(options)
        if not self.deaf:
            self.plan.max_batch_rows = options.max_batch_rows or 64
            self.plan.max_queue_delay_us = options.max_queue_delay.ToMicroseconds()
            self.plan.instances = options.instances or 1
            self.plan.buckets[:] = options.buckets
        return registry_service_pb2.SetServingOptionsResponse(model_version=self.versions[request.name])

    async def set_version_policy(self, request: registry_service_pb2.SetVersionPolicyRequest) -> Any:
        """Sets."""
        self.policies[request.name] = request.version_policy
        return registry_service_pb2.SetVersionPolicyResponse(model=self.model(request.name))

    async def set_alias(self, request: registry_service_pb2.SetAliasRequest) -> Any:
        """Sets."""
        self.aliases.setdefault(request.model, {})[request.alias.alias] = request.alias.version
        return registry_service_pb2.SetAliasResponse(model=self.model(request.model))

    async def delete_alias(self, request: registry_service_pb2.DeleteAliasRequest) -> Any:
        """Removes."""
        del self.aliases[request.model][request.alias]
        return registry_service_pb2.DeleteAliasResponse(model=self.model(request.model))

    async def delete_model(self, request: registry_service_pb2.DeleteModelRequest) -> Any:
        """With its versions."""
        self.versions = {key: v for key, v in self.versions.items() if not key.startswith(f"{request.name}/")}
        return registry_service_pb2.DeleteModelResponse()

    async def get_endpoint(self, request: endpoint_service_pb2.GetEndpointRequest) -> Any:
        """All traffic on the newest version."""
        model = request.name.replace("endpoints/", "models/")
        versions = [key for key in self.versions if key.startswith(f"{model}/")]
        if not versions:
            raise EndpointNotFound(f"no endpoint {request.name}")
        arm = resources_pb2.Arm(arm="v1", version=versions[-1], weight_basis_points=10_000)
        policy = self.stream_policies.get(request.name, resources_pb2.STREAM_POLICY_UNSPECIFIED)
        endpoint = resources_pb2.Endpoint(
            name=request.name,
            arms=[arm],
            automatic=self.automatic,
            stream_policy=policy,
            etag="e1",
            split=self.split,
        )
        return endpoint_service_pb2.GetEndpointResponse(endpoint=endpoint)

    async def update_endpoint(self, request: endpoint_service_pb2.UpdateEndpointRequest) -> Any:
        """Takes what is said of streams and of whom it follows; arms stay."""
        wanted = request.endpoint
        assert (len(wanted.arms), wanted.etag) == (not wanted.automatic, "e1")
        self.automatic = wanted.automatic
        self.stream_policies[wanted.name] = wanted.stream_policy
        found = await self.get_endpoint(endpoint_service_pb2.GetEndpointRequest(name=wanted.name))
        return endpoint_service_pb2.UpdateEndpointResponse(endpoint=found.endpoint)

    async def list_endpoints(self, request: endpoint_service_pb2.ListEndpointsRequest) -> Any:
        """None."""
        return endpoint_service_pb2.ListEndpointsResponse()

    async def list_workers(self, request: fleet_service_pb2.ListWorkersRequest) -> Any:
        """Those that the test has put there."""
        return fleet_service_pb2.ListWorkersResponse(workers=self.workers)

    def _on_worker(self, name: str) -> resources_pb2.ModelVersion:
        version = resources_pb2.ModelVersion()
        version.CopyFrom(self.versions[name])
        entry = version.workers.add(worker=WORKER)
        entry.status.version = name
        entry.status.state = self.load_state
        entry.status.memory_bytes = 1 << 20
        entry.status.plan.CopyFrom(self.plan)
        if self.load_error is not None:
            entry.status.error.CopyFrom(to_status(self.load_error))
        return version

    def _handler(self, module: Any, service: str) -> grpc.GenericRpcHandler:
        descriptor = module.DESCRIPTOR.services_by_name[service]
        handlers = {}
        for method in descriptor.methods:
            snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name).lstrip("_")
            behaviour = getattr(self, snake, None)
            if behaviour is not None:
                make = (
                    grpc.stream_unary_rpc_method_handler
                    if method.client_streaming
                    else grpc.unary_unary_rpc_method_handler
                )
                parse = getattr(module, method.input_type.name).FromString
                serialise = getattr(module, method.output_type.name).SerializeToString
                handlers[method.name] = make(_encoding_errors(behaviour), parse, serialise)
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _encoding_errors(behaviour: Any) -> Any:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request)
        except InferwayError as error:
            details = to_status(error).SerializeToString()
            await context.abort(grpc.StatusCode[error.code], error.message, ((STATUS_DETAILS, details),))
        except ConnectionError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    return handle
