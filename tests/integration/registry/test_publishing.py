"""Uploads, from the first byte to the published version."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import aio

from inferway.errors import (
    ArtifactNotFound,
    CorruptArtifact,
    DeadlineExceeded,
    DigestMismatch,
    InvalidField,
    InvalidName,
    InvalidPath,
    MalformedMessage,
    RequestIdReused,
    StreamProtocolViolated,
    TooManyConcurrent,
    UploadConflict,
    UploadIncomplete,
    UploadNotFound,
    UploadOffsetMismatch,
    UploadTooLarge,
)
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2 as resources
from inferway.type.v1 import tensor_pb2
from tests.integration.registry.client import CALL_SECONDS, Client, header, manifest, refusal, request_id
from tests.integration.registry.conftest import Start
from tests.testbed.onnx_models import perceptron
from tests.unit.registry.flatbuffer_models import FLOAT32, litert_model
from tests.unit.registry.graphs import INT32, RESOURCE, model_files, saved_model, sha256, signature, tensor

MIB = 1 << 20
WEIGHTS = "variables/variables.data-00000-of-00001"
MODELS = {
    "TENSORFLOW": {"saved_model.pb": saved_model()},
    "ONNX": {
        "model.onnx": perceptron(
            {"w0": np.ones((4, 1), "f4"), "b0": np.ones(1, "f4")}, softmax=False
        ).SerializeToString()
    },
    "LITERT": {
        "model.tflite": litert_model({"serving_default": ({"x": (FLOAT32, (-1, 4))}, {"y": (FLOAT32, (-1, 1))})})
    },
}
"""A small model x → y of each runtime."""


async def test_a_published_version_tells_what_it_can_be_asked(client: Client):
    """The first thing a user does; workers and gateways live by every field of it."""
    config = resources.VersionConfig(forbid_nan_inputs=["x"], max_batch_rows=8, description="first", labels={"a": "b"})
    upload = await client.fill(config=config)

    version = await client.publish(upload.name, alias="champion")

    assert version.name == "models/digits/versions/1"
    assert version.version == 1
    assert version.state == resources.ModelVersion.STATE_PUBLISHED
    assert version.config == config
    assert [artifact.path for artifact in version.manifest.artifacts] == sorted(model_files())
    (only,) = version.signatures
    assert only.name == "serving_default"
    (x,) = only.inputs
    assert (x.name, x.datatype, list(x.shape), x.forbid_nan) == ("x", tensor_pb2.DATA_TYPE_FP32, [-1, 4], True)
    model = await client.model("digits")
    assert list(model.version_numbers) == [1]
    assert [(alias.alias, alias.version) for alias in model.aliases] == [("champion", 1)]


async def test_the_manifests_digest_can_be_computed_by_anyone(client: Client):
    """Workers verify it with sha256sum's own format."""
    version = await client.push()

    lines = "".join(f"{sha256(data)}  {path}\n" for path, data in sorted(model_files().items()))
    assert version.manifest.digest == sha256(lines.encode())


async def test_files_can_be_larger_than_a_message(client: Client):
    """A model's weights never fit into one."""
    weights = bytes(range(256)) * (5 * MIB // 256)
    files = model_files(weights)
    upload = await client.begin(files=files)
    for path, data in files.items():
        stored = await client.send(upload.name, path, [data[i : i + MIB] for i in range(0, len(data), MIB)])
        assert stored == len(data)

    version = await client.publish(upload.name)

    assert await client.download(version.name, WEIGHTS) == weights


async def test_content_that_is_there_is_not_sent_again(client: Client):
    """A new version of a large model mostly repeats the old one's files."""
    await client.push(weights=b"one")

    upload = await client.begin(files=model_files(b"two"))

    assert {file.path: file.committed_bytes for file in upload.files} == {
        "saved_model.pb": len(saved_model()),
        "variables/variables.index": 5,
        WEIGHTS: 0,
    }


async def test_an_upload_resumes_where_a_broken_call_left_it(client: Client):
    """Networks break; gigabytes must not be sent twice."""
    upload = await client.begin(files=model_files(b"0123456789"))
    arrived = asyncio.Event()

    async def half() -> AsyncIterator[pb.UploadArtifactRequest]:
        yield header(upload.name, WEIGHTS)
        yield pb.UploadArtifactRequest(chunk=b"01234")
        arrived.set()
        await asyncio.Event().wait()

    call = client.registry.UploadArtifact(half(), timeout=CALL_SECONDS)
    await arrived.wait()
    async with asyncio.timeout(CALL_SECONDS):
        while (await client.progress(upload.name))[WEIGHTS] != 5:
            pass
    call.cancel()
    stored = await _retried(lambda: client.send(upload.name, WEIGHTS, [b"56789"], offset=5))

    assert stored == 10


async def _retried(call: Callable[[], Awaitable[int]]) -> int:
    """Repeats a call while the registry has not noticed yet that its predecessor broke."""
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            with contextlib.suppress(aio.AioRpcError):
                return await call()


async def test_two_calls_never_write_the_same_file(client: Client):
    """Interleaved appends would corrupt it."""
    upload = await client.begin()
    writing = asyncio.Event()
    finish = asyncio.Event()

    async def slow() -> AsyncIterator[pb.UploadArtifactRequest]:
        yield header(upload.name, WEIGHTS)
        yield pb.UploadArtifactRequest(chunk=b"wei")
        writing.set()
        await finish.wait()
        yield pb.UploadArtifactRequest(chunk=b"ghts")

    call = client.registry.UploadArtifact(slow(), timeout=CALL_SECONDS)
    await writing.wait()
    async with asyncio.timeout(CALL_SECONDS):
        while (await client.progress(upload.name))[WEIGHTS] != 3:
            pass

    refused = await refusal(client.send(upload.name, WEIGHTS, [b"ghts"], offset=3))
    finish.set()

    assert type(refused) is UploadConflict
    assert (await call).file.committed_bytes == 7


async def test_two_uploads_of_the_same_model_at_once_both_become_versions(client: Client):
    """Two people push at the same moment; neither loses, and the files they share do no harm."""
    uploads = await asyncio.gather(client.fill(model_files(b"a")), client.fill(model_files(b"b")))

    versions = await asyncio.gather(*(client.publish(upload.name) for upload in uploads))

    assert sorted(version.version for version in versions) == [1, 2]
    assert {await client.download(version.name, WEIGHTS) for version in versions} == {b"a", b"b"}


async def test_wrong_bytes_are_refused_and_the_file_starts_again(client: Client):
    """A flipped bit on the way must never become a model."""
    upload = await client.begin()

    refused = await refusal(client.send(upload.name, WEIGHTS, [b"weighty"]))

    assert type(refused) is DigestMismatch
    assert refused.metadata == {"path": WEIGHTS, "expected": sha256(b"weights"), "actual": sha256(b"weighty")}
    assert (await client.progress(upload.name))[WEIGHTS] == 0
    assert await client.send(upload.name, WEIGHTS, [b"weights"]) == 7


async def test_a_call_must_begin_where_the_file_ends(client: Client):
    """Otherwise a retry would store bytes twice."""
    upload = await client.begin()
    await client.send(upload.name, WEIGHTS, [b"wei"])

    refused = await refusal(client.send(upload.name, WEIGHTS, [b"weights"], offset=0))

    assert type(refused) is UploadOffsetMismatch
    assert (refused.metadata["expected"], refused.metadata["actual"]) == ("3", "0")


async def test_more_bytes_than_the_manifest_says_are_refused(client: Client):
    """The size was checked against the limits; what arrives must keep to it."""
    upload = await client.begin()

    refused = await refusal(client.send(upload.name, WEIGHTS, [b"weights and more"]))

    assert type(refused) is UploadTooLarge
    assert refused.metadata == {"path": WEIGHTS, "limit": "7"}
    assert (await client.progress(upload.name))[WEIGHTS] == 0


async def test_an_incomplete_upload_is_not_published_and_can_go_on(client: Client):
    """A truncated upload stays invisible."""
    upload = await client.begin()
    for path, data in model_files().items():
        await client.send(upload.name, path, [data if path != WEIGHTS else data[:3]])

    refused = await refusal(client.publish(upload.name))

    assert type(refused) is UploadIncomplete
    assert refused.metadata == {"upload": upload.name, "path": WEIGHTS}
    models = await client.registry.ListModels(pb.ListModelsRequest(), timeout=CALL_SECONDS)
    assert not models.models
    await client.send(upload.name, WEIGHTS, [b"ghts"], offset=3)
    assert (await client.publish(upload.name)).version == 1


async def test_empty_files_need_not_be_sent(client: Client):
    """A client that asks how many bytes are missing sends none."""
    files = {**model_files(), "assets/empty": b""}

    version = await client.publish((await client.fill(files)).name)

    assert await client.download(version.name, "assets/empty") == b""


async def test_publishing_again_with_the_same_request_id_gives_the_same_version(client: Client):
    """A client whose answer got lost repeats itself and must not make a second version."""
    upload = await client.fill()
    again = request_id()
    first_answer = await client.publish(upload.name, request_id=again)

    second_answer = await client.publish(upload.name, request_id=again)

    assert second_answer == first_answer
    assert list((await client.model("digits")).version_numbers) == [1]


async def test_publishing_twice_at_once_with_one_request_id_makes_one_version(client: Client):
    """The impatient client: its first call still runs when it sends the second."""
    upload = await client.fill()
    again = request_id()

    answers = await asyncio.gather(*(client.publish(upload.name, request_id=again) for _ in range(3)))

    assert [answer.version for answer in answers] == [1, 1, 1]


async def test_a_request_id_belongs_to_one_request(client: Client):
    """Answering a different question with an old answer would be a lie."""
    taken = request_id()
    await client.begin(request_id=taken)

    refused = await refusal(client.begin(model="other", request_id=taken))

    assert type(refused) is RequestIdReused


async def test_a_request_id_is_a_uuid(client: Client):
    """Counters and names would collide between clients."""
    assert type(await refusal(client.begin(request_id="1"))) is InvalidField


async def test_a_published_upload_is_gone(client: Client):
    """Its name answers as one that never was."""
    upload = await client.fill()
    await client.publish(upload.name)

    for call in (client.publish(upload.name), client.progress(upload.name), client.send(upload.name, WEIGHTS, [])):
        refused = await refusal(call)
        assert type(refused) is UploadNotFound
        assert refused.metadata == {"upload": upload.name}


async def test_a_deleted_upload_frees_what_it_stored(client: Client, tmp_path: Path):
    """Disk is finite."""
    upload = await client.begin()
    await client.send(upload.name, WEIGHTS, [b"wei"])
    request = pb.DeleteUploadRequest(name=upload.name)

    await client.registry.DeleteUpload(request, timeout=CALL_SECONDS)

    assert list((tmp_path / "uploads").iterdir()) == []
    assert type(await refusal(client.registry.DeleteUpload(request, timeout=CALL_SECONDS))) is UploadNotFound


@pytest.mark.parametrize(
    "path",
    [
        "../saved_model.pb",
        "variables/../../etc/passwd",
        "/etc/passwd",
        "variables//x",
        "variables/./x",
        "variables\\x",
        "variables/\x00",
        "variables/ü",
        "variables/u\u0308",
        "keras_metadata.pb",
        "model.h5",
        "custom_ops.so",
        "evil.py",
        "",
        "variables/" + "x" * 10_000,
        "VARIABLES/x",
        "assets",
    ],
)
async def test_hostile_file_names_are_refused(client: Client, path: str):
    """An uploaded path must never name anything outside the model, on any machine that stores it."""
    refused = await refusal(client.begin(files={**model_files(), path: b"x"}))

    assert type(refused) is InvalidPath
    assert refused.violations[0].field == "manifest.artifacts[3].path"
    assert len(refused.message) < 1_000


@pytest.mark.parametrize("model", ["../digits", "x" * 10_240, "Digits", "", "a/b", "ünder"])
async def test_hostile_model_names_are_refused(client: Client, model: str):
    """Names travel into file names, metrics and logs."""
    assert type(await refusal(client.begin(model=model))) is InvalidName


async def test_paths_may_not_differ_by_case_alone(client: Client):
    """On some machines they are the same file."""
    assert type(await refusal(client.begin(files={**model_files(), "assets/a": b"1", "assets/A": b"2"}))) is InvalidPath


async def test_limits_hold_before_a_byte_is_sent(start: Start):
    """Whoever is over the limit learns it at once, file by file and in all."""
    async with start(max_file_bytes=100, max_upload_bytes=250, max_files=4) as client:
        for files, limit in (
            ({"assets/a": b"x" * 101}, "100"),
            ({"assets/a": b"x" * 90, "assets/b": b"y" * 90}, "250"),
            ({f"assets/{n}": b"" for n in range(4)}, "4"),
        ):
            refused = await refusal(client.begin(files={"saved_model.pb": saved_model(), **files}))

            assert type(refused) is UploadTooLarge
            assert refused.metadata["limit"] == limit


async def test_open_uploads_are_bounded(start: Start):
    """Abandoned uploads must not fill the disk one by one."""
    async with start(max_uploads=1) as client:
        await client.begin()

        refused = await refusal(client.begin())

        assert type(refused) is TooManyConcurrent
        assert 590 < (refused.retry_after_seconds or 0) <= 600
        assert "try again in" in refused.message


async def test_the_upload_idle_for_longest_makes_room_for_a_new_one(start: Start):
    """Pushes that were given up must not block everybody else until they expire."""
    async with start(max_uploads=2, upload_idle_seconds=1e-6) as client:
        abandoned, touched = await client.begin(), await client.begin()
        await client.progress(abandoned.name)
        await client.progress(touched.name)

        await client.begin()

        assert type(await refusal(client.progress(abandoned.name))) is UploadNotFound
        await client.progress(touched.name)


@pytest.mark.parametrize("kind", MODELS)
async def test_models_of_every_runtime_are_published_with_their_signatures(client: Client, kind: str):
    """The registry reads them without the frameworks that run them."""
    runtime = resources.Runtime.Value(f"RUNTIME_{kind}")
    upload = await client.fill(MODELS[kind], runtime=runtime)
    version = await client.publish(upload.name)

    assert version.runtime == runtime
    [signature] = version.signatures
    assert [(spec.name, spec.shape[0]) for spec in (*signature.inputs, *signature.outputs)] == [("x", -1), ("y", -1)]


@pytest.mark.parametrize(("kind", "actual"), list(itertools.permutations(MODELS, 2)))
async def test_an_artifact_that_its_runtime_does_not_execute_is_refused(client: Client, kind: str, actual: str):
    """Renaming a file does not convert it, and workers would fail at loading one after the other."""
    [(name, _)], [(true_name, content)] = MODELS[kind].items(), MODELS[actual].items()
    runtime = resources.Runtime.Value(f"RUNTIME_{kind}")
    upload = await client.fill({name: content}, runtime=runtime)
    refused = await refusal(client.publish(upload.name))
    misplaced = await refusal(client.begin(runtime=runtime, files={true_name: content}))

    assert (type(refused), refused.metadata) == (CorruptArtifact, {"path": name})
    assert type(misplaced) in (InvalidField, InvalidPath)


async def test_an_upload_must_say_what_executes_it(client: Client):
    """A guess would show only on a worker."""
    assert type(await refusal(client.begin(runtime=resources.RUNTIME_UNSPECIFIED))) is InvalidField


@pytest.mark.parametrize(
    "graph",
    [
        b"\xff\xff not a protobuf",
        b"",
        saved_model(tags=("train",)),
        saved_model({}),
        saved_model({"serving_default": signature({"x": tensor()}, {})}),
        saved_model({"serving_default": signature({"x": tensor(RESOURCE)}, {"y": tensor()})}),
        saved_model({"serving_default": signature({"x": tensor(shape=(1,) * 17)}, {"y": tensor()})}),
        saved_model({"serving_default": signature({"x": tensor(shape=(-2,))}, {"y": tensor()})}),
        saved_model({f"s{n}": signature({"x": tensor()}, {"y": tensor()}) for n in range(101)}),
        saved_model({"\x1b[2J": signature({"x": tensor()}, {"y": tensor()})}),
        saved_model({"serving_default": signature({"x\r": tensor()}, {"y": tensor()})}),
    ],
    ids=[
        *("garbage", "empty", "untagged", "no signature", "no output", "resource", "rank 17", "dim -2", "many"),
        *("escape in a signature", "escape in an input"),
    ],
)
async def test_a_corrupt_saved_model_is_not_published(client: Client, graph: bytes):
    """A version that nobody can call must not become the newest."""
    upload = await client.fill(model_files(graph=graph))

    refused = await refusal(client.publish(upload.name))

    assert type(refused) is CorruptArtifact
    assert refused.metadata == {"path": "saved_model.pb"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"description": "fine\x1b]0;title\x07"}, "config.description"),
        ({"labels": {"a\x9b": "b"}}, "config.labels"),
        ({"labels": {"a": "b\n"}}, "config.labels"),
    ],
)
async def test_what_a_terminal_would_obey_is_no_text(client: Client, config: dict[str, Any], field: str):
    """Whoever lists models reads it; a publisher must not paint on their screens. Lines of a description are fine."""
    refused = await refusal(client.begin(config=resources.VersionConfig(**config)))

    assert type(refused) is InvalidField
    assert refused.violations[0].field == field
    await client.begin(config=resources.VersionConfig(description="one\ntwo\n"))


@pytest.mark.parametrize("name", ["z", "count"])
async def test_nan_can_be_forbidden_only_where_it_could_be(client: Client, name: str):
    """A rule for a misspelt input would silently protect nothing."""
    inputs = {"x": tensor(), "count": tensor(INT32)}
    graph = saved_model({"serving_default": signature(inputs, {"y": tensor()})})
    config = resources.VersionConfig(forbid_nan_inputs=[name])
    upload = await client.fill(model_files(graph=graph), config=config)

    refused = await refusal(client.publish(upload.name))

    assert type(refused) is InvalidField
    assert refused.violations[0].field == "config.forbid_nan_inputs[0]"


async def test_a_manifest_must_be_of_a_saved_model(client: Client):
    """Missing graphs and malformed digests are told at the beginning, by field."""
    wrong = manifest(model_files())
    wrong.artifacts[0].sha256 = "0" * 63
    negative = manifest(model_files())
    negative.artifacts[1].size_bytes = -1
    digest = manifest(model_files())
    digest.digest = "0" * 64
    empty = manifest({**model_files(), "assets/e": b""})
    empty.artifacts[3].sha256 = "0" * 64
    for bad, field in (
        (manifest({"variables/variables.index": b"x"}), "manifest.artifacts"),
        (wrong, "manifest.artifacts[0].sha256"),
        (negative, "manifest.artifacts[1].size_bytes"),
        (digest, "manifest.digest"),
        (empty, "manifest.artifacts[3].sha256"),
    ):
        refused = await refusal(client.begin(manifest=bad))

        assert type(refused) is InvalidField
        assert refused.violations[0].field == field


async def test_stream_messages_come_in_order(client: Client):
    """A chunk before the header belongs to no file; a second header would be ambiguous; chunks are bounded."""
    upload = await client.begin()
    begin, chunk = header(upload.name, WEIGHTS), pb.UploadArtifactRequest(chunk=b"w")
    huge = pb.UploadArtifactRequest(chunk=b"x" * (MIB + 1))

    for messages in ([chunk], [], [begin, begin], [begin, pb.UploadArtifactRequest()], [begin, huge]):
        refused = await refusal(client.registry.UploadArtifact(iter(messages), timeout=CALL_SECONDS))

        assert type(refused) is StreamProtocolViolated


async def test_a_file_outside_the_manifest_is_not_found(client: Client):
    """Whatever its path is: it is compared, never opened."""
    upload = await client.begin()

    for path in ("assets/x", "../../x", "", "x" * 1_000_000):
        assert type(await refusal(client.send(upload.name, path, [b"x"]))) is ArtifactNotFound


async def test_a_silent_call_is_ended_and_frees_its_file(start: Start):
    """A stalled client must not lock others out for ever."""
    async with start(upload_patience_seconds=0.05) as client:
        upload = await client.begin()

        async def silent() -> AsyncIterator[pb.UploadArtifactRequest]:
            yield header(upload.name, WEIGHTS)
            await asyncio.Event().wait()

        refused = await refusal(client.registry.UploadArtifact(silent(), timeout=CALL_SECONDS))

        assert type(refused) is DeadlineExceeded
        assert await client.send(upload.name, WEIGHTS, [b"weights"]) == 7


@pytest.mark.parametrize("method", ["CreateUpload", "PublishUpload", "GetModel"])
async def test_malformed_messages_are_refused_and_harm_nobody(client: Client, method: str):
    """Anybody can send bytes to a port."""
    call: Any = client.channel.unary_unary(f"/inferway.registry.v1.RegistryService/{method}")

    assert type(await refusal(call(b"\xff\xff\xff", timeout=CALL_SECONDS))) is MalformedMessage
    assert (await client.push()).version == 1


async def test_a_malformed_chunk_ends_the_call_and_keeps_what_came_before(client: Client):
    """The stream's bytes are checked like any other."""
    upload = await client.begin()
    messages = [header(upload.name, WEIGHTS), pb.UploadArtifactRequest(chunk=b"wei")]
    raw = [*(message.SerializeToString() for message in messages), b"\xff\xff"]
    call: Any = client.channel.stream_unary("/inferway.registry.v1.RegistryService/UploadArtifact")

    assert type(await refusal(call(iter(raw), timeout=CALL_SECONDS))) is MalformedMessage
    assert (await client.progress(upload.name))[WEIGHTS] == 3
