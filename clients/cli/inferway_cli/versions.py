"""Which version of a model is meant: the one that was named, or the one that most traffic goes to."""

from __future__ import annotations

from inferway import names
from inferway.errors import AliasNotFound, EndpointNotFound
from inferway.registry.v1 import resources_pb2
from inferway_cli.addresses import parse_version
from inferway_cli.console import CommandError
from inferway_cli.registry import Registry


async def chosen_version(registry: Registry, model: str, version: str | None) -> resources_pb2.ModelVersion:
    """The version of that number or alias; without one, what the model's endpoint sends most traffic to.

    Raises ModelNotFound, VersionNotFound, AliasNotFound, or CommandError if there is no traffic to go by.
    """
    if version is None:
        return await registry.version(await _busiest(registry, model))
    return await registry.version(names.version_name(model, await number_of(registry, model, version)))


async def number_of(registry: Registry, model: str, version: str) -> int:
    """The number of a version as it was typed: a number or an alias; raises ModelNotFound, AliasNotFound."""
    typed = parse_version(version)
    if isinstance(typed, int):
        return typed
    aliases = {label.alias: label.version for label in (await registry.model(model)).aliases}
    if version not in aliases:
        raise AliasNotFound(f"{model} has no alias {version!r}", model=model, alias=version)
    return aliases[version]


async def _busiest(registry: Registry, model: str) -> str:
    found = await registry.model(model)
    try:
        endpoint = await registry.endpoint(model)
    except EndpointNotFound:
        endpoint = resources_pb2.Endpoint()
    own = [arm for arm in endpoint.arms if arm.version.startswith(f"{found.name}/")]
    if own:
        return max(own, key=lambda arm: arm.weight_basis_points).version
    if endpoint.next_version:
        return endpoint.next_version
    raise CommandError(f"{model} has no traffic; --version must say which version is meant")
