"""Endpoints: what a document would change of one, with its arms' versions found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from inferway import names
from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.acts import Difference, Ref, Route, Share
from inferway_cli.apply.documents import ArmDocument, EndpointDocument
from inferway_cli.apply.nodes import Problems
from inferway_cli.apply.outlook import Outlook, Unknown
from inferway_cli.apply.present import Present
from inferway_cli.rollouts.spec import match_in_words
from inferway_cli.serving_words import stream_policy_name

_NUMBERED = re.compile(r"v[0-9]+")
UNKNOWN = "?"
"""Stands for the number of a version to come; no name can have it."""


def route(
    document: EndpointDocument, outlooks: Mapping[str, Outlook], present: Present, problems: Problems
) -> Route | None:
    """The act; None if nothing is to do, or if something is wrong, which is noted."""
    seen = present.endpoints.get(document.name)
    coming = document.name not in present.models and _publishes(outlooks, document.name)
    is_of_model = document.name in present.models or coming
    if document.automatic and not is_of_model:
        problems.add(document.place, f"there is no model {document.name!r} to follow")
    if not document.arms and not document.automatic and seen is None and not coming:
        problems.add(document.place, f"there is no endpoint {document.name!r} yet, so it needs arms")
    shares = [_share(arm, outlooks[arm.model], problems) for arm in document.arms]
    good = tuple(share for share in shares if share is not None)
    before = seen or resources_pb2.Endpoint(automatic=coming)
    if len(good) < len(shares) or not _are_distinct(document, good, problems):
        return None
    differences = _differences(document, before, good)
    if not differences:
        return None
    if before.rollout.rollout and {difference.field for difference in differences} != {"streams"}:
        problems.add(
            document.place, f"{before.rollout.rollout} drives its traffic; abort it, or wait until it has ended"
        )
    return Route(
        endpoint=document.name,
        seen=seen,
        comes_with_model=coming,
        shares=good,
        automatic=document.automatic or (not good and before.automatic),
        salt=document.salt,
        streams=document.streams,
        rules=document.rules,
        differences=differences,
    )


def arm_name(share: Share) -> str:
    """The arm's name, as far as it is known."""
    return share.arm or f"v{share.version.number or UNKNOWN}"


def _publishes(outlooks: Mapping[str, Outlook], model: str) -> bool:
    return model in outlooks and outlooks[model].publishes


def _share(arm: ArmDocument, model: Outlook, problems: Problems) -> Share | None:
    try:
        return Share(arm.arm, model.served(arm.version), arm.weight_basis_points)
    except Unknown as unknown:
        problems.add(arm.place, str(unknown))
        return None


def _are_distinct(document: EndpointDocument, shares: tuple[Share, ...], problems: Problems) -> bool:
    """Whether no two arms have the same name, or might when the number of a new version is known."""
    clashes = [
        (arm, share)
        for index, (arm, share) in enumerate(zip(document.arms, shares, strict=True))
        if any(_may_clash(share, other) for other in shares[:index])
    ]
    for arm, share in clashes:
        problems.add(arm.place, f"another arm has the name {arm_name(share)!r} too, or may get it; `arm` gives another")
    return not clashes


def _may_clash(one: Share, other: Share) -> bool:
    names_of_both = {arm_name(one), arm_name(other)}
    if f"v{UNKNOWN}" not in names_of_both or len(names_of_both) == 1:
        return len(names_of_both) == 1
    [known] = names_of_both - {f"v{UNKNOWN}"}
    of_one_model = one.version.model == other.version.model and not (one.arm or other.arm)
    return _NUMBERED.fullmatch(known) is not None and not of_one_model


def _differences(
    document: EndpointDocument, before: resources_pb2.Endpoint, shares: tuple[Share, ...]
) -> tuple[Difference, ...]:
    automatic = document.automatic or (not shares and before.automatic)
    differences = list(_arms(before, shares)) if shares else []
    if before.automatic != automatic:
        differences.insert(0, Difference("automatic", _yes(before.automatic), _yes(automatic)))
    if document.salt and document.salt != before.salt:
        differences.append(Difference("salt", before.salt, document.salt))
    if document.streams and document.streams != before.stream_policy:
        was, will = stream_policy_name(before.stream_policy), stream_policy_name(document.streams)
        differences.append(Difference("streams", was, will))
    if document.rules is not None and [*document.rules] != [*before.match_rules]:
        differences.append(Difference("match", _rules(before.match_rules), _rules(document.rules)))
    return tuple(differences)


def _rules(rules: Iterable[resources_pb2.MatchRule]) -> str:
    return ", ".join(f"{match_in_words(rule.match)} -> {rule.arm}" for rule in rules)


def _arms(before: resources_pb2.Endpoint, shares: tuple[Share, ...]) -> list[Difference]:
    old = {arm.arm: _shown(Ref(*names.parse_version(arm.version)), arm.weight_basis_points) for arm in before.arms}
    new = {arm_name(share): _shown(share.version, share.weight_basis_points) for share in shares}
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    if not changed and list(old) != list(new):
        return [Difference("order of arms", ", ".join(old), ", ".join(new))]
    return [Difference(f"arm {name}", old.get(name, ""), new.get(name, "")) for name in changed]


def _shown(version: Ref, weight_basis_points: int) -> str:
    return f"{version} {weight_basis_points / 100:g}%"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
