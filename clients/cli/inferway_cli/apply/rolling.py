"""Rollouts: which of those that documents ask for are to begin, and which have begun already. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from inferway import names
from inferway.registry.v1 import rollouts_pb2
from inferway_cli.apply.acts import Begin, Difference, Ref
from inferway_cli.apply.documents import EndpointDocument
from inferway_cli.apply.nodes import Problems
from inferway_cli.apply.outlook import Outlook, Unknown
from inferway_cli.apply.present import Present
from inferway_cli.apply.rollout_documents import RolloutDocument
from inferway_cli.rollouts.named import is_over, shown, state_name
from inferway_cli.rollouts.spec import Spec, in_words, with_defaults

Rollout = rollouts_pb2.Rollout


def begun_from(
    document: EndpointDocument, rollouts: Mapping[str, RolloutDocument], present: Present
) -> EndpointDocument:
    """The endpoint's document, without arms, salt and rules where a rollout of the documents moves its traffic.

    Beside a rollout they say where traffic begins: they hold for an endpoint that is new or automatic. What rollouts
    have moved since must not be moved back by the file that asked for them.
    """
    seen = present.endpoints.get(document.name)
    if document.name in rollouts and seen is not None and not seen.automatic:
        return replace(document, arms=(), salt="", rules=None)
    return document


def begin(
    document: RolloutDocument,
    model: Outlook,
    endpoint: EndpointDocument | None,
    present: Present,
    problems: Problems,
) -> Begin | None:
    """The act; None if nothing is to do, or if something is wrong, which is noted. `endpoint` is its document."""
    assert document.to is not None
    try:
        version = model.served(document.to)
    except Unknown as unknown:
        problems.add(document.to_place or document.place, str(unknown))
        return None
    spec = _spec(document, version)
    newest = present.rollouts.get(document.name)
    if _has_all_traffic(document, version, present) or (newest is not None and _is_settled(newest, spec)):
        return None
    for problem in _against(document, model, endpoint, present):
        problems.add(document.place, problem)
    if newest is not None and spec == with_defaults(newest.spec):
        problems.add(document.place, _ended_badly(newest))
    return Begin(document.name, version, spec, document.supersede, _differences(newest, spec, version))


def _spec(document: RolloutDocument, version: Ref) -> Spec:
    """With everything said; without a candidate, if that is yet to be published."""
    spec = with_defaults(document.spec)
    spec.candidate_version = names.version_name(version.model, version.number) if version.number else ""
    return spec


def _has_all_traffic(document: RolloutDocument, version: Ref, present: Present) -> bool:
    seen = present.endpoints.get(document.name)
    if seen is None or version.number is None or [arm.weight_basis_points for arm in seen.arms] != [10_000]:
        return False
    return seen.arms[0].version == names.version_name(version.model, version.number)


def _is_settled(newest: Rollout, spec: Spec) -> bool:
    """Whether it does, or has done, what is asked for."""
    good = not is_over(newest) or newest.state == Rollout.STATE_SUCCEEDED
    return good and with_defaults(newest.spec) == spec


def _against(
    document: RolloutDocument, model: Outlook, endpoint: EndpointDocument | None, present: Present
) -> list[str]:
    """Why it cannot begin."""
    seen, newest = present.endpoints.get(document.name), present.rollouts.get(document.name)
    has_arms = endpoint is not None and bool(endpoint.arms)
    found = []
    if seen is None and not has_arms:
        found.append(f"there is no endpoint {document.name!r} whose users could get another version")
    if endpoint is not None and endpoint.automatic:
        found.append(f"endpoint {document.name} cannot be automatic and get its versions by rollouts; give it arms")
    elif seen is not None and seen.automatic and model.publishes and not has_arms:
        found.append(
            f"endpoint {document.name} is automatic, so the version would have all traffic as soon as it is published; "
            f"`inferway endpoint {document.name} --manual` first"
        )
    if newest is not None and not is_over(newest) and not document.supersede:
        found.append(
            f"rollout {shown(newest)} is {state_name(newest.state)}; `inferway rollout abort {document.name}` ends it, "
            "and `supersede: true` takes its place"
        )
    return found


def _ended_badly(newest: Rollout) -> str:
    endpoint = shown(newest).partition("/")[0]
    return (
        f"rollout {shown(newest)} was asked for this and is {state_name(newest.state)}: {newest.reason}; "
        f"`inferway rollout retry {endpoint}` tries it again"
    )


def _differences(newest: Rollout | None, spec: Spec, version: Ref) -> tuple[Difference, ...]:
    """From the rollout before to this one."""
    before = in_words(newest.spec) if newest is not None else {}
    after = {"to": str(version), **in_words(spec)}
    keys = [key for key in after | before if before.get(key) != after.get(key)]
    return tuple(Difference(key, before.get(key, ""), after.get(key, "")) for key in keys)
