"""Which version answers: an immutable table made from one snapshot, swapped whole when the next one comes.

    endpoint ─► pinned number or alias, or an arm by a header, or an arm by hash(salt ‖ unit) ─► version

Units are assigned by xxh3_64 over the salt and then the unit, both UTF-8: `bucket = hash * 10000 >> 64`, and each
arm owns the range of buckets that begins where the arms before it end. The first range begins at 0 whatever the
weights are: while a rollout's candidate is the first of two arms, a ramp moves nobody twice.
`tests/golden/assignment.json` has vectors for every other implementation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from inferway.errors import AliasNotFound, EndpointNotFound, UnknownSignature, VersionNotFound, VersionNotReady
from inferway.names import model_name, version_name
from inferway_gateway.matching import Headers, MatchRule, arm_of
from inferway_gateway.rollouts.plan import RolloutPlan
from inferway_gateway.signature import Signature
from inferway_gateway.state import StatePlan

WHOLE = 10_000
"""All traffic, in basis points."""
DEFAULT_SIGNATURE = "serving_default"
_SHOWN_CHARACTERS = 63


class StreamPolicy(Enum):
    """What an open stream does when its endpoint would send it to another version than it has."""

    FINISH = "finish"
    MIGRATE = "migrate"


class TableRefused(Exception):
    """The parts contradict each other; no table can be made of them."""


@dataclass(frozen=True, slots=True)
class Version:
    """A published or unloaded version."""

    name: str
    """`models/{model}/versions/{number}`."""
    model: str
    number: int
    signatures: Mapping[str, Signature]
    wanted: bool = True
    """An arm, an alias or a next_version names it: workers load it."""
    unloaded: bool = False
    idempotent: bool = True
    """May be computed twice, so a request may be repeated on another worker."""
    max_batch_rows: int = 0
    """Rows that are batched at most; 0 leaves it to the worker."""
    platform: str = "tensorflow_savedmodel"
    stateful: Mapping[str, StatePlan] = field(default_factory=dict)
    """Of the signatures that keep state, by name; `signatures` holds their public form."""

    def signature(self, name: str, field: str) -> Signature:
        """The signature of that name; "" is `serving_default`, or the only one. Raises UnknownSignature at `field`."""
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is not None:
            return found
        if not name and len(self.signatures) == 1:
            return next(iter(self.signatures.values()))
        known = ", ".join(sorted(self.signatures)) or "none"
        raise UnknownSignature.at(
            field, f"{shown(name)} is no signature of {self.name}; it has: {known}", signature=clipped(name)
        )


@dataclass(frozen=True, slots=True)
class Arm:
    """A version taking part in an endpoint's traffic."""

    name: str
    version: str
    weight: int
    """Basis points."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a client names."""

    name: str
    arms: tuple[Arm, ...]
    salt: str = ""
    generation: int = 0
    next_version: str = ""
    """The version that an automatic endpoint moves to once it is ready."""
    stream_policy: StreamPolicy | None = None
    """What open streams do when the arms change; None leaves it to what they carry."""
    match_rules: tuple[MatchRule, ...] = ()
    """The first that matches decides, before the weights do."""
    rollout: RolloutPlan | None = None
    """What drives it."""
    braked: bool = False
    """This gateway gives the candidate of the rollout nothing, whatever the registry says."""
    is_split: bool = field(init=False)
    """Callers may want to know who answered: there are several arms with traffic, or a rollout."""
    starts: tuple[int, ...] = field(init=False)
    _live: tuple[Arm, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Lays the arms out over the buckets; raises TableRefused if they do not fill them, or one is missing."""
        live = tuple(arm for arm in self.arms if arm.weight > 0)
        total = sum(arm.weight for arm in live)
        if self.arms and (total != WHOLE or any(arm.weight < 0 for arm in self.arms)):
            raise TableRefused(f"the weights of endpoint {self.name} sum to {total}, not to {WHOLE}")
        self._check_arms()
        starts, start = [], 0
        for arm in live:
            starts.append(start)
            start += arm.weight
        object.__setattr__(self, "is_split", len(live) > 1 or self.rollout is not None)
        object.__setattr__(self, "starts", tuple(starts))
        object.__setattr__(self, "_live", live)

    def arm(self, name: str) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def without_candidate(self) -> Endpoint:
        """The same with everything for the stable arm of the rollout, and nobody matched to its candidate."""
        plan = self.rollout
        assert plan is not None
        arms = tuple(replace(arm, weight=WHOLE if arm.name == plan.stable_arm else 0) for arm in self.arms)
        rules = tuple(rule for rule in self.match_rules if rule.arm != plan.candidate_arm)
        return replace(self, arms=arms, match_rules=rules, braked=True)

    def matched(self, headers: Headers) -> Arm | None:
        """The arm of a call with these headers, if a rule says so."""
        return self.arm(arm_of(self.match_rules, headers))

    def choose(self, unit: str) -> Arm:
        """The arm of `unit`; the next version if there are no arms yet. Raises VersionNotReady."""
        if len(self._live) == 1:
            return self._live[0]
        if self._live:
            return self._live[bisect_right(self.starts, bucket_of(self.salt, unit)) - 1]
        if self.next_version:
            return Arm(f"v{self.next_version.rpartition('/')[2]}", self.next_version, WHOLE)
        raise VersionNotReady(
            f"endpoint {self.name} has no version to answer with yet: publish one", model=self.name, version=""
        )

    def _check_arms(self) -> None:
        named = [rule.arm for rule in self.match_rules]
        if self.rollout is not None:
            named += [self.rollout.stable_arm, self.rollout.candidate_arm]
        for name in named:
            if self.arm(name) is None:
                raise TableRefused(f"endpoint {self.name} has no arm {shown(name)}")


class Selector(NamedTuple):
    """What a caller named. At most one of `number` and `alias` is set; neither leaves the choice to the endpoint."""

    endpoint: str
    number: int = 0
    alias: str = ""
    signature: str = ""


class Decision(NamedTuple):
    """Where a request goes, and under which state of the endpoint that was decided."""

    version: Version
    arm: str
    """Empty if the caller pinned the version."""
    generation: int
    propensity: int = 0
    """The chance of this arm in basis points; 0 where chance has not chosen: for a pinned version, by a rule, or of a
    session that is resumed."""
    unit: str = ""
    """What was assigned: an affinity key, or a stream; empty for a request alone."""
    endpoint: Endpoint | None = None
    """As it was then: a stream may keep a decision for longer than its endpoint keeps its arms."""


@dataclass(frozen=True)
class RoutingTable:
    """Everything routing reads. Never changed."""

    epoch: str
    revision: int
    endpoints: Mapping[str, Endpoint]
    versions: Mapping[str, Version]
    aliases: Mapping[tuple[str, str], str]
    """(model, alias) to version."""

    def __post_init__(self) -> None:
        """Raises TableRefused if an arm or an alias names a version that is not here."""
        for endpoint in self.endpoints.values():
            self._check(f"endpoint {endpoint.name}", (arm.version for arm in endpoint.arms))
            self._check(f"endpoint {endpoint.name}", filter(None, (endpoint.next_version,)))
            if endpoint.rollout is not None and endpoint.rollout.mirror is not None:
                self._check(endpoint.rollout.rollout, (endpoint.rollout.mirror.version,))
        for (model, alias), version in self.aliases.items():
            self._check(f"alias {alias} of {model}", (version,))

    def route(self, selector: Selector, unit: str, headers: Headers = (), alone: str = "") -> Decision:
        """Decides for one request. Traffic is split by `unit`; if that is empty, by `alone`, which names the request.

        Raises EndpointNotFound, VersionNotFound, AliasNotFound, VersionNotReady (the endpoint has no version yet).
        """
        endpoint = self.endpoint(selector.endpoint)
        if selector.number or selector.alias:
            return Decision(self._pinned(selector), "", endpoint.generation, 0, unit, endpoint)
        arm = endpoint.matched(headers) if endpoint.match_rules else None
        if arm is not None:
            return Decision(self.versions[arm.version], arm.name, endpoint.generation, 0, unit, endpoint)
        arm = endpoint.choose(unit or alone)
        return Decision(self.versions[arm.version], arm.name, endpoint.generation, arm.weight, unit, endpoint)

    def endpoint(self, name: str) -> Endpoint:
        """Raises EndpointNotFound."""
        found = self.endpoints.get(name)
        if found is None:
            raise EndpointNotFound(f"no endpoint {shown(name)}", endpoint=name)
        return found

    def versions_of(self, model: str) -> list[Version]:
        """Versions of `model`, by number."""
        return sorted((v for v in self.versions.values() if v.model == model), key=lambda v: v.number)

    def _pinned(self, selector: Selector) -> Version:
        model = selector.endpoint
        if selector.alias:
            name = self.aliases.get((model, selector.alias))
            if name is None:
                raise AliasNotFound(
                    f"{model_name(model)} has no alias {shown(selector.alias)}",
                    model=model,
                    alias=selector.alias,
                )
            return self.versions[name]
        version = self.versions.get(version_name(model, selector.number))
        if version is None:
            raise VersionNotFound(
                f"{model_name(model)} has no version {selector.number}", model=model, version=selector.number
            )
        return version

    def _check(self, holder: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.versions:
                raise TableRefused(f"{holder} names {name}, which does not exist")


def bucket_of(salt: str, unit: str) -> int:
    """The bucket of `unit`, 0 to 9999."""
    return xxh3_64_intdigest((salt + unit).encode()) * WHOLE >> 64


def clipped(name: str) -> str:
    """`name` as metadata may repeat it: of bounded length, and otherwise as it is."""
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def shown(name: str) -> str:
    """`name` as a message may repeat it: of bounded length."""
    if len(name) <= _SHOWN_CHARACTERS:
        return repr(name)
    return f"{name[:_SHOWN_CHARACTERS]!r}… ({len(name)} characters)"
