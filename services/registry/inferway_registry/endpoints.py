"""Endpoints: every change that can be made to them, as functions of a `Change`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from inferway.errors import (
    EndpointExists,
    EndpointNotFound,
    InvalidField,
    ResourceInUse,
    RolloutActive,
    VersionNotFound,
)
from inferway_registry import policy
from inferway_registry.ledger import Change, check_etag
from inferway_registry.resources import Arm, Endpoint, MatchRule, StreamPolicy
from inferway_registry.rollouts.arms import candidate_arm, matches, takes_matches
from inferway_registry.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of an endpoint: either `arms`, or `automatic`.

    An empty `salt` stands for the present one, or for the endpoint's name: no two endpoints shall assign units alike.
    An unspecified `stream_policy` stands for the present one.
    """

    arms: tuple[Arm, ...]
    salt: str
    automatic: bool = False
    stream_policy: StreamPolicy = StreamPolicy.UNSPECIFIED
    match_rules: tuple[MatchRule, ...] = ()


def match_rules(endpoint: Endpoint) -> tuple[MatchRule, ...]:
    """The rules in force: those of the rollout first, then the endpoint's own that name an arm which is there.

    One that is from an earlier time, and names what is the candidate's arm now, waits until workers have loaded it.
    """
    names = {arm.arm for arm in endpoint.arms}
    if endpoint.rollout is None:
        return tuple(rule for rule in endpoint.match_rules if rule.arm in names)
    candidate = candidate_arm(endpoint.rollout)
    if not takes_matches(endpoint.rollout):
        names -= {candidate}
    own = tuple(rule for rule in endpoint.match_rules if rule.arm in names)
    return (*(MatchRule(match, candidate) for match in matches(endpoint.rollout)), *own)


def check_not_driven(endpoint: Endpoint) -> None:
    """Raises RolloutActive while a rollout drives the endpoint."""
    if endpoint.rollout is not None:
        name = endpoint.rollout.name
        problem = f"{name} drives {endpoint.name}; abort it, or wait until it has ended"
        raise RolloutActive(problem, endpoint=endpoint.endpoint, rollout=name)


async def require_endpoint(rows: Reader, endpoint: str) -> Endpoint:
    """The endpoint; raises EndpointNotFound."""
    found = await rows.endpoint(endpoint)
    if found is None:
        raise EndpointNotFound(f"there is no endpoint {endpoint!r}", endpoint=endpoint)
    return found


async def create(change: Change, name: str, wish: Wish) -> Endpoint:
    """Makes an endpoint with explicit arms; raises EndpointExists, InvalidField or VersionNotFound."""
    policy.check_arms(wish.arms, "endpoint.arms")
    policy.check_rules(wish.match_rules, wish.arms, "endpoint.match_rules")
    if await change.rows.endpoint(name) is not None:
        raise EndpointExists(f"there is an endpoint {name!r} already", endpoint=name)
    await _require_versions(change.rows, wish.arms)
    endpoint = Endpoint(
        endpoint=name,
        arms=wish.arms,
        salt=wish.salt or name,
        generation=1,
        automatic=False,
        next_number=0,
        create_time=change.now,
        revision=change.revision,
        stream_policy=wish.stream_policy,
        match_rules=wish.match_rules,
    )
    await change.rows.put_endpoint(endpoint)
    change.created(endpoint.name)
    return endpoint


async def update(change: Change, name: str, wish: Wish, given_etag: str) -> Endpoint:
    """Sets arms, salt, match rules and stream policy, or hands the endpoint back to automatic.

    Raises EndpointNotFound, EtagMismatch, InvalidField, VersionNotFound, or RolloutActive if a rollout drives it and
    more than the stream policy would change.
    """
    before = await require_endpoint(change.rows, name)
    check_etag(before.name, given_etag, before.revision)
    kept = replace(before, salt=wish.salt or before.salt, stream_policy=wish.stream_policy or before.stream_policy)
    if before.rollout is not None:
        if _moves(before, wish):
            check_not_driven(before)
        return await _store(change, before, replace(before, stream_policy=kept.stream_policy))
    if wish.automatic:
        after = await _automatic(change.rows, replace(kept, automatic=True, match_rules=()), wish)
    else:
        policy.check_arms(wish.arms, "endpoint.arms")
        policy.check_rules(wish.match_rules, wish.arms, "endpoint.match_rules")
        await _require_versions(change.rows, wish.arms)
        after = replace(kept, arms=wish.arms, automatic=False, next_number=0, match_rules=wish.match_rules)
    return await _store(change, before, after)


async def drive(change: Change, name: str, arms: tuple[Arm, ...], salt: str) -> Endpoint:
    """Sets what a rollout sets; raises EndpointNotFound."""
    before = await require_endpoint(change.rows, name)
    return await _store(change, before, replace(before, arms=arms, salt=salt, automatic=False, next_number=0))


async def delete(change: Change, name: str, given_etag: str) -> None:
    """Deletes an endpoint, its rollouts and all that was counted.

    Raises EndpointNotFound, EtagMismatch, RolloutActive, or ResourceInUse if a model has its name.
    """
    endpoint = await require_endpoint(change.rows, name)
    check_etag(endpoint.name, given_etag, endpoint.revision)
    model = await change.rows.model(name)
    if model is not None:
        raise ResourceInUse(
            f"{endpoint.name} belongs to {model.name}; delete the model, or set the endpoint's arms",
            resource=endpoint.name,
            used_by=model.name,
        )
    await _delete(change, endpoint)


async def delete_with_model(change: Change, model: str) -> None:
    """Deletes the endpoint of a model's name and its rollouts, whoever set its arms; raises RolloutActive."""
    endpoint = await change.rows.endpoint(model)
    if endpoint is not None:
        await _delete(change, endpoint)


async def follow(change: Change, model: str, ready: Collection[int] = ()) -> None:
    """Moves the automatic endpoint of a model as the policy says; makes it if there is none.

    `ready` are the numbers that a worker has ready.
    """
    before = await change.rows.endpoint(model)
    if before is None:
        before = Endpoint(
            endpoint=model,
            arms=(),
            salt=model,
            generation=0,
            automatic=True,
            next_number=0,
            create_time=change.now,
            revision=change.revision,
        )
        await change.rows.put_endpoint(before)
        change.created(before.name)
    await _store(change, before, policy.follow(before, await change.rows.published_numbers(model), ready))


async def _delete(change: Change, endpoint: Endpoint) -> None:
    check_not_driven(endpoint)
    for number in await change.rows.rollout_numbers(endpoint.endpoint):
        await delete_rollout(change, endpoint.endpoint, number)
    await change.rows.delete_split_reports(endpoint.endpoint)
    await change.rows.delete_endpoint(endpoint.endpoint)
    change.deleted(endpoint.name, endpoint.revision)


async def delete_rollout(change: Change, endpoint: str, number: int) -> None:
    """Deletes a rollout that has ended, with all that was counted for it."""
    old = await change.rows.rollout(endpoint, number)
    if old is not None:
        await change.rows.delete_rollout(endpoint, number)
        change.deleted(old.name, old.revision)


def _moves(endpoint: Endpoint, wish: Wish) -> bool:
    """Whether a wish differs from what a driven endpoint is, as anybody reads it."""
    same_rules = wish.match_rules in (endpoint.match_rules, match_rules(endpoint))
    same = (wish.arms, wish.salt or endpoint.salt, wish.automatic) == (endpoint.arms, endpoint.salt, False)
    return not (same and same_rules)


async def _automatic(rows: Reader, endpoint: Endpoint, wish: Wish) -> Endpoint:
    if wish.arms:
        raise InvalidField.at("endpoint.arms", "an automatic endpoint sets its arms itself; leave them out")
    if wish.match_rules:
        raise InvalidField.at("endpoint.match_rules", "arms of an automatic endpoint change; leave rules out")
    if await rows.model(endpoint.endpoint) is None:
        raise InvalidField.at("endpoint.automatic", f"there is no model {endpoint.endpoint!r} to follow")
    return policy.follow(endpoint, await rows.published_numbers(endpoint.endpoint), ())


async def _require_versions(rows: Reader, arms: tuple[Arm, ...]) -> None:
    for arm in arms:
        if await rows.version(arm.model, arm.number) is None:
            raise VersionNotFound(
                f"arm {arm.arm!r}: model {arm.model!r} has no version {arm.number}", model=arm.model, version=arm.number
            )


async def _store(change: Change, before: Endpoint, after: Endpoint) -> Endpoint:
    """Writes what differs, if anything does. A new generation begins with new arms or a new salt."""
    if after == before:
        return before
    moved = (after.arms, after.salt) != (before.arms, before.salt)
    after = replace(after, revision=change.revision, generation=before.generation + moved)
    await change.rows.put_endpoint(after)
    if before.revision != change.revision:
        change.updated(after.name, before.revision, generation=str(after.generation))
    return after
