"""What an automatic endpoint does next, and which versions workers shall hold. Pure: values in, values out.

An automatic endpoint moves forward only: to the newest published version that is newer than the one it serves, as
soon as a worker has it ready. Withdrawing a version never moves traffic by itself; its callers are told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from inferway.errors import InvalidField
from inferway_registry.resources import (
    FULL_WEIGHT,
    Alias,
    Arm,
    Endpoint,
    MatchRule,
    ModelVersion,
    VersionPolicy,
    VersionState,
)
from inferway_registry.serving import keeps
from inferway_registry.wording import shown

MAX_ARMS = 32
MAX_RULES = 32
VersionKey = tuple[str, int]
"""Model and number."""


def follow(endpoint: Endpoint, published: Collection[int], ready: Collection[int]) -> Endpoint:
    """Returns `endpoint` as it shall be; unchanged if it is not automatic or has nothing to do.

    `published` are the numbers of the endpoint's model that may be served, `ready` those that a worker has ready.
    `generation` and `revision` are left to the caller.
    """
    if not endpoint.automatic:
        return endpoint
    served = _served_alone(endpoint)
    newest = max((number for number in published if number > served), default=0)
    if newest == 0 or newest not in ready:
        return replace(endpoint, next_number=newest)
    arms = (Arm(f"v{newest}", endpoint.endpoint, newest, FULL_WEIGHT),)
    return replace(endpoint, arms=arms, next_number=0)


def _served_alone(endpoint: Endpoint) -> int:
    """The number that has all traffic and is of the endpoint's own model; 0 if there is none such."""
    match endpoint.arms:
        case (arm,) if arm.model == endpoint.endpoint:
            return arm.number
    return 0


def check_arms(arms: tuple[Arm, ...], field: str) -> None:
    """Raises InvalidField unless arms have distinct names and weights that add up."""
    if not 0 < len(arms) <= MAX_ARMS:
        raise InvalidField.at(field, f"{len(arms)} arms; expected 1 to {MAX_ARMS}")
    if len({arm.arm for arm in arms}) != len(arms):
        raise InvalidField.at(field, "two arms have the same name")
    for index, arm in enumerate(arms):
        if not 0 <= arm.weight_basis_points <= FULL_WEIGHT:
            raise InvalidField.at(f"{field}[{index}].weight_basis_points", f"expected 0 to {FULL_WEIGHT}")
    total = sum(arm.weight_basis_points for arm in arms)
    if total != FULL_WEIGHT:
        raise InvalidField.at(field, f"weights add up to {total}; expected {FULL_WEIGHT}")


def check_rules(rules: tuple[MatchRule, ...], arms: tuple[Arm, ...], field: str) -> None:
    """Raises InvalidField unless each rule names one of the arms."""
    if len(rules) > MAX_RULES:
        raise InvalidField.at(field, f"{len(rules)} rules; at most {MAX_RULES}")
    names = {arm.arm for arm in arms}
    for index, rule in enumerate(rules):
        if rule.arm not in names:
            raise InvalidField.at(f"{field}[{index}].arm", f"there is no arm {shown(rule.arm)!r}")


def wanted(
    versions: Iterable[ModelVersion],
    endpoints: Iterable[Endpoint],
    aliases: Mapping[str, Iterable[Alias]],
    policies: Mapping[str, VersionPolicy],
) -> frozenset[VersionKey]:
    """The versions that workers shall hold.

    They are published, and named by an arm, a next_version or an alias, or kept by their model's policy. `aliases` and
    `policies` are those of each model.
    """
    named = {(model, alias.number) for model, labels in aliases.items() for alias in labels}
    for endpoint in endpoints:
        named.update((arm.model, arm.number) for arm in endpoint.arms)
        if endpoint.next_number:
            named.add((endpoint.endpoint, endpoint.next_number))
    published: dict[str, set[int]] = defaultdict(set)
    for version in versions:
        if version.state is VersionState.PUBLISHED:
            published[version.model].add(version.number)
    kept = {(model, number) for model, chosen in policies.items() for number in keeps(chosen, published[model])}
    return frozenset(key for key in named | kept if key[1] in published[key[0]])
