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
    wanted = parse_version(version)
    if wanted is None:
        return await registry.version(await _busiest(registry, model))
    number = wanted if isinstance(wanted, int) else await _number_of(registry, model, wanted)
    return await registry.version(names.version_name(model, number))


async def _number_of(registry: Registry, model: str, alias: str) -> int:
    aliases = {label.alias: label.version for label in (await registry.model(model)).aliases}
    if alias not in aliases:
        raise AliasNotFound(f"{model} has no alias {alias!r}", model=model, alias=alias)
    return aliases[alias]


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
