"""push, alias, models, model, unload, delete: as typed, against a registry in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferway.errors import CorruptArtifact, StorageFull
from inferway.registry.v1 import resources_pb2
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_registry import FakeRegistry


async def test_push_publishes_every_file_with_its_config(inferway: Inferway, registry: FakeRegistry, saved_model: Path):
    """The one way in which models get into inferway."""
    (saved_model / "inferway.yaml").write_text("description: twice and one\nlabels: {mse: 0.5}\nmax_batch_rows: 8\n")
    done = await inferway("push", "affine", str(saved_model), "--alias", "champion", "--wait")
    assert (done.code, done.stdout) == (0, "affine version 1 is ready\n"), done.stderr
    version = registry.versions["models/affine/versions/1"]
    assert [artifact.path for artifact in version.manifest.artifacts] == [
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data",
    ]
    assert version.config.description == "twice and one"
    assert version.config.labels == {"mse": "0.5"}
    assert version.config.max_batch_rows == 8
    assert registry.aliases == {"models/affine": {"champion": 1}}


async def test_model_shows_what_is_state(inferway: Inferway, registry: FakeRegistry, saved_model: Path):
    """Callers neither send nor get it, and wonder why the signature has it."""
    (saved_model / "inferway.yaml").write_text("state: [{output: next, input: state}]\n")
    assert (await inferway("push", "affine", str(saved_model))).code == 0
    version = registry.versions["models/affine/versions/1"]
    assert [(binding.output, binding.input) for binding in version.config.state] == [("next", "state")]
    version.config.state[0].MergeFrom(resources_pb2.StateBinding(signature="step", shape=[8]))
    state = tensor_pb2.TensorSpec(name="state", datatype=tensor_pb2.DATA_TYPE_FP32, shape=[-1, 8])
    version.signatures.add(name="step", inputs=[state])

    shown = await inferway("model", "affine")
    told = json.loads((await inferway("model", "affine", "--json")).stdout)

    assert "  step keeps FP32[8] a row: next -> state, at first zeros\n" in shown.stdout
    assert told["versions"][0]["state_bindings"] == [
        {"signature": "step", "output": "next", "input": "state", "shape": [8], "initial": ""}
    ]


@pytest.mark.parametrize(
    ("written", "runtime", "paths"),
    [
        (["net.onnx"], "ONNX", ["model.onnx"]),
        (["net.onnx", "net.onnx.data"], "ONNX", ["model.onnx", "net.onnx.data"]),
        (["net.tflite"], "LITERT", ["model.tflite"]),
        (["a.tflite", "assets.extra/golden.npz"], "LITERT", ["assets.extra/golden.npz", "model.tflite"]),
        (["saved_model.pb", "assets/words"], "TENSORFLOW", ["assets/words", "saved_model.pb"]),
    ],
)
async def test_push_sees_what_kind_of_model_it_is_given(
    inferway: Inferway, registry: FakeRegistry, tmp_path: Path, written: list[str], runtime: str, paths: list[str]
):
    """People name files as they like; workers look for one name. Several files are pushed by their folder."""
    pushed = written[0] if len(written) == 1 else "."
    for name in written:
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(name.encode())
    done = await inferway("push", "net", str(tmp_path / "m" / pushed), "--isolation", "inline", "--max-batch-rows", "3")

    assert done.code == 0, done.stderr
    version = registry.versions["models/net/versions/1"]
    assert version.runtime == resources_pb2.Runtime.Value(f"RUNTIME_{runtime}")
    assert [artifact.path for artifact in version.manifest.artifacts] == paths
    assert version.config == resources_pb2.VersionConfig(isolation=resources_pb2.ISOLATION_INLINE, max_batch_rows=3)


async def test_push_asks_when_there_are_two_models(inferway: Inferway, registry: FakeRegistry, tmp_path: Path):
    """Guessing wrong would serve the wrong weights."""
    for name in ("a.onnx", "b.tflite"):
        (tmp_path / name).write_bytes(b"x")
    refused = await inferway("push", "net", str(tmp_path))
    chosen = await inferway("push", "net", str(tmp_path / "a.onnx"))

    assert (refused.code, chosen.code) == (1, 0)
    assert "has a.onnx, b.tflite; push one of these files, or say which with --runtime" in refused.stderr


async def test_options_of_push_come_before_the_file(inferway: Inferway, registry: FakeRegistry, saved_model: Path):
    """The file is for every push, the option for this one."""
    (saved_model / "inferway.yaml").write_text("isolation: group\nmax_batch_rows: 8\nmemory_bytes: 5000000000\n")
    for options in ((), ("--isolation", "process", "--max-batch-rows", "2")):
        done = await inferway("push", "affine", str(saved_model), *options)
        assert done.code == 0, done.stderr
    first, second = (registry.versions[f"models/affine/versions/{number}"].config for number in (1, 2))

    assert (first.isolation, first.max_batch_rows) == (resources_pb2.ISOLATION_GROUP, 8)
    assert (second.isolation, second.max_batch_rows) == (resources_pb2.ISOLATION_PROCESS, 2)
    assert first.memory_bytes == second.memory_bytes == 5_000_000_000


async def test_push_goes_on_where_the_connection_broke(inferway: Inferway, registry: FakeRegistry, saved_model: Path):
    """A gigabyte is not sent twice."""
    registry.break_upload_after = 600_000
    done = await inferway("push", "affine", str(saved_model))
    assert done.code == 0, done.stderr
    assert registry.received_bytes == 1_000_005


async def test_push_says_why_it_was_refused_while_it_was_still_writing(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """grpcio loses the status of a call that ends during a write; the publisher needs it."""
    (saved_model / "variables" / "variables.data").write_bytes(bytes(40_000_000))
    registry.refusal = StorageFull("the registry's disk is full; free space on it, or push less")
    for _ in range(3):
        done = await inferway("push", "affine", str(saved_model))
        assert done.code == 1
        assert "free space on it" in done.stderr


async def test_the_same_model_pushed_again_is_the_next_version(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """Resuming looks for an unfinished upload only."""
    for _ in range(2):
        assert (await inferway("push", "affine", str(saved_model))).code == 0
    assert list(registry.versions) == ["models/affine/versions/1", "models/affine/versions/2"]


async def test_push_wait_says_why_a_version_does_not_load(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """The publisher is the one who can mend it."""
    registry.load_state = worker_service_pb2.LOAD_STATE_FAILED
    registry.load_error = CorruptArtifact("variables are damaged")
    done = await inferway("push", "affine", str(saved_model), "--wait")
    assert done.code == 1
    assert "worker-0 could not load models/affine/versions/1: variables are damaged" in done.stderr


async def test_model_says_why_a_version_is_loaded_again(inferway: Inferway, registry: FakeRegistry, saved_model: Path):
    """It is tried again within seconds, so this is what many see who look for the reason."""
    registry.load_state = worker_service_pb2.LOAD_STATE_LOADING
    registry.load_error = CorruptArtifact("variables are damaged")
    assert (await inferway("push", "affine", str(saved_model))).code == 0
    assert "worker-0: LOADING again, after: variables are damaged" in (await inferway("model", "affine")).stdout


async def test_push_wait_gives_up_in_time_and_says_where_it_stands(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """Scripts do not hang on a worker that never comes."""
    registry.load_state = worker_service_pb2.LOAD_STATE_LOADING
    done = await inferway("push", "affine", str(saved_model), "--wait", "--timeout", "0.5")
    assert done.code == 1
    assert "not ready after 0.5 s (worker-0 LOADING)" in done.stderr


async def test_push_wait_ends_when_a_newer_version_takes_the_traffic(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """No worker will ever have it ready; waiting for the timeout would only look like a failure."""
    registry.load_state = worker_service_pb2.LOAD_STATE_LOADING
    registry.overtaken = True
    done = await inferway("push", "affine", str(saved_model), "--wait")
    line = "published as version 1; version 2 was published after it and takes the traffic\n"
    assert (done.code, done.stdout) == (0, line), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("push", "affine", "/nowhere"), "/nowhere is no model: push a SavedModel directory"),
        (("push", "affine", "MODEL", "--runtime", "onnx"), "is no ONNX model"),
        (("push", "../affine", "MODEL"), "'../affine' is not permitted"),
        (("model", "nothing"), "`inferway models` lists"),
        (("models", "--registry", "127.0.0.1:1"), "cannot reach 127.0.0.1:1"),
        (("delete", "affine"), "--yes is needed"),
    ],
)
async def test_errors_are_one_line_that_says_what_to_do(
    inferway: Inferway, saved_model: Path, arguments: tuple[str, ...], said: str
):
    """Nobody reads a stack trace to learn of a typing error."""
    done = await inferway(*(str(saved_model) if argument == "MODEL" else argument for argument in arguments))
    assert done.code == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


async def test_wrong_usage_exits_with_2(inferway: Inferway):
    """Scripts tell a wrong command from one that failed."""
    assert (await inferway("push", "affine")).code == 2
    assert (await inferway("frobnicate")).code == 2
    assert (await inferway("alias", "affine", "champion")).code == 2


async def test_models_and_versions_are_listed_for_people_and_for_programs(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """Every table has its JSON."""
    for name in ("affine", "beta"):
        await inferway("push", name, str(saved_model))
    table = await inferway("models")
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["model", "affine", "beta"]
    listed = json.loads((await inferway("models", "--json")).stdout)
    assert [(row["model"], row["versions"]) for row in listed] == [("affine", [1]), ("beta", [1])]
    shown = json.loads((await inferway("model", "affine", "--json")).stdout)
    assert shown["endpoint"]["arms"] == {"v1": "affine/1 100%"}
    assert shown["versions"][0]["bytes"] == 1_000_005


async def test_a_version_is_withdrawn_restored_aliased_and_deleted(
    inferway: Inferway, registry: FakeRegistry, saved_model: Path
):
    """The life of a version from the command line."""
    await inferway("push", "affine", str(saved_model))
    version = registry.versions["models/affine/versions/1"]
    assert (await inferway("unload", "affine")).stdout == "affine version 1 is unloaded\n"
    assert version.state == resources_pb2.ModelVersion.STATE_UNLOADED
    assert (await inferway("alias", "affine", "champion", "1")).code == 0
    assert (await inferway("unload", "affine", "--version", "champion", "--restore")).code == 0
    assert version.state == resources_pb2.ModelVersion.STATE_PUBLISHED
    assert (await inferway("alias", "affine", "champion", "--remove")).stdout == "champion of affine is gone\n"
    assert (await inferway("delete", "affine", "--yes")).code == 0
    assert registry.versions == {}
