"""The registry's rpcs as the commands use them: a deadline on each, lists whole, errors translated."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from inferway import names
from inferway.errors import Internal, Unavailable
from inferway.registry.v1 import (
    endpoint_service_pb2,
    endpoint_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    resources_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    rollouts_pb2,
)
from inferway_cli.addresses import MAX_MESSAGE_BYTES
from inferway_client.transport import open_channel, translated_errors

Q = TypeVar("Q")
R = TypeVar("R")
CALL_SECONDS = 15.0
UPLOAD_SECONDS = 3600.0
PAGE_SIZE = 1_000
WRITE_FAILED = "Internal error from Core"
"""What grpcio puts in place of the server's status when a call ends while a message is being written."""


class Silent(Unavailable):
    """The registry did not answer within the fixed time of its calls."""


class StatusLost(Internal):
    """A call ended while it was being written to, so that nobody knows why."""


class Registry:
    """A connection to a registry, for use as `async with Registry(target) as registry`.

    Resource arguments are bare names (`digits`), not `models/digits`. Raises the errors that the protos list, and
    Unreachable.
    """

    def __init__(self, target: str) -> None:
        """Remembers the `host:port`."""
        self._target = target

    async def __aenter__(self) -> Self:
        """Opens the channel."""
        self._channel = open_channel(self._target, MAX_MESSAGE_BYTES)
        self._models = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        self._endpoints = endpoint_service_pb2_grpc.EndpointServiceStub(self._channel)
        self._fleet = fleet_service_pb2_grpc.FleetServiceStub(self._channel)
        self._rollouts = rollout_service_pb2_grpc.RolloutServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def models(self) -> list[resources_pb2.Model]:
        """All models, by name."""
        request = registry_service_pb2.ListModelsRequest(page_size=PAGE_SIZE)
        return await self._all(self._models.ListModels, request, "models")

    async def model(self, model: str) -> resources_pb2.Model:
        """One model."""
        request = registry_service_pb2.GetModelRequest(name=names.model_name(model))
        return (await self._call(self._models.GetModel, request)).model

    async def versions(self, model: str) -> list[resources_pb2.ModelVersion]:
        """All versions of a model, newest first."""
        request = registry_service_pb2.ListModelVersionsRequest(parent=names.model_name(model), page_size=PAGE_SIZE)
        return await self._all(self._models.ListModelVersions, request, "model_versions")

    async def version(self, name: str) -> resources_pb2.ModelVersion:
        """One version by its full name."""
        request = registry_service_pb2.GetModelVersionRequest(name=name)
        return (await self._call(self._models.GetModelVersion, request)).model_version

    async def set_version_state(
        self, model: str, version: int, state: resources_pb2.ModelVersion.State.ValueType
    ) -> resources_pb2.ModelVersion:
        """Withdraws or restores a version."""
        request = registry_service_pb2.SetModelVersionStateRequest(
            name=names.version_name(model, version), state=state, request_id=_request_id()
        )
        return (await self._call(self._models.SetModelVersionState, request)).model_version

    async def set_serving_options(
        self, version: resources_pb2.ModelVersion, options: resources_pb2.ServingOptions, request_id: str = ""
    ) -> resources_pb2.ModelVersion:
        """Replaces the bounds of a version, unless somebody changed it since it was read."""
        request = registry_service_pb2.SetServingOptionsRequest(
            name=version.name,
            serving_options=options,
            etag=version.etag,
            request_id=request_id or _request_id(),
        )
        return (await self._call(self._models.SetServingOptions, request)).model_version

    async def set_version_policy(
        self, model: resources_pb2.Model, policy: resources_pb2.VersionPolicy, request_id: str = ""
    ) -> resources_pb2.Model:
        """Replaces the policy of a model, unless somebody changed the model since it was read."""
        request = registry_service_pb2.SetVersionPolicyRequest(
            name=model.name, version_policy=policy, etag=model.etag, request_id=request_id or _request_id()
        )
        return (await self._call(self._models.SetVersionPolicy, request)).model

    async def set_alias(
        self, model: str, alias: str, version: int, etag: str = "", request_id: str = ""
    ) -> resources_pb2.Model:
        """Puts an alias on a version; with the model's etag, unless somebody changed the model since it was read."""
        request = registry_service_pb2.SetAliasRequest(
            model=names.model_name(model),
            alias=resources_pb2.Alias(alias=alias, version=version),
            etag=etag,
            request_id=request_id or _request_id(),
        )
        return (await self._call(self._models.SetAlias, request)).model

    async def delete_alias(self, model: str, alias: str, etag: str = "", request_id: str = "") -> resources_pb2.Model:
        """Takes an alias away; with the model's etag, unless somebody changed the model since it was read."""
        request = registry_service_pb2.DeleteAliasRequest(
            model=names.model_name(model), alias=alias, etag=etag, request_id=request_id or _request_id()
        )
        return (await self._call(self._models.DeleteAlias, request)).model

    async def delete_model(self, model: str) -> None:
        """Deletes a model and all it has."""
        request = registry_service_pb2.DeleteModelRequest(name=names.model_name(model), request_id=_request_id())
        await self._call(self._models.DeleteModel, request)

    async def delete_version(self, model: str, version: int) -> None:
        """Deletes a version that nothing names."""
        request = registry_service_pb2.DeleteModelVersionRequest(
            name=names.version_name(model, version), request_id=_request_id()
        )
        await self._call(self._models.DeleteModelVersion, request)

    async def endpoint(self, endpoint: str) -> resources_pb2.Endpoint:
        """One endpoint."""
        request = endpoint_service_pb2.GetEndpointRequest(name=names.endpoint_name(endpoint))
        return (await self._call(self._endpoints.GetEndpoint, request)).endpoint

    async def endpoints(self) -> list[resources_pb2.Endpoint]:
        """All endpoints, by name."""
        request = endpoint_service_pb2.ListEndpointsRequest(page_size=PAGE_SIZE)
        return await self._all(self._endpoints.ListEndpoints, request, "endpoints")

    async def set_endpoint(
        self,
        endpoint: resources_pb2.Endpoint,
        *,
        automatic: bool,
        streams: resources_pb2.StreamPolicy.ValueType = resources_pb2.STREAM_POLICY_UNSPECIFIED,
    ) -> resources_pb2.Endpoint:
        """Says what it follows and what streams do, unless somebody changed it since it was read; arms stay."""
        wanted = resources_pb2.Endpoint(
            name=endpoint.name,
            arms=() if automatic else endpoint.arms,
            automatic=automatic,
            stream_policy=streams,
            match_rules=() if automatic else endpoint.match_rules,
            etag=endpoint.etag,
        )
        return await self.update_endpoint(wanted)

    async def update_endpoint(self, endpoint: resources_pb2.Endpoint, request_id: str = "") -> resources_pb2.Endpoint:
        """Sets what callers may set of an endpoint; with its etag, unless somebody changed it since it was read."""
        request = endpoint_service_pb2.UpdateEndpointRequest(endpoint=endpoint, request_id=request_id or _request_id())
        return (await self._call(self._endpoints.UpdateEndpoint, request)).endpoint

    async def create_endpoint(self, endpoint: resources_pb2.Endpoint, request_id: str = "") -> resources_pb2.Endpoint:
        """Makes an endpoint with explicit arms."""
        request = endpoint_service_pb2.CreateEndpointRequest(endpoint=endpoint, request_id=request_id or _request_id())
        return (await self._call(self._endpoints.CreateEndpoint, request)).endpoint

    async def create_rollout(
        self,
        endpoint: str,
        spec: rollouts_pb2.RolloutSpec,
        *,
        supersede: bool = False,
        validate_only: bool = False,
        request_id: str = "",
    ) -> rollouts_pb2.Rollout:
        """Begins a rollout; with `validate_only` it is the one that would begin."""
        request = rollout_service_pb2.CreateRolloutRequest(
            parent=names.endpoint_name(endpoint),
            rollout=rollouts_pb2.Rollout(spec=spec),
            supersede=supersede,
            validate_only=validate_only,
            request_id=request_id or _request_id(),
        )
        return (await self._call(self._rollouts.CreateRollout, request)).rollout

    async def rollout(self, name: str, *, samples: bool = False) -> rollouts_pb2.Rollout:
        """One rollout by its full name, with figures as of now; `-` for its number is the newest."""
        request = rollout_service_pb2.GetRolloutRequest(name=name, samples_requested=samples)
        return (await self._call(self._rollouts.GetRollout, request)).rollout

    async def rollouts(self, endpoint: str) -> list[rollouts_pb2.Rollout]:
        """All rollouts of an endpoint, or of all endpoints for `-`, newest first, without figures."""
        request = rollout_service_pb2.ListRolloutsRequest(parent=names.endpoint_name(endpoint), page_size=PAGE_SIZE)
        return await self._all(self._rollouts.ListRollouts, request, "rollouts")

    async def pause_rollout(self, name: str) -> rollouts_pb2.Rollout:
        """Leaves the weights as they are; `-` for the number is the active rollout, here and below."""
        request = rollout_service_pb2.PauseRolloutRequest(name=name, request_id=_request_id())
        return (await self._call(self._rollouts.PauseRollout, request)).rollout

    async def resume_rollout(self, name: str) -> rollouts_pb2.Rollout:
        """Goes on where it was paused."""
        request = rollout_service_pb2.ResumeRolloutRequest(name=name, request_id=_request_id())
        return (await self._call(self._rollouts.ResumeRollout, request)).rollout

    async def promote_rollout(self, name: str, *, full: bool) -> rollouts_pb2.Rollout:
        """Goes on to the next step, or all the way."""
        request = rollout_service_pb2.PromoteRolloutRequest(name=name, full=full, request_id=_request_id())
        return (await self._call(self._rollouts.PromoteRollout, request)).rollout

    async def abort_rollout(self, name: str, reason: str) -> rollouts_pb2.Rollout:
        """Gives all traffic back to the stable version."""
        request = rollout_service_pb2.AbortRolloutRequest(name=name, reason=reason, request_id=_request_id())
        return (await self._call(self._rollouts.AbortRollout, request)).rollout

    async def retry_rollout(self, name: str) -> rollouts_pb2.Rollout:
        """Begins anew what was rolled back or failed; `-` for the number is the newest."""
        request = rollout_service_pb2.RetryRolloutRequest(name=name, request_id=_request_id())
        return (await self._call(self._rollouts.RetryRollout, request)).rollout

    async def workers(self) -> list[resources_pb2.Worker]:
        """All workers whose lease holds, by name."""
        request = fleet_service_pb2.ListWorkersRequest(page_size=PAGE_SIZE)
        return await self._all(self._fleet.ListWorkers, request, "workers")

    async def create_upload(self, request: registry_service_pb2.CreateUploadRequest) -> resources_pb2.Upload:
        """Begins an upload, or finds the one that the same request began."""
        return (await self._call(self._models.CreateUpload, request)).upload

    async def upload(self, name: str) -> resources_pb2.Upload:
        """One upload by its full name."""
        request = registry_service_pb2.GetUploadRequest(name=name)
        return (await self._call(self._models.GetUpload, request)).upload

    async def upload_artifact(self, messages: AsyncIterator[registry_service_pb2.UploadArtifactRequest]) -> int:
        """Sends a file or a part of it, and returns how many bytes of it are stored; raises StatusLost, too."""
        with translated_errors(self._target):
            try:
                response = await self._models.UploadArtifact(messages, timeout=UPLOAD_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL and error.details() == WRITE_FAILED:
                    raise StatusLost("the registry ended the upload, and its reason was lost") from error
                raise
        return response.file.committed_bytes

    async def publish(self, upload: str, alias: str) -> resources_pb2.ModelVersion:
        """Publishes an upload; repeated for the same upload and alias it has one effect."""
        request = registry_service_pb2.PublishUploadRequest(
            name=upload, alias=alias, request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{upload}#{alias}"))
        )
        return (await self._call(self._models.PublishUpload, request)).model_version

    async def _all(self, method: Any, request: Any, field: str) -> list[Any]:
        found: list[Any] = []
        while True:
            page = await self._call(method, request)
            found += getattr(page, field)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        with translated_errors(self._target):
            try:
                return await method(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise Silent(f"the registry at {self._target} did not answer in {CALL_SECONDS:g} s") from error
                raise


def _request_id() -> str:
    return str(uuid.uuid4())
