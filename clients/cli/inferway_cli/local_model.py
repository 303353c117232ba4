"""What lies at a path to be pushed: which runtime's model, and which file goes where in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferway.registry.v1 import resources_pb2
from inferway_cli.console import CommandError
from inferway_cli.version_config import FILE_NAME


@dataclass(frozen=True, slots=True)
class Kind:
    """How to recognise the models of one runtime."""

    runtime: resources_pb2.Runtime.ValueType
    title: str
    main: str
    """The main file's name in a version."""
    suffix: str = ""
    """What ends the main file's name outside a version, where it may have any; empty if it has its one name there."""

    def may_begin_with(self, file: Path) -> bool:
        """Whether the file can be the main one."""
        return file.suffix == self.suffix if self.suffix else file.name == self.main


KINDS: dict[str, Kind] = {
    "tensorflow": Kind(resources_pb2.RUNTIME_TENSORFLOW, "SavedModel", "saved_model.pb"),
    "onnx": Kind(resources_pb2.RUNTIME_ONNX, "ONNX model", "model.onnx", ".onnx"),
    "litert": Kind(resources_pb2.RUNTIME_LITERT, "LiteRT model", "model.tflite", ".tflite"),
}
"""By the name of the runtime."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine."""

    kind: Kind
    files: Mapping[str, Path]
    """Where each file of the version is, by its path there."""
    manifest: resources_pb2.Manifest
    """The files in the order of their paths."""

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(artifact.size_bytes for artifact in self.manifest.artifacts)


def read_model(path: Path, runtime: str = "") -> LocalModel:
    """Recognises the model and hashes its files; `runtime` decides where the path leaves a choice.

    Raises CommandError if there is no model or more than one, or a link among its files.
    """
    kind, main = _recognise(path, runtime)
    found = _files_below(path) if path.is_dir() else [path]
    links = [file for file in found if file.is_symlink()]
    if links:
        raise CommandError(f"{links[0]} is a symbolic link; push a directory with the files themselves")
    files = {kind.main if file == main else file.relative_to(path).as_posix(): file for file in found}
    artifacts = [_artifact(name, file) for name, file in sorted(files.items())]
    return LocalModel(kind, files, resources_pb2.Manifest(artifacts=artifacts))


def _recognise(path: Path, runtime: str) -> tuple[Kind, Path]:
    """The kind, and the main file."""
    if path.is_file() and runtime in ("onnx", "litert"):
        return KINDS[runtime], path
    nearby = sorted(path.iterdir()) if path.is_dir() else [path]
    kinds = [KINDS[runtime]] if runtime else [*KINDS.values()]
    found = [(kind, file) for kind in kinds for file in nearby if kind.may_begin_with(file) and file.is_file()]
    if path.is_file():  # one file of a SavedModel is not the whole
        found = [(kind, file) for kind, file in found if kind is not KINDS["tensorflow"]]
    if not found:
        raise CommandError(
            f"{path} is no {KINDS[runtime].title if runtime else 'model'}: push a SavedModel directory, which "
            "`model.export(path)` makes, an .onnx or .tflite file, or a directory with one"
        )
    if len(found) > 1:
        several = ", ".join(file.name for _, file in found)
        raise CommandError(f"{path} has {several}; push one of these files, or say which with --runtime")
    return found[0]


def _files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir() and path != directory / FILE_NAME]


def _artifact(name: str, file: Path) -> resources_pb2.Artifact:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return resources_pb2.Artifact(path=name, size_bytes=file.stat().st_size, sha256=digest)
