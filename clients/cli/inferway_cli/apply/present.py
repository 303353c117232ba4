"""How things stand in the registry, as far as documents concern them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from inferway.errors import EndpointNotFound, ModelNotFound
from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.documents import Document, EndpointDocument, ModelDocument
from inferway_cli.registry import Registry


@dataclass(frozen=True, slots=True)
class Present:
    """What there is; names that are missing in a mapping are missing in the registry."""

    models: Mapping[str, resources_pb2.Model] = field(default_factory=dict)
    versions: Mapping[str, Sequence[resources_pb2.ModelVersion]] = field(default_factory=dict)
    """Of each model, newest first."""
    endpoints: Mapping[str, resources_pb2.Endpoint] = field(default_factory=dict)


async def read_present(registry: Registry, documents: Iterable[Document]) -> Present:
    """Reads every model and endpoint that the documents name."""
    models: dict[str, resources_pb2.Model] = {}
    versions: dict[str, Sequence[resources_pb2.ModelVersion]] = {}
    endpoints: dict[str, resources_pb2.Endpoint] = {}
    for name in sorted(_models(documents)):
        with suppress(ModelNotFound):
            models[name] = await registry.model(name)
            versions[name] = await registry.versions(name)
    for document in documents:
        if isinstance(document, EndpointDocument):
            with suppress(EndpointNotFound):
                endpoints[document.name] = await registry.endpoint(document.name)
    return Present(models, versions, endpoints)


def _models(documents: Iterable[Document]) -> set[str]:
    """The models that are described, that arms are of, and that automatic endpoints follow."""
    found: set[str] = set()
    for document in documents:
        if isinstance(document, ModelDocument) or document.automatic:
            found.add(document.name)
        if isinstance(document, EndpointDocument):
            found.update(arm.model for arm in document.arms)
    return found
