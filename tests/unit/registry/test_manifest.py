"""The judge of manifests."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferway.errors import InvalidField, InvalidPath
from inferway_registry import manifest
from inferway_registry.manifest import LAYOUTS, Limits
from inferway_registry.resources import Artifact, Runtime
from tests.unit.registry.graphs import artifacts, model_files, sha256


@pytest.mark.parametrize(
    "path",
    [
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/vocabulary.txt",
        "assets.extra/tf_serving_warmup_requests",
        "assets/deep/er/still",
    ],
)
def test_what_tensorflow_and_keras_write_is_permitted(path: str):
    """Refusing a real export would send users away."""
    manifest.check_path(path, "path", LAYOUTS[Runtime.TENSORFLOW])


@pytest.mark.parametrize(
    ("runtime", "permitted", "refused"),
    [
        (Runtime.ONNX, ["model.onnx", "model.onnx.data", "weights/w0", "assets.extra/golden.npz"], ["other.onnx"]),
        (Runtime.LITERT, ["model.tflite", "assets.extra/golden.npz"], ["saved_model.pb", "weights", "a/model.tflite"]),
        (Runtime.TENSORFLOW, ["saved_model.pb"], ["model.onnx", "model.tflite", "keras_metadata.pb"]),
    ],
)
def test_each_runtime_has_its_own_files(runtime: Runtime, permitted: list[str], refused: list[str]):
    """What is no part of a model has no business on a worker."""
    for path in permitted:
        manifest.check_path(path, "path", LAYOUTS[runtime])
    for path in refused:
        with pytest.raises(InvalidPath, match=f"not part of an? .*{LAYOUTS[runtime].main}"):
            manifest.check_path(path, "path", LAYOUTS[runtime])
    with pytest.raises(InvalidField, match=f"{LAYOUTS[runtime].main} is missing"):
        manifest.check(artifacts({"assets.extra/golden.npz": b"x"}), "", runtime, Limits())


@given(st.text(max_size=60) | st.from_regex(r"(assets|variables)/[A-Za-z0-9._/\\-]{1,20}", fullmatch=True))
@example("assets/..")
@example("assets/a/../../b")
@example("assets/a\n")
@example("saved_model.pb\n")
@example("a/../../b")
@example("weights\\0")
def test_a_permitted_path_stays_inside_the_model_on_every_system(path: str):
    """The law behind all the hostile examples."""
    for layout in LAYOUTS.values():
        with contextlib.suppress(InvalidPath):
            manifest.check_path(path, "path", layout)

            components = path.split("/")
            assert all(component not in ("", ".", "..") for component in components)
            assert path.isascii()
            assert not set(path) & set('\\:*?"<>|\x00\n ')
            assert len(path.encode()) <= 255


def test_the_digest_does_not_depend_on_the_order_of_files():
    """Two people who push the same directory get the same digest."""
    files = artifacts(model_files())

    one = manifest.check(files, "", Runtime.TENSORFLOW, Limits())
    other = manifest.check(files[::-1], one.digest, Runtime.TENSORFLOW, Limits())

    assert one == other


def test_a_file_cannot_also_be_a_directory():
    """No worker could store both."""
    files = artifacts({**model_files(), "assets/a": b"1", "assets/a/b": b"2"})

    with pytest.raises(InvalidPath):
        manifest.check(files, "", Runtime.TENSORFLOW, Limits())


def test_one_digest_has_one_size():
    """Content is stored by digest: two sizes would make one of them unreachable."""
    twin = Artifact("assets/twin", 3, sha256(b"weights"))

    with pytest.raises(InvalidField):
        manifest.check([*artifacts(model_files()), twin], "", Runtime.TENSORFLOW, Limits())
