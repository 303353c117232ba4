"""What lies at a document's path, and which published version has the same content and config already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.documents import ModelDocument
from inferway_cli.apply.nodes import Problems
from inferway_cli.console import CommandError
from inferway_cli.local_model import LocalModel, read_model
from inferway_cli.version_config import find_config, read_config

DEFAULT_SIGNATURE = "serving_default"
Version = resources_pb2.ModelVersion


@dataclass(frozen=True, slots=True)
class Content:
    """What a version is made of."""

    path: Path
    local: LocalModel
    config: resources_pb2.VersionConfig

    def is_in(self, version: Version) -> bool:
        """Whether the version has the same files and was published with the same choices."""
        return self.has_files_of(version) and _same_choices(self.config, version)

    def has_files_of(self, version: Version) -> bool:
        """Whether the version has the same files, whatever was chosen."""
        own, theirs = self.local.manifest.artifacts, version.manifest.artifacts
        return self.local.kind.runtime == version.runtime and _digests(own) == _digests(theirs)


def read_contents(documents: Iterable[ModelDocument], problems: Problems) -> dict[str, Content]:
    """What the documents' paths hold, by model. Reads every file; what is no model, or a bad config, is a problem."""
    found: dict[str, Content] = {}
    for document in documents:
        if document.path is None:
            continue
        try:
            found[document.name] = _read(document.path, document.runtime)
        except (CommandError, OSError) as error:
            problems.add(document.places["path"], f"path: {error}")
    return found


def _read(path: Path, runtime: str) -> Content:
    if not path.exists():
        raise CommandError(f"there is no {path}")
    config = find_config(path)
    choices = read_config(config) if config else resources_pb2.VersionConfig()
    return Content(path, read_model(path, runtime), choices)


def _digests(artifacts: Iterable[resources_pb2.Artifact]) -> dict[str, str]:
    """What the manifest's own digest is made of."""
    return {artifact.path: artifact.sha256 for artifact in artifacts}


def _same_choices(config: resources_pb2.VersionConfig, version: Version) -> bool:
    """What is unset is equal to what it stands for; the registry has filled in what bindings of state left out."""
    published = version.config
    if len(config.state) != len(published.state):
        return False
    bindings = zip(config.state, published.state, strict=True)
    return _plain(config) == _plain(published) and all(_is_bound(own, theirs, version) for own, theirs in bindings)


def _plain(config: resources_pb2.VersionConfig) -> resources_pb2.VersionConfig:
    """Without state, and with what unset choices stand for."""
    plain = resources_pb2.VersionConfig()
    plain.CopyFrom(config)
    plain.ClearField("state")
    plain.idempotent = config.idempotent if config.HasField("idempotent") else True
    plain.isolation = config.isolation or resources_pb2.ISOLATION_PROCESS
    return plain


def _is_bound(own: resources_pb2.StateBinding, published: resources_pb2.StateBinding, version: Version) -> bool:
    filled = resources_pb2.StateBinding()
    filled.CopyFrom(own)
    filled.signature = own.signature or _default_signature(version)
    if not own.shape:
        filled.shape[:] = published.shape
    return filled == published


def _default_signature(version: Version) -> str:
    """What an empty name stands for, by the registry's rule."""
    return version.signatures[0].name if len(version.signatures) == 1 else DEFAULT_SIGNATURE
