"""Which files a version may consist of: the one place that judges a publisher's manifest.

A path names a file in answers and in a worker's directory; the registry itself stores content by digest and never
joins a client's path to anything.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from inferway.errors import InvalidField, InvalidPath, UploadTooLarge
from inferway_registry.resources import Artifact, Manifest, Runtime
from inferway_registry.wording import shown

MAX_PATH_BYTES = 255
SAVED_MODEL = "saved_model.pb"
ONNX_MODEL = "model.onnx"
LITERT_MODEL = "model.tflite"
EXTRA_ASSETS = "assets.extra/"
"""Below it a version of any runtime may bring requests to warm up with and answers to be checked by."""
EMPTY_SHA256 = hashlib.sha256().hexdigest()
_COMPONENT = re.compile(r"[A-Za-z0-9._-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a version of one runtime."""

    main: str
    """The file that says what the version can be asked."""
    permitted: re.Pattern[str]
    title: str
    advice: str
    """What belongs to it, for a publisher who sent something else."""


LAYOUTS = {
    Runtime.TENSORFLOW: Layout(
        SAVED_MODEL,
        re.compile(r"saved_model\.pb|fingerprint\.pb|(variables|assets|assets\.extra)/.+"),
        "SavedModel",
        "which has saved_model.pb, fingerprint.pb, variables/, assets/ and assets.extra/; leave it out, and export "
        "Keras models with model.export()",
    ),
    Runtime.ONNX: Layout(
        ONNX_MODEL,
        re.compile(r"model\.onnx|.+(?<!\.onnx)"),
        "ONNX model",
        "which has model.onnx, the files of its external data and assets.extra/",
    ),
    Runtime.LITERT: Layout(
        LITERT_MODEL,
        re.compile(r"model\.tflite|assets\.extra/.+"),
        "LiteRT model",
        "which has model.tflite and assets.extra/",
    ),
}
"""Whether ONNX names the files of its external data is seen when its main file is read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one upload may be."""

    max_files: int = 10_000
    max_file_bytes: int = 20 << 30
    max_total_bytes: int = 40 << 30
    max_graph_bytes: int = 512 << 20
    """For the main file, which the registry reads into memory."""


def check(artifacts: Iterable[Artifact], digest: str, runtime: Runtime, limits: Limits) -> Manifest:
    """Returns the manifest in path order, with its digest; `digest` may be empty, else it must be right.

    Raises InvalidPath, InvalidField or UploadTooLarge, naming the entry at fault.
    """
    layout = LAYOUTS[runtime]
    files = list(artifacts)
    if len(files) > limits.max_files:
        raise UploadTooLarge(
            f"{len(files)} files; at most {limits.max_files} are permitted", path="", limit=limits.max_files
        )
    for index, artifact in enumerate(files):
        _check_artifact(artifact, f"manifest.artifacts[{index}]", layout, limits)
    _check_together(files, layout, limits)
    manifest = _ordered(files)
    if digest not in ("", manifest.digest):
        raise InvalidField.at("manifest.digest", f"differs from the artifacts', which is {manifest.digest}")
    return manifest


def check_path(path: str, field: str, layout: Layout) -> None:
    """Raises InvalidPath unless `path` is a plain relative path that a version of that layout may have."""
    problem = _form_problem(path)
    if problem is None and not layout.permitted.fullmatch(path):
        problem = f"not part of {_article(layout.title)}, {layout.advice}"
    if problem is not None:
        raise InvalidPath.at(field, f"{shown(path)!r}: {problem}", path=shown(path))


def _article(title: str) -> str:
    return f"{'an' if title[0] in 'AEIOU' else 'a'} {title}"


def _form_problem(path: str) -> str | None:
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} bytes"
    if not unicodedata.is_normalized("NFC", path):
        return "not in Unicode's NFC form; use plain ASCII names"
    if path.startswith("/"):
        return "absolute; give it relative to the model's directory"
    components = path.split("/")
    if "." in components or ".." in components:
        return "components '.' and '..' are not permitted"
    if not all(_COMPONENT.fullmatch(component) for component in components):
        return "each component must be one or more of A-Z a-z 0-9 '.' '_' '-'"
    return None


def _check_artifact(artifact: Artifact, field: str, layout: Layout, limits: Limits) -> None:
    check_path(artifact.path, f"{field}.path", layout)
    if not _SHA256.fullmatch(artifact.sha256):
        raise InvalidField.at(f"{field}.sha256", "expected 64 lower-case hexadecimal digits")
    if artifact.size_bytes < 0:
        raise InvalidField.at(f"{field}.size_bytes", "expected 0 or more")
    if artifact.size_bytes == 0 and artifact.sha256 != EMPTY_SHA256:
        raise InvalidField.at(f"{field}.sha256", f"an empty file has the digest {EMPTY_SHA256}")
    limit = limits.max_graph_bytes if artifact.path == layout.main else limits.max_file_bytes
    if artifact.size_bytes > limit:
        raise UploadTooLarge(
            f"{artifact.path} has {artifact.size_bytes} bytes; at most {limit} are permitted",
            path=artifact.path,
            limit=limit,
        )


def _check_together(files: list[Artifact], layout: Layout, limits: Limits) -> None:
    seen: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for index, artifact in enumerate(files):
        folded = artifact.path.casefold()
        if folded in seen:
            raise InvalidPath.at(
                f"manifest.artifacts[{index}].path",
                f"{artifact.path!r} is there already as {seen[folded]!r}; names may not differ by case alone",
                path=artifact.path,
            )
        seen[folded] = artifact.path
        if sizes.setdefault(artifact.sha256, artifact.size_bytes) != artifact.size_bytes:
            raise InvalidField.at(
                f"manifest.artifacts[{index}].size_bytes", "another file has the same digest but another size"
            )
    _check_no_file_is_a_directory(files)
    if layout.main not in seen:
        raise InvalidField.at("manifest.artifacts", f"{layout.main} is missing: this is no {layout.title}")
    total = sum(artifact.size_bytes for artifact in files)
    if total > limits.max_total_bytes:
        raise UploadTooLarge(
            f"{total} bytes in all; at most {limits.max_total_bytes} are permitted",
            path="",
            limit=limits.max_total_bytes,
        )


def _check_no_file_is_a_directory(files: list[Artifact]) -> None:
    paths = {artifact.path.casefold() for artifact in files}
    for index, artifact in enumerate(files):
        components = artifact.path.casefold().split("/")
        if any("/".join(components[:depth]) in paths for depth in range(1, len(components))):
            raise InvalidPath.at(
                f"manifest.artifacts[{index}].path",
                f"{artifact.path!r} lies below another file",
                path=artifact.path,
            )


def _ordered(files: list[Artifact]) -> Manifest:
    ordered = tuple(sorted(files, key=lambda artifact: artifact.path))
    lines = "".join(f"{artifact.sha256}  {artifact.path}\n" for artifact in ordered)
    return Manifest(ordered, hashlib.sha256(lines.encode()).hexdigest())
