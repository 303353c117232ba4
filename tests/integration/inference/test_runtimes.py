"""What every runtime must do, asked of each in this process: TensorFlow, ONNX Runtime, LiteRT and the fake one."""

from __future__ import annotations

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, InvalidField, ModelFailed, VersionLoadFailed
from inferway_inference.runner.arrays import NUMPY_TYPES
from inferway_inference.runtimes import open_runtime
from inferway_inference.runtimes.base import Placement, Runtime
from inferway_inference.runtimes.fake import FILE
from inferway_inference.signatures import Signature
from inferway_registry.model_file import read_signatures
from inferway_registry.resources import Manifest
from inferway_registry.resources import Runtime as RegistryRuntime
from tests.integration.inference import onnx_fixtures
from tests.testbed.onnx_models import perceptron

MODEL_FILES = {"fake": FILE, "tensorflow": "saved_model.pb", "onnx": "model.onnx", "litert": "model.tflite"}
NAME = "serving_default"


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory, saved_models: Path) -> Path:
    """By hand, with the weights of the SavedModels of the same name."""
    directory = tmp_path_factory.mktemp("onnx")
    with np.load(saved_models / "tiny.npz") as weights:
        onnx_fixtures.write(directory, dict(weights))
    return directory


@pytest.fixture(scope="session")
def litert_models(tensorflow_models: Path) -> Path:
    """Converted SavedModels."""
    return tensorflow_models / "litert"


TENSORFLOW = pytest.param("tensorflow", marks=pytest.mark.tensorflow)
LITERT = pytest.param("litert", marks=pytest.mark.tensorflow)  # its converter is TensorFlow's


@pytest.fixture(params=["fake", "onnx", LITERT, TENSORFLOW])
def kind(request: pytest.FixtureRequest) -> str:
    """Name of a runtime."""
    return str(request.param)


@pytest.fixture
def models(request: pytest.FixtureRequest, kind: str) -> Path:
    """The folder of its models."""
    folder: Path = request.getfixturevalue(f"{kind}_models")
    return folder


@pytest.fixture
def runtime(kind: str) -> Any:
    """A runtime without a version."""
    opened = open_runtime(kind)
    yield opened
    opened.close()


def load(runtime: Runtime, folder: Path, threads: int = 1) -> Signature:
    """The model's one signature."""
    [signature] = runtime.load(folder, threads)
    return signature


def call(runtime: Runtime, inputs: dict[str, NDArray[Any]], *outputs: str) -> dict[str, NDArray[Any]]:
    """Outputs, after the inputs have been made read-only, as a runner's are."""
    for values in inputs.values():
        values.flags.writeable = False
    return dict(runtime.call(NAME, inputs, list(outputs or ("y",))))


def elements(datatype: Datatype, rows: int) -> NDArray[Any]:
    """[rows, 2], with the extremes of the datatype in the first row."""
    if datatype is Datatype.BYTES:
        return np.array([[b"", "naïve\x00text".encode()], *([b"a", b"bc" * 40],) * (rows - 1)], object)
    values = np.random.default_rng(rows).integers(0, 2, (rows, 2)).astype(NUMPY_TYPES[datatype])
    if datatype in (Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16):
        values[0] = (np.nan, -np.inf)
    elif datatype is not Datatype.BOOL:
        values[0] = (np.iinfo(values.dtype).min, np.iinfo(values.dtype).max)
    return values


def test_signatures_are_what_the_model_says(runtime: Runtime, models: Path):
    """Names, datatypes and shapes decide what is batched and what is refused."""
    signature = load(runtime, models / "affine")

    assert (signature.name, signature.batchable) == (NAME, True)
    assert [(spec.name, spec.datatype, spec.shape) for spec in (*signature.inputs, *signature.outputs)] == [
        ("x", Datatype.FP32, (-1, 4)),
        ("y", Datatype.FP32, (-1, 4)),
    ]


@pytest.mark.parametrize("kind", ["onnx", LITERT, TENSORFLOW], indirect=True)
@pytest.mark.parametrize("model", ["affine", "total", "identity", "text", "tiny"])
def test_the_registry_reads_the_same_signatures_without_the_framework(
    runtime: Runtime, kind: str, models: Path, model: str
):
    """A difference would show as a version that is published and then loads nowhere."""
    [read] = read_signatures(
        RegistryRuntime[kind.upper()], (models / model / MODEL_FILES[kind]).read_bytes(), Manifest((), "")
    )
    own = load(runtime, models / model)

    for sides in ((read.inputs, own.inputs), (read.outputs, own.outputs)):
        registered, loaded = ([(spec.name, spec.datatype, spec.shape) for spec in side] for side in sides)
        assert registered == loaded


def test_a_signature_without_rows_is_seen(runtime: Runtime, models: Path):
    """It must not be batched."""
    signature = load(runtime, models / "total")
    answer = call(runtime, {"x": np.arange(4, dtype="f4").reshape(1, 4)})["y"]

    assert not signature.batchable
    assert (answer.shape, float(answer)) == ((), 6.0)


def test_every_datatype_comes_through_bit_by_bit(runtime: Runtime, models: Path):
    """A model that does nothing must do nothing, to infinities and NaN too."""
    signature = load(runtime, models / "identity")
    assert {spec.datatype for spec in signature.inputs} >= set(Datatype) - {Datatype.BYTES}
    for rows in (1, 3, 2000, 1):
        inputs = {spec.name: elements(spec.datatype, rows) for spec in signature.inputs}
        answers = call(runtime, inputs, *(f"y_{name}" for name in inputs))
        for name, values in inputs.items():
            got = answers[f"y_{name}"]
            assert (got.dtype, got.shape) == (values.dtype, values.shape)
            assert got.tolist() == values.tolist() if got.dtype == object else got.tobytes() == values.tobytes()


def test_strings_come_through(runtime: Runtime, models: Path):
    """Empty ones, long ones, and text beyond ASCII with a zero byte."""
    load(runtime, models / "text")
    for rows in (1, 3, 200, 1):
        words = elements(Datatype.BYTES, rows)
        assert call(runtime, {"bytes": words}, "y_bytes")["y_bytes"].tolist() == words.tolist()


@pytest.mark.parametrize("kind", ["fake", LITERT, TENSORFLOW], indirect=True)
def test_bytes_need_not_be_text(runtime: Runtime, models: Path):
    """Pictures travel as BYTES too."""
    load(runtime, models / "text")
    pictures = np.array([[b"\xff\xfe\x00", b"\x89PNG"]], object)

    assert call(runtime, {"bytes": pictures}, "y_bytes")["y_bytes"].tolist() == pictures.tolist()


def test_only_the_wanted_outputs_are_needed(runtime: Runtime, models: Path):
    """An embedding nobody asked for can be larger than everything else."""
    signature = load(runtime, models / "identity")
    inputs = {spec.name: elements(spec.datatype, 2) for spec in signature.inputs}
    answers = call(runtime, inputs, "y_int8", "y_bf16")

    assert answers["y_int8"].tobytes() == inputs["int8"].tobytes()
    assert answers["y_bf16"].tobytes() == inputs["bf16"].tobytes()


@pytest.mark.parametrize("kind", ["onnx", LITERT, TENSORFLOW], indirect=True)
@pytest.mark.parametrize("threads", [0, 1])
def test_answers_equal_numpy_s(runtime: Runtime, models: Path, saved_models: Path, threads: int):
    """The same weights give the same numbers, whoever computes and with however many threads."""
    load(runtime, models / "tiny", threads)
    with np.load(saved_models / "tiny.npz") as weights:
        for rows in (1, 7, 64):
            x = np.random.default_rng(rows).normal(size=(rows, 32)).astype("f4")
            expected = np.maximum(x @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"]
            assert np.allclose(call(runtime, {"x": x})["y"], expected, atol=1e-5)


def test_a_refused_input_fails_that_call_alone(runtime: Runtime, models: Path):
    """The next caller did nothing wrong."""
    load(runtime, models / "affine")
    for _ in range(3):
        with pytest.raises(ModelFailed) as caught:
            call(runtime, {"x": np.full((2, 4), 666, "f4")})
        assert caught.value.metadata["cause"] in caught.value.message
        assert not re.search(r"(^|\s)/|\.(cc|py|h)\b", caught.value.message), "no path of this or another machine"

        assert call(runtime, {"x": np.ones((1, 4), "f4")})["y"].tolist() == [[2, 2, 2, 2]]


def test_outputs_stay_and_inputs_may_go(runtime: Runtime, models: Path):
    """A runner reuses the inputs' memory at once, and copies outputs a moment later."""
    load(runtime, models / "affine")
    x = np.ones((2, 4), "f4")
    answer = runtime.call(NAME, {"x": x}, ["y"])["y"]
    x[:] = 7

    assert answer.tolist() == [[2, 2, 2, 2]] * 2


def test_callers_side_by_side_get_their_own_answers(runtime: Runtime, models: Path):
    """Threads share the runtime, each with batches of its own size, and poison among them."""
    load(runtime, models / "affine")
    together = threading.Barrier(4, timeout=30)

    def ask(caller: int) -> int:
        together.wait()
        wrong = 0
        for n in range(200):
            x = np.full((1 + (caller + n) % 3, 4), 10 * caller + n % 10, "f4")
            wrong += not np.array_equal(runtime.call(NAME, {"x": x}, ["y"])["y"], 2 * x)
            if n % 50 == caller:
                with pytest.raises(ModelFailed):
                    runtime.call(NAME, {"x": np.full((1, 4), 666, "f4")}, ["y"])
        return wrong

    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(ask, range(4))) == [0, 0, 0, 0]


@pytest.mark.parametrize("damage", ["truncate", "garble", "empty", "remove"])
def test_damaged_files_fail_the_load_and_are_named(
    runtime: Runtime, kind: str, models: Path, damage: str, tmp_path: Path
):
    """Whoever published the model must see what to look at; the process must not crash on it."""
    main = shutil.copytree(models / "affine", tmp_path / "copy") / MODEL_FILES[kind]
    content = main.read_bytes()
    main.unlink()
    if damage != "remove":
        main.write_bytes({"truncate": content[: len(content) // 2], "garble": content[::-1], "empty": b""}[damage])

    with pytest.raises((CorruptArtifact, VersionLoadFailed)) as caught:
        load(runtime, tmp_path / "copy")
    assert str(tmp_path) not in caught.value.message
    assert not isinstance(caught.value, CorruptArtifact) or caught.value.metadata == {"path": MODEL_FILES[kind]}


def test_a_closed_runtime_gives_its_model_back(kind: str, models: Path):
    """Groups unload a version and go on; the next load must not find leftovers."""
    for _ in range(3):
        runtime = open_runtime(kind)
        load(runtime, models / "affine")
        assert call(runtime, {"x": np.ones((1, 4), "f4")})["y"].tolist() == [[2, 2, 2, 2]]
        runtime.close()


def test_text_that_is_no_text_is_refused_by_onnx(onnx_models: Path):
    """Its strings are Unicode; changing the caller's bytes silently would be worse."""
    runtime = open_runtime("onnx")
    load(runtime, onnx_models / "text")
    with pytest.raises(ModelFailed, match="input 'bytes' has an element that is not UTF-8"):
        call(runtime, {"bytes": np.array([[b"\xff", b""]], object)}, "y_bytes")


def test_strings_beside_bfloat16_are_refused_by_onnx(onnx_models: Path):
    """At loading, in plain words: its package could answer no call."""
    with pytest.raises(VersionLoadFailed, match="strings beside bfloat16"):
        load(open_runtime("onnx"), onnx_models / "both")


def test_weights_of_an_onnx_model_may_lie_in_files_of_their_own(tmp_path: Path):
    """Large models have no other way; a file that is damaged is told from the model."""
    model = perceptron({"w0": np.ones((4, 1), "f4"), "b0": np.ones(1, "f4")}, softmax=False)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    runtime = open_runtime("onnx")
    load(runtime, tmp_path)
    assert call(runtime, {"x": np.ones((1, 4), "f4")})["y"].tolist() == [[5]]

    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(VersionLoadFailed, match="External initializer: b0 offset: 16 size to read: 4") as caught:
        load(open_runtime("onnx"), tmp_path)
    assert str(tmp_path) not in caught.value.message


def test_an_onnx_model_that_is_too_new_says_what_would_do(tmp_path: Path):
    """Exporters run ahead of workers; the publisher can export for an older operator set."""
    model = onnx_fixtures.total()
    model.opset_import[0].version = 99
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(VersionLoadFailed, match="Opset 99 is under development"):
        load(open_runtime("onnx"), tmp_path)


@pytest.mark.tensorflow
def test_a_quantised_model_is_served_in_its_own_integers(litert_models: Path, saved_models: Path):
    """Whoever made it int8 wants int8 on the wire, and knows scale and zero point."""
    runtime = open_runtime("litert")
    signature = load(runtime, litert_models / "int8")
    kinds = [spec.datatype for spec in (*signature.inputs, *signature.outputs)]
    x = np.random.default_rng(1).integers(-128, 128, (5, 32)).astype("i1")
    alone = [call(runtime, {"x": x[n : n + 1]})["y"] for n in range(5)]

    assert kinds == [Datatype.INT8, Datatype.INT8]
    assert np.array_equal(call(runtime, {"x": x})["y"], np.vstack(alone))
    assert len({int(y) for [[y]] in alone}) > 1


@pytest.mark.tensorflow
def test_a_litert_model_without_signatures_is_called_by_its_tensors(litert_models: Path):
    """Older converters wrote none."""
    runtime = open_runtime("litert")
    signature = load(runtime, litert_models / "unsigned")
    [x], [y] = signature.inputs, signature.outputs
    answer = runtime.call(NAME, {x.name: np.full((3, 4), 4, "f4")}, [y.name])[y.name]

    assert (signature.name, x.shape, answer.tolist()) == (NAME, (-1, 4), [[8, 8, 8, 8]] * 3)


@pytest.mark.parametrize("kind", ["onnx", TENSORFLOW], indirect=True)
def test_a_gpu_that_is_not_there_fails_the_load(runtime: Runtime, models: Path):
    """Both would compute on the CPU, ten times slower, and say nothing."""
    with pytest.raises(VersionLoadFailed, match=r"CPUs alone|finds no gpu:7"):
        runtime.load(models / "affine", 1, Placement("gpu:7"))


@pytest.mark.tensorflow
def test_xla_gives_the_same_answers(tensorflow_models: Path):
    """It is an option, not another model."""
    runtime = open_runtime("tensorflow")
    runtime.load(tensorflow_models / "tiny", 1, Placement(xla=True))
    plain = open_runtime("tensorflow")
    load(plain, tensorflow_models / "tiny")
    x = np.random.default_rng(1).normal(size=(5, 32)).astype("f4")

    assert np.allclose(call(runtime, {"x": x})["y"], call(plain, {"x": x})["y"], atol=1e-6)


def test_a_place_is_the_cpu_or_a_numbered_gpu():
    """A device that is misspelt must not quietly become the CPU."""
    assert (Placement().gpu, Placement("gpu:1").gpu) == (None, 1)
    for wrong in ("gpu", "gpu:", "gpu:x", "tpu:0", ""):
        with pytest.raises(InvalidField, match="neither cpu nor gpu:N"):
            _ = Placement(wrong).gpu
