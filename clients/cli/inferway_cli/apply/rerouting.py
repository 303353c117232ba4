"""Moves an endpoint's traffic, if nobody else did since the plan was made; with care, if workers must load first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from inferway import names
from inferway.errors import EndpointNotFound, EtagMismatch
from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.acts import Route, Share
from inferway_cli.apply.repeating import answered
from inferway_cli.registry import Registry

Endpoint = resources_pb2.Endpoint
Prepare = Callable[[Sequence[str]], Awaitable[None]]
"""Returns when workers have these versions ready, by their full names."""


class Rerouting:
    """Makes and changes endpoints."""

    def __init__(self, registry: Registry, prepare: Prepare | None) -> None:
        """Traffic that is there already moves only after `prepare`, if it is given."""
        self._registry = registry
        self._prepare = prepare

    async def do(self, act: Route, versions: Sequence[str]) -> None:
        """Does the act; `versions` are those of its shares, by full name. Raises EtagMismatch, and what rpcs raise."""
        now = await self._read(act.endpoint)
        expected = _made_with_model(act.endpoint) if act.comes_with_model else act.seen
        if _settings(now) != _settings(expected):
            raise EtagMismatch(
                f"endpoint {act.endpoint} is not as it was when the plan was made",
                resource=names.endpoint_name(act.endpoint),
                expected=expected.etag if expected else "",
                actual=now.etag if now else "",
            )
        wanted = _wanted(act, versions, now)
        if now is None:
            await answered(lambda request_id: self._registry.create_endpoint(wanted, request_id))
            return
        if self._prepare is not None:
            wanted.etag = (await self._prepared(now, wanted, self._prepare)).etag
        await answered(lambda request_id: self._registry.update_endpoint(wanted, request_id))

    async def _read(self, endpoint: str) -> Endpoint | None:
        try:
            return await answered(lambda _: self._registry.endpoint(endpoint))
        except EndpointNotFound:
            return None

    async def _prepared(self, now: Endpoint, wanted: Endpoint, prepare: Prepare) -> Endpoint:
        """Gives versions that are new here no share yet, which makes workers load them, and waits until they have."""
        there = {arm.version for arm in now.arms}
        coming = [arm for arm in wanted.arms if arm.version not in there]
        if not now.arms or not coming:
            return now
        taken = {arm.arm for arm in now.arms}
        idle = [
            resources_pb2.Arm(arm=_free_name(arm.arm, taken), version=arm.version, weight_basis_points=0)
            for arm in coming
        ]
        both = Endpoint(name=now.name, arms=[*now.arms, *idle], match_rules=now.match_rules, etag=now.etag)
        after = await answered(lambda request_id: self._registry.update_endpoint(both, request_id))
        await prepare([arm.version for arm in coming])
        return after


def _wanted(act: Route, versions: Sequence[str], now: Endpoint | None) -> Endpoint:
    arms = [_arm(share, version) for share, version in zip(act.shares, versions, strict=True)]
    kept = now.arms if now is not None and not act.automatic else ()
    return Endpoint(
        name=names.endpoint_name(act.endpoint),
        arms=arms or kept,
        salt=act.salt,
        automatic=act.automatic,
        stream_policy=act.streams,
        match_rules=_rules(act, now),
        etag=now.etag if now else "",
    )


def _rules(act: Route, now: Endpoint | None) -> Sequence[resources_pb2.MatchRule]:
    """Those that are asked for, else those that there are; an automatic endpoint has none."""
    if act.rules is not None:
        return act.rules
    return now.match_rules if now is not None and not act.automatic else ()


def _arm(share: Share, version: str) -> resources_pb2.Arm:
    _, number = names.parse_version(version)
    return resources_pb2.Arm(
        arm=share.arm or f"v{number}", version=version, weight_basis_points=share.weight_basis_points
    )


def _free_name(arm: str, taken: set[str]) -> str:
    """The arm's name, or one that is not taken."""
    number = 2
    free = arm
    while free in taken:
        free, number = f"{arm[:56]}-{number}", number + 1
    taken.add(free)
    return free


def _made_with_model(endpoint: str) -> Endpoint:
    return Endpoint(automatic=True, salt=endpoint)


def _settings(endpoint: Endpoint | None) -> object:
    """What people set of an endpoint: an automatic one changes by itself, too."""
    if endpoint is None:
        return None
    arms = () if endpoint.automatic else tuple((arm.arm, arm.version, arm.weight_basis_points) for arm in endpoint.arms)
    rules = tuple(map(resources_pb2.MatchRule.SerializeToString, endpoint.match_rules))
    return endpoint.automatic, arms, endpoint.salt, endpoint.stream_policy, rules
