"""What would have to change for the registry to be as the documents say. Checks everything first, and does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.acts import (
    Act,
    Begin,
    Difference,
    DropAlias,
    Keep,
    Plan,
    Publish,
    PutAlias,
    Ref,
    Route,
    Tune,
)
from inferway_cli.apply.contents import Content
from inferway_cli.apply.documents import Document, EndpointDocument, ModelDocument
from inferway_cli.apply.nodes import Place, Problems
from inferway_cli.apply.outlook import Outlook, Unknown, outlook, standing
from inferway_cli.apply.present import Present
from inferway_cli.apply.rolling import begin, begun_from
from inferway_cli.apply.rollout_documents import RolloutDocument
from inferway_cli.apply.routes import route
from inferway_cli.apply.values import THIS, Label
from inferway_cli.serving_words import policy_in_words, size
from inferway_cli.tuning import BOUNDS, Options

ORDER: tuple[type, ...] = (Publish, Tune, Keep, PutAlias)
"""Routes and rollouts come after these, and what is taken away last: traffic moves to what is there, then off."""


def make_plan(documents: Sequence[Document], contents: Mapping[str, Content], present: Present, *, prune: bool) -> Plan:
    """The acts, in their order; `contents` are what the models' paths hold. Raises Invalid with all that is wrong.

    With `prune`, aliases of described models that their documents leave out are taken away.
    """
    problems = Problems()
    models = [document for document in documents if isinstance(document, ModelDocument)]
    rollouts = {document.name: document for document in documents if isinstance(document, RolloutDocument)}
    described = {document.name: document for document in documents if isinstance(document, EndpointDocument)}
    endpoints = [begun_from(document, rollouts, present) for document in described.values()]
    planned = [_Model(model, contents.get(model.name), present, problems, prune=prune) for model in models]
    changes = [act for model in planned for act in model.acts()]
    outlooks = {model.outlook.model: model.outlook for model in planned}
    for model in _models(endpoints, rollouts.values(), present) - outlooks.keys():
        outlooks[model] = standing(model, present)
    routes = [route(endpoint, outlooks, present, problems) for endpoint in endpoints]
    begins = [
        begin(rollout, outlooks[present.model_of(rollout)], described.get(rollout.name), present, problems)
        for rollout in rollouts.values()
    ]
    problems.raise_if_any()
    acts = _ordered(changes, [*routes, *begins])
    return Plan(
        resources=(
            *(f"model {model.name}" for model in models),
            *(f"endpoint {endpoint.name}" for endpoint in endpoints),
            *(f"rollout of {rollout}" for rollout in rollouts),
        ),
        created=frozenset(_created(acts, present)),
        acts=acts,
        named=tuple(dict.fromkeys([*_aliased(models, outlooks), *_routed(endpoints, outlooks)])),
        contents=tuple(outlooks[model.name].ref(THIS) for model in models if model.path is not None),
    )


def _ordered(changes: Sequence[Act], moves: Sequence[Act | None]) -> tuple[Act, ...]:
    return (
        *sorted((act for act in changes if type(act) in ORDER), key=lambda act: ORDER.index(type(act))),
        *(act for act in moves if act is not None),
        *(act for act in changes if isinstance(act, DropAlias)),
    )


def _created(acts: Iterable[Act], present: Present) -> Iterator[str]:
    """What is not there yet."""
    for act in acts:
        new_model = isinstance(act, Publish) and act.model not in present.models
        if new_model or isinstance(act, Begin) or (isinstance(act, Route) and act.seen is None):
            yield act.resource


def _models(endpoints: Iterable[EndpointDocument], rollouts: Iterable[RolloutDocument], present: Present) -> set[str]:
    """Those that traffic is to go to."""
    arms = {arm.model for endpoint in endpoints for arm in endpoint.arms}
    return arms | {present.model_of(rollout) for rollout in rollouts}


def _aliased(models: Sequence[ModelDocument], outlooks: Mapping[str, Outlook]) -> Iterator[Ref]:
    return (outlooks[model.name].ref(alias) for model in models for alias in model.aliases)


def _routed(endpoints: Sequence[EndpointDocument], outlooks: Mapping[str, Outlook]) -> Iterator[Ref]:
    return (outlooks[arm.model].ref(arm.version) for endpoint in endpoints for arm in endpoint.arms)


class _Model:
    """The acts of one model."""

    def __init__(
        self, document: ModelDocument, content: Content | None, present: Present, problems: Problems, *, prune: bool
    ) -> None:
        self._document = document
        self._present = present
        self._problems = problems
        self._there = {label.alias: label.version for label in self._stored.aliases}
        self._dropped = [alias for alias in self._there if prune and alias not in document.aliases]
        kept = {alias: number for alias, number in self._there.items() if alias not in self._dropped}
        self.outlook = self._outlook(content, {**kept, **document.aliases})

    @property
    def _stored(self) -> resources_pb2.Model:
        return self._present.models.get(self._document.name, resources_pb2.Model())

    def acts(self) -> Iterator[Act]:
        """Those that change something."""
        name = self._document.name
        if name not in self._present.models and self.outlook.content is None:
            self._problems.add(self._document.place, f"there is no model {name!r} yet, so it needs a path")
            return
        if self.outlook.publishes:
            yield self._publish()
        yield from self._tune()
        yield from self._keep()
        yield from self._put_aliases()
        for alias in self._dropped:
            yield DropAlias(name, alias, (Difference(f"alias {alias}", f"version {self._there[alias]}", ""),))

    def _outlook(self, content: Content | None, aliases: Mapping[str, Label]) -> Outlook:
        try:
            return outlook(self._document, content, self._present, aliases)
        except Unknown as unknown:
            self._problems.add(self._document.places["path"], str(unknown))
            return standing(self._document.name, self._present)

    def _publish(self) -> Publish:
        content = self.outlook.content
        assert content is not None
        kind, size_bytes = content.local.kind.title, content.local.total_bytes
        newest = self.outlook.newest
        why = ""
        if newest is not None:
            changed = "config" if content.has_files_of(newest) else "content"
            why = f"; its {changed} differs from version {newest.version}'s"
        after = f"new, {kind} from {content.path} ({size(size_bytes)}){why}"
        return Publish(self._document.name, content, (Difference("version", "", after),))

    def _tune(self) -> Iterator[Tune]:
        for label, wanted in self._document.serving.items():
            place = self._document.places[f"serving.{label}"]
            ref = self._ref(label, place)
            if ref is None:
                continue
            self._check_rows(ref, wanted, place)
            before = self.outlook.versions[ref.number].serving_options if ref.number else Options()
            differences = _bounds(before, wanted, "new version" if ref.number is None else f"version {ref.number}")
            if differences:
                yield Tune(ref, wanted, differences)

    def _check_rows(self, ref: Ref, wanted: Options, place: Place) -> None:
        """The registry refuses what a publisher did not permit, and would do so after other acts."""
        if ref.number is None:
            assert self.outlook.content is not None
            published = self.outlook.content.config.max_batch_rows
        else:
            published = self.outlook.versions[ref.number].config.max_batch_rows
        if 0 < published < wanted.max_batch_rows:
            self._problems.add(place, f"max_batch_rows: the version is published with at most {published}")
        most = wanted.max_batch_rows or published
        if 0 < most < max(wanted.buckets, default=0):
            self._problems.add(place, f"buckets: a batch has at most {most} rows")

    def _keep(self) -> Iterator[Keep]:
        wanted = self._document.version_policy
        if wanted is None:
            return
        for number in wanted.specific.versions:
            self._ref(number, self._document.places["version_policy"])
        before = self._stored.version_policy
        if before != wanted:
            difference = Difference("workers keep", policy_in_words(before), policy_in_words(wanted))
            yield Keep(self._document.name, wanted, (difference,))

    def _put_aliases(self) -> Iterator[PutAlias]:
        for alias, label in self._document.aliases.items():
            ref = self._ref(label, self._document.places[f"aliases.{alias}"])
            if ref is not None and (alias not in self._there or self._there[alias] != ref.number):
                stands = f"version {self._there[alias]}" if alias in self._there else ""
                after = "the new version" if ref.number is None else f"version {ref.number}"
                yield PutAlias(alias, ref, (Difference(f"alias {alias}", stands, after),))

    def _ref(self, label: Label, place: Place) -> Ref | None:
        try:
            return self.outlook.ref(label)
        except Unknown as unknown:
            self._problems.add(place, str(unknown))
            return None


def _bounds(before: Options, after: Options, version: str) -> tuple[Difference, ...]:
    typed = ((bound.field, bound.typed(before), bound.typed(after)) for bound in BOUNDS)
    return tuple(Difference(f"{version} {name}", was, will) for name, was, will in typed if was != will)
