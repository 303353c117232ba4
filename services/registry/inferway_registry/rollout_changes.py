"""Rollouts: every change that can be made to them, as functions of a `Change`.

Where a rollout goes is decided by the pure functions of `rollouts`, from the rollout as this transaction reads it: two
who decide at once decide one after the other. The rollout and its endpoint are written together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from inferway import names
from inferway.errors import InvalidField, RolloutNotFound, RolloutState, VersionUnloaded
from inferway_registry import catalogue, endpoints
from inferway_registry.compatibility import incompatibility
from inferway_registry.ledger import Change, check_etag
from inferway_registry.resources import FULL_WEIGHT, Arm, Endpoint, VersionState
from inferway_registry.rollouts import arms, commands, machine
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import Spec
from inferway_registry.rollouts.spec_check import check
from inferway_registry.store.reader import Reader

MAX_ENDED = 100
"""Ended rollouts that are kept of an endpoint; the oldest go."""
_RETRYABLE = frozenset({State.ROLLED_BACK, State.FAILED})

Decision = Callable[[Rollout, datetime, str], Rollout]
"""Of a rollout, the time and who wants it: where it goes. The same rollout stands for: nowhere."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a caller wants to begin."""

    endpoint: str
    spec: Spec
    salt: str
    """Random; assigns units while it lasts."""
    supersede: bool = False
    """The active rollout, if there is one, is aborted for it."""


async def require_rollout(rows: Reader, endpoint: str, number: int) -> Rollout:
    """The rollout, or the newest of its endpoint for number 0; raises RolloutNotFound."""
    found = await (rows.rollout(endpoint, number) if number else rows.newest_rollout(endpoint))
    if found is None:
        wanted = names.rollout_name(endpoint, number) if number else f"rollout of endpoint {endpoint!r}"
        raise RolloutNotFound(f"there is no {wanted}", endpoint=endpoint, rollout=number)
    return found


async def planned(rows: Reader, beginning: Beginning, principal: str, now: datetime) -> Rollout:
    """The rollout as it would begin.

    Raises InvalidField, EndpointNotFound, VersionNotFound, VersionUnloaded or RolloutActive.
    """
    check(beginning.spec)
    endpoint = await endpoints.require_endpoint(rows, beginning.endpoint)
    stable = _stable(endpoint, supersede=beginning.supersede)
    await _check_candidate(rows, stable, beginning.spec.candidate)
    number = await rows.next_rollout_number(endpoint.endpoint)
    rollout = Rollout(endpoint.endpoint, number, beginning.spec, stable, beginning.salt, now)
    return commands.begin(rollout, principal)


async def create(change: Change, beginning: Beginning, now: datetime) -> Rollout:
    """Begins a rollout; raises what `planned` raises."""
    rollout = await planned(change.rows, beginning, change.principal, now)
    endpoint = await endpoints.require_endpoint(change.rows, rollout.endpoint)
    if endpoint.rollout is not None:
        await _store(change, endpoint.rollout, commands.supersede(endpoint.rollout, now, change.principal))
    await change.rows.take_rollout_number(rollout.endpoint)
    rollout = replace(rollout, revision=change.revision)
    await change.rows.add_rollout(rollout)
    await _forget_old(change, rollout.endpoint)
    driven = await endpoints.drive(change, rollout.endpoint, arms.arms(rollout), rollout.salt)
    rollout = rollout.published(driven.generation)
    await change.rows.change_rollout(rollout)
    change.created(rollout.name, state=rollout.state.name)
    return rollout


async def retry(change: Change, endpoint: str, number: int, salt: str, now: datetime) -> Rollout:
    """Begins a new rollout with the spec of one that was rolled back or failed; 0 stands for the newest.

    Raises RolloutNotFound, RolloutState, and what `create` raises.
    """
    before = await require_rollout(change.rows, endpoint, number)
    if before.state not in _RETRYABLE:
        instead = "abort it first" if before.active else "begin another one"
        problem = f"{before.name} is {before.state.name}: only what was rolled back or failed is retried; {instead}"
        raise RolloutState(problem, rollout=before.name, state=before.state.name)
    return await create(change, Beginning(endpoint, before.spec, salt), now)


async def command(
    change: Change, endpoint: str, number: int, given_etag: str, decide: Decision, now: datetime
) -> Rollout:
    """Does with a rollout, 0 stands for the newest, what somebody wants.

    Raises RolloutNotFound, EtagMismatch, or what `decide` raises. Nothing changes if it decides so.
    """
    before = await require_rollout(change.rows, endpoint, number)
    check_etag(before.name, given_etag, before.revision)
    return await _store(change, before, decide(before, now, change.principal))


async def step(change: Change, rollout: Rollout, facts: Facts) -> Rollout:
    """Moves a rollout, as it was read in this transaction, on as far as the facts permit: by one step at most."""
    return await _store(change, rollout, machine.step(rollout, facts))


async def _store(change: Change, before: Rollout, after: Rollout) -> Rollout:
    """Writes rollout and endpoint, if anything differs."""
    if after == before:
        return before
    driven = await endpoints.drive(change, after.endpoint, arms.arms(after), after.salt)
    after = after.published(driven.generation) if after.active else after
    after = replace(after, revision=change.revision)
    await change.rows.change_rollout(after)
    details = {"state": after.state.name, "step": str(after.step), "weight": str(after.weight_basis_points)}
    change.updated(after.name, before.revision, **details)
    return after


async def _forget_old(change: Change, endpoint: str) -> None:
    kept = await change.rows.rollout_numbers(endpoint)
    for number in kept[: -MAX_ENDED - 1]:
        await endpoints.delete_rollout(change, endpoint, number)


def _stable(endpoint: Endpoint, *, supersede: bool) -> tuple[str, int]:
    """Model and number of the version that has all traffic, or gets it back first."""
    if endpoint.rollout is not None:
        if not supersede:
            endpoints.check_not_driven(endpoint)
        return endpoint.rollout.stable
    match endpoint.arms:
        case (Arm(weight_basis_points=weight) as arm,) if weight == FULL_WEIGHT:
            return arm.model, arm.number
        case ():
            problem = "has no version yet: wait until its first one is ready"
        case several:
            problem = f"has {len(several)} arms: give one of them all traffic and remove the others first"
    raise InvalidField.at("parent", f"{endpoint.name} {problem}")


async def _check_candidate(rows: Reader, stable: tuple[str, int], candidate: tuple[str, int]) -> None:
    field = "rollout.spec.candidate_version"
    version = await catalogue.require_version(rows, *candidate)
    if version.state is not VersionState.PUBLISHED:
        problem = f"{version.name} is unloaded; restore it first"
        raise VersionUnloaded(problem, model=version.model, version=version.number)
    if candidate == stable:
        raise InvalidField.at(field, f"{version.name} has all traffic already")
    known = await catalogue.require_version(rows, *stable)
    problem = incompatibility(known, version)
    if problem:
        raise InvalidField.at(field, f"callers of {known.name} cannot be given {version.name}: {problem}")
