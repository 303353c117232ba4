"""Models, versions and aliases: every change that can be made to them, as functions of a `Change`.

Each function checks everything first and writes then; what it raises leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import replace

from inferway import names
from inferway.errors import AliasNotFound, InferwayError, ModelNotFound, ResourceInUse, VersionNotFound
from inferway_registry import endpoints, serving
from inferway_registry.ledger import Change, check_etag
from inferway_registry.resources import (
    Alias,
    Model,
    ModelVersion,
    ServingOptions,
    Signature,
    Upload,
    VersionPolicy,
    VersionState,
)
from inferway_registry.store.reader import Reader
from inferway_registry.wording import listed


async def require_model(rows: Reader, model: str) -> Model:
    """The model; raises ModelNotFound."""
    found = await rows.model(model)
    if found is None:
        raise ModelNotFound(f"there is no model {model!r}", model=model)
    return found


async def require_version(rows: Reader, model: str, number: int) -> ModelVersion:
    """The version; raises VersionNotFound."""
    found = await rows.version(model, number)
    if found is None:
        raise VersionNotFound(f"model {model!r} has no version {number}", model=model, version=number)
    return found


async def publish(change: Change, upload: Upload, signatures: tuple[Signature, ...], alias: str) -> ModelVersion:
    """Makes a version of a complete upload, and its model and endpoint if they are new; `alias` may be empty."""
    before = await change.rows.model(upload.model)
    version = ModelVersion(
        model=upload.model,
        number=await change.rows.take_number(upload.model),
        state=VersionState.PUBLISHED,
        runtime=upload.runtime,
        manifest=upload.manifest,
        signatures=signatures,
        config=upload.config,
        create_time=change.now,
        revision=change.revision,
    )
    await change.rows.put_model(upload.model, change.now, change.revision)
    await change.rows.delete_upload(upload)
    await change.rows.add_version(version)
    if before is None:
        change.created(names.model_name(upload.model))
    change.created(version.name, digest=version.manifest.digest)
    if alias:
        await _stand(change, before, Alias(alias, version.number), upload.model)
    elif before is not None:
        change.updated(before.name, before.revision)
    await endpoints.follow(change, upload.model)
    return version


async def set_state(change: Change, model: str, number: int, state: VersionState, given_etag: str) -> ModelVersion:
    """Withdraws or restores a version. Nothing changes if it stands so.

    Raises VersionNotFound, EtagMismatch, or ResourceInUse if it is to be withdrawn while a rollout needs it.
    """
    before = await require_version(change.rows, model, number)
    check_etag(before.name, given_etag, before.revision)
    if before.state is state:
        return before
    if state is VersionState.UNLOADED:
        await _check_not_rolling(change.rows, before)
    after = replace(before, state=state, revision=change.revision)
    await change.rows.change_version(after)
    change.updated(after.name, before.revision, state=state.name)
    await endpoints.follow(change, model)
    return after


async def set_serving_options(
    change: Change, model: str, number: int, options: ServingOptions, given_etag: str
) -> ModelVersion:
    """Replaces the bounds of a version; raises InvalidField, VersionNotFound or EtagMismatch.

    Nothing changes if they are the same.
    """
    before = await require_version(change.rows, model, number)
    check_etag(before.name, given_etag, before.revision)
    serving.check_options(options, before.config.max_batch_rows, "serving_options")
    if before.serving_options == options:
        return before
    after = replace(before, serving_options=options, revision=change.revision)
    await change.rows.change_version(after)
    change.updated(after.name, before.revision, serving_options=serving.options_in_words(options))
    return after


async def set_version_policy(change: Change, model: str, policy: VersionPolicy, given_etag: str) -> Model:
    """Replaces the policy of a model; raises InvalidField, ModelNotFound, VersionNotFound or EtagMismatch.

    Nothing changes if it is the same.
    """
    before = await require_model(change.rows, model)
    check_etag(before.name, given_etag, before.revision)
    serving.check_policy(policy, "version_policy")
    for number in policy.specific:
        await require_version(change.rows, model, number)
    if before.version_policy == policy:
        return before
    after = replace(before, version_policy=policy, revision=change.revision)
    await change.rows.change_model(after)
    change.updated(after.name, before.revision, version_policy=serving.policy_in_words(policy))
    return after


async def delete_version(change: Change, model: str, number: int, given_etag: str) -> None:
    """Deletes a version.

    Raises VersionNotFound, EtagMismatch, or ResourceInUse if an arm, an alias or the model's policy names it.
    """
    version = await require_version(change.rows, model, number)
    check_etag(version.name, given_etag, version.revision)
    owner = await require_model(change.rows, model)
    users = [names.endpoint_name(endpoint) for endpoint in await change.rows.endpoints_naming(model, number)]
    users += [f"{owner.name} alias {alias.alias}" for alias in owner.aliases if alias.number == number]
    users += [f"{owner.name} version policy"] * (number in owner.version_policy.specific)
    if users:
        raise _in_use(version.name, users)
    await change.rows.delete_version(model, number)
    await change.rows.put_model(model, change.now, change.revision)
    change.deleted(version.name, version.revision)
    change.updated(owner.name, owner.revision)
    await endpoints.follow(change, model)


async def delete_model(change: Change, model: str, given_etag: str) -> None:
    """Deletes a model with all that is its own.

    Raises ModelNotFound, EtagMismatch, or ResourceInUse if an endpoint of another name has an arm on it.
    """
    owner = await require_model(change.rows, model)
    check_etag(owner.name, given_etag, owner.revision)
    users = [names.endpoint_name(name) for name in await change.rows.endpoints_naming(model) if name != model]
    if users:
        raise _in_use(owner.name, users)
    await endpoints.delete_with_model(change, model)
    for number in owner.numbers:
        version = await require_version(change.rows, model, number)
        change.deleted(version.name, version.revision)
    await change.rows.delete_model(model)
    change.deleted(owner.name, owner.revision)


async def set_alias(change: Change, model: str, alias: Alias, given_etag: str) -> Model:
    """Puts an alias on a version; raises ModelNotFound, VersionNotFound or EtagMismatch."""
    before = await require_model(change.rows, model)
    check_etag(before.name, given_etag, before.revision)
    await require_version(change.rows, model, alias.number)
    if alias in before.aliases:
        return before
    await _stand(change, before, alias, model)
    return await require_model(change.rows, model)


async def delete_alias(change: Change, model: str, alias: str, given_etag: str) -> Model:
    """Removes an alias; raises ModelNotFound, AliasNotFound or EtagMismatch."""
    before = await require_model(change.rows, model)
    check_etag(before.name, given_etag, before.revision)
    if alias not in {label.alias for label in before.aliases}:
        raise AliasNotFound(f"model {model!r} has no alias {alias!r}", model=model, alias=alias)
    await change.rows.delete_alias(model, alias)
    await change.rows.put_model(model, change.now, change.revision)
    change.updated(before.name, before.revision, alias=alias, version="")
    return await require_model(change.rows, model)


async def _stand(change: Change, before: Model | None, alias: Alias, model: str) -> None:
    await change.rows.put_alias(model, alias)
    await change.rows.put_model(model, change.now, change.revision)
    if before is not None:
        change.updated(before.name, before.revision, alias=alias.alias, version=str(alias.number))


async def _check_not_rolling(rows: Reader, version: ModelVersion) -> None:
    key = (version.model, version.number)
    active = await rows.active_rollouts()
    users = [rollout.name for rollout in active if key in (rollout.stable, rollout.spec.candidate)]
    if users:
        raise _in_use(version.name, users)


def _in_use(resource: str, users: list[str]) -> InferwayError:
    used_by = listed(users)
    return ResourceInUse(f"{resource} is used by {used_by}; change that first", resource=resource, used_by=used_by)
