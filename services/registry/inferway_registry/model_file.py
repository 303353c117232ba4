"""Reads what a version can be asked from its main file, whatever its runtime."""

from __future__ import annotations

from inferway_registry import litert_model, onnx_model, savedmodel
from inferway_registry.resources import Manifest, Runtime, Signature


def read_signatures(runtime: Runtime, content: bytes, manifest: Manifest) -> tuple[Signature, ...]:
    """The signatures in the main file's `content`; raises CorruptArtifact, InvalidPath and NotSupported."""
    if runtime is Runtime.ONNX:
        return onnx_model.read_signatures(content, [artifact.path for artifact in manifest.artifacts])
    if runtime is Runtime.LITERT:
        return litert_model.read_signatures(content)
    return savedmodel.read_signatures(content)
