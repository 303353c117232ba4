"""Models as they will be after an apply, so that documents can name versions that are not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.acts import Ref
from inferway_cli.apply.contents import Content
from inferway_cli.apply.documents import ModelDocument
from inferway_cli.apply.present import Present
from inferway_cli.apply.values import LATEST, THIS, Label

Version = resources_pb2.ModelVersion


class Unknown(Exception):
    """A document names a version that neither exists nor comes from this apply; the message says so."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A model after the apply."""

    model: str
    versions: Mapping[int, Version]
    """Those that exist already."""
    content: Content | None
    this: Version | None
    """The one that has the content already."""
    aliases: Mapping[str, Label]
    """What they will stand on."""

    @property
    def publishes(self) -> bool:
        """Whether the content becomes a new version."""
        return self.content is not None and self.this is None

    @property
    def newest(self) -> Version | None:
        """Of those that exist already and may be served."""
        served = [v for v in self.versions.values() if v.state != Version.STATE_UNLOADED]
        return max(served, key=lambda version: version.version, default=None)

    def ref(self, label: Label) -> Ref:
        """The version of that number, alias, `this` or `latest`; raises Unknown."""
        if label == THIS:
            return Ref(self.model, self.this.version if self.this else None)
        if label == LATEST:
            return self._latest()
        if isinstance(label, str):
            if label not in self.aliases:
                raise Unknown(f"{self.model} has no alias {label!r}, and none comes from this apply")
            return self.ref(self.aliases[label])
        if label not in self.versions:
            raise Unknown(f"{self.model} has no version {label}, and a number cannot be chosen; {self._there()}")
        return Ref(self.model, label)

    def served(self, label: Label) -> Ref:
        """The same, for traffic; raises Unknown if the version is unloaded, too."""
        ref = self.ref(label)
        if ref.number is not None and self.versions[ref.number].state == Version.STATE_UNLOADED:
            raise Unknown(f"{ref} is unloaded; {_restore(self.model, ref.number)}")
        return ref

    def _latest(self) -> Ref:
        if self.publishes:
            return Ref(self.model, None)
        if self.newest is None:
            raise Unknown(f"{self.model} has no version, and none comes from this apply")
        return Ref(self.model, self.newest.version)

    def _there(self) -> str:
        return f"it has {', '.join(map(str, sorted(self.versions))) or 'none'}"


def outlook(
    document: ModelDocument, content: Content | None, present: Present, aliases: Mapping[str, Label]
) -> Outlook:
    """The model of a document, with the aliases that it will have; raises Unknown if its content was unloaded."""
    versions = present.versions.get(document.name, ())
    same = [version for version in versions if content is not None and content.is_in(version)]
    served = [version for version in same if version.state != Version.STATE_UNLOADED]
    if same and not served:
        number = same[0].version
        problem = f"version {number} has this content and was unloaded; {_restore(document.name, number)}"
        raise Unknown(f"path: {problem}, or let path lead to what shall be served")
    return Outlook(
        model=document.name,
        versions={version.version: version for version in versions},
        content=content,
        this=served[0] if served else None,
        aliases=aliases,
    )


def standing(model: str, present: Present) -> Outlook:
    """A model that no document describes."""
    versions = {version.version: version for version in present.versions.get(model, ())}
    aliases = present.models[model].aliases if model in present.models else ()
    return Outlook(model, versions, None, None, {label.alias: label.version for label in aliases})


def _restore(model: str, number: int) -> str:
    return f"`inferway unload {model} --version {number} --restore` brings it back"
