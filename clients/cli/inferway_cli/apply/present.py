"""How things stand in the registry, as far as documents concern them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from inferway import names
from inferway.errors import EndpointNotFound, ModelNotFound, RolloutNotFound
from inferway.registry.v1 import resources_pb2, rollouts_pb2
from inferway_cli.apply.documents import Document, EndpointDocument, ModelDocument
from inferway_cli.apply.rollout_documents import RolloutDocument
from inferway_cli.registry import Registry
from inferway_cli.rollouts.named import newest


@dataclass(frozen=True, slots=True)
class Present:
    """What there is; names that are missing in a mapping are missing in the registry."""

    models: Mapping[str, resources_pb2.Model] = field(default_factory=dict)
    versions: Mapping[str, Sequence[resources_pb2.ModelVersion]] = field(default_factory=dict)
    """Of each model, newest first."""
    endpoints: Mapping[str, resources_pb2.Endpoint] = field(default_factory=dict)
    rollouts: Mapping[str, rollouts_pb2.Rollout] = field(default_factory=dict)
    """Of each endpoint, the newest."""

    def model_of(self, document: RolloutDocument) -> str:
        """Whose version a rollout brings: the document's word, else that of the endpoint's traffic, else its name."""
        return document.model or busiest_model(self.endpoints.get(document.name)) or document.name


async def read_present(registry: Registry, documents: Sequence[Document]) -> Present:
    """Reads every model, endpoint and newest rollout that the documents name."""
    endpoints = await _read_endpoints(registry, documents)
    rollouts: dict[str, rollouts_pb2.Rollout] = {}
    for document in documents:
        if isinstance(document, RolloutDocument) and document.name in endpoints:
            with suppress(RolloutNotFound):
                rollouts[document.name] = await registry.rollout(newest(document.name))
    models: dict[str, resources_pb2.Model] = {}
    versions: dict[str, Sequence[resources_pb2.ModelVersion]] = {}
    present = Present(models, versions, endpoints, rollouts)
    for name in sorted(_models(documents, present)):
        with suppress(ModelNotFound):
            models[name] = await registry.model(name)
            versions[name] = await registry.versions(name)
    return present


def busiest_model(endpoint: resources_pb2.Endpoint | None) -> str:
    """The model that most of an endpoint's traffic goes to; empty if it has none."""
    arms = endpoint.arms if endpoint is not None else ()
    busiest = max(arms, key=lambda arm: arm.weight_basis_points, default=None)
    return names.parse_version(busiest.version)[0] if busiest is not None else ""


async def _read_endpoints(registry: Registry, documents: Iterable[Document]) -> dict[str, resources_pb2.Endpoint]:
    endpoints: dict[str, resources_pb2.Endpoint] = {}
    for document in documents:
        if not isinstance(document, ModelDocument) and document.name not in endpoints:
            with suppress(EndpointNotFound):
                endpoints[document.name] = await registry.endpoint(document.name)
    return endpoints


def _models(documents: Iterable[Document], present: Present) -> set[str]:
    """The models that are described, that arms and rollouts are of, and that automatic endpoints follow."""
    found: set[str] = set()
    for document in documents:
        match document:
            case ModelDocument():
                found.add(document.name)
            case EndpointDocument():
                found.update(arm.model for arm in document.arms)
                found.update([document.name] if document.automatic else [])
            case RolloutDocument():
                found.add(present.model_of(document))
    return found
