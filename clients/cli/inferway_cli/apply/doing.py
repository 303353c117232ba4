"""Does what a plan says, one act after another, each only if what it changes is still as it was planned for."""

from __future__ import annotations

from collections.abc import Callable

from inferway import names
from inferway.errors import EtagMismatch, ModelNotFound
from inferway.registry.v1 import resources_pb2, rollouts_pb2
from inferway_cli.apply.acts import Act, Begin, DropAlias, Keep, Publish, PutAlias, Ref, Route, Tune
from inferway_cli.apply.present import Present
from inferway_cli.apply.repeating import answered
from inferway_cli.apply.rerouting import Prepare, Rerouting
from inferway_cli.registry import Registry
from inferway_cli.uploads import push


class Doer:
    """Does the acts of one plan. What an act changes, later ones know of; what anybody else changed ends it."""

    def __init__(
        self,
        registry: Registry,
        present: Present,
        sent: Callable[[int], None],
        prepare: Prepare | None,
    ) -> None:
        """`present` is what the plan was made from; `sent` is told how many bytes of a version the registry has.

        `prepare`, if it is given, returns when workers have these versions ready; traffic moves only then.
        """
        self._registry = registry
        self._models = dict(present.models)
        self._versions = {version.name: version for all_ in present.versions.values() for version in all_}
        self._published: dict[str, int] = {}
        self._sent = sent
        self._rerouting = Rerouting(registry, prepare)

    async def do(self, act: Act) -> None:
        """Does one act. Raises EtagMismatch if somebody changed what it is about, and what the rpcs raise."""
        match act:
            case Publish():
                await self._publish(act)
            case Tune():
                await self._tune(act)
            case Keep():
                seen = self._models[act.model]
                self._models[act.model] = await answered(
                    lambda request_id: self._registry.set_version_policy(seen, act.policy, request_id)
                )
            case PutAlias() | DropAlias():
                await self._alias(act)
            case Route():
                await self._rerouting.do(act, [self.name(share.version) for share in act.shares])
            case Begin():
                await self._begin(act)

    def name(self, version: Ref) -> str:
        """The full name of a version, also if this apply has published it."""
        number = self._published[version.model] if version.number is None else version.number
        return names.version_name(version.model, number)

    async def _publish(self, act: Publish) -> None:
        before = self._models.get(act.model, resources_pb2.Model())
        now = await self._read(act.model)
        if now != before:
            raise _changed(f"model {act.model} is not as it was when the plan was made", before, now)
        local, config = act.content.local, act.content.config
        version = await push(self._registry, act.model, local, config, "", self._sent)
        self._published[act.model] = version.version
        self._versions[version.name] = version
        now = await answered(lambda _: self._registry.model(act.model))
        if [*before.version_numbers, version.version] != list(now.version_numbers) or before.aliases != now.aliases:
            problem = f"{version.name} is published, but somebody else published or moved an alias meanwhile"
            raise _changed(problem, before, now)
        self._models[act.model] = now

    async def _read(self, model: str) -> resources_pb2.Model:
        try:
            return await answered(lambda _: self._registry.model(model))
        except ModelNotFound:
            return resources_pb2.Model()

    async def _tune(self, act: Tune) -> None:
        version = self._versions[self.name(act.version)]
        await answered(lambda request_id: self._registry.set_serving_options(version, act.options, request_id))

    async def _alias(self, act: PutAlias | DropAlias) -> None:
        model = act.version.model if isinstance(act, PutAlias) else act.model
        etag = self._models[model].etag

        async def write(request_id: str) -> resources_pb2.Model:
            if isinstance(act, DropAlias):
                return await self._registry.delete_alias(model, act.alias, etag, request_id)
            _, number = names.parse_version(self.name(act.version))
            return await self._registry.set_alias(model, act.alias, number, etag, request_id)

        self._models[model] = await answered(write)

    async def _begin(self, act: Begin) -> None:
        spec = rollouts_pb2.RolloutSpec()
        spec.CopyFrom(act.spec)
        spec.candidate_version = self.name(act.version)
        await answered(
            lambda request_id: self._registry.create_rollout(
                act.endpoint, spec, supersede=act.supersede, request_id=request_id
            )
        )


def _changed(problem: str, before: resources_pb2.Model, now: resources_pb2.Model) -> EtagMismatch:
    return EtagMismatch(problem, resource=now.name or before.name, expected=before.etag, actual=now.etag)
