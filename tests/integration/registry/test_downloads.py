"""Artifacts of published versions, as workers fetch them."""

from __future__ import annotations

from pathlib import Path

from inferway.errors import ArtifactNotFound, InvalidName, StoreUnavailable, UploadOffsetMismatch, VersionNotFound
from inferway.registry.v1 import registry_service_pb2 as pb
from tests.integration.registry.client import CALL_SECONDS, Client, refusal
from tests.integration.registry.conftest import Start
from tests.unit.registry.graphs import model_files, sha256

MIB = 1 << 20
WEIGHTS = "variables/variables.data-00000-of-00001"


async def test_a_download_begins_anywhere_in_a_file(client: Client):
    """A worker whose connection broke goes on where it was."""
    version = await client.push(weights=b"0123456789")

    assert await client.download(version.name, WEIGHTS, 4) == b"456789"
    assert await client.download(version.name, WEIGHTS, 10) == b""


async def test_a_large_file_comes_in_chunks(client: Client):
    """Neither side may have to hold a whole file in memory."""
    weights = bytes(range(256)) * (2 * MIB // 256) + b"tail"
    upload = await client.begin(files=model_files(weights))
    for path, data in model_files(weights).items():
        await client.send(upload.name, path, [data[start : start + MIB] for start in range(0, len(data), MIB)])
    version = await client.publish(upload.name)

    request = pb.DownloadArtifactRequest(version=version.name, path=WEIGHTS, offset_bytes=1)
    chunks = [response.chunk async for response in client.registry.DownloadArtifact(request, timeout=CALL_SECONDS)]

    assert b"".join(chunks) == weights[1:]
    assert max(map(len, chunks)) <= MIB


async def test_what_is_not_there_is_not_found(client: Client):
    """Each with the reason that tells a worker what is wrong."""
    version = await client.push(weights=b"weights")

    for name, path, offset, error in (
        ("models/digits/versions/9", WEIGHTS, 0, VersionNotFound),
        ("models/digits/versions/0", WEIGHTS, 0, InvalidName),
        ("models/digits/versions/01", WEIGHTS, 0, InvalidName),
        (version.name, "../registry.db", 0, ArtifactNotFound),
        (version.name, WEIGHTS, 8, UploadOffsetMismatch),
        (version.name, WEIGHTS, -1, UploadOffsetMismatch),
    ):
        assert type(await refusal(client.download(name, path, offset))) is error


async def test_lost_content_is_said_and_sent_again_by_the_next_upload(client: Client, tmp_path: Path):
    """A damaged disk must not be served, and the remedy is to push once more."""
    version = await client.push(weights=b"weights")
    digest = sha256(b"weights")
    (tmp_path / "blobs" / "sha256" / digest[:2] / digest).unlink()

    assert type(await refusal(client.download(version.name, WEIGHTS))) is StoreUnavailable
    await client.push(weights=b"weights")
    assert await client.download(version.name, WEIGHTS) == b"weights"


async def test_artifacts_can_be_kept_in_a_bucket(start: Start):
    """The same calls with an object store behind them; memory stands for S3."""
    async with start(blob_url="memory:///") as client:
        version = await client.push(weights=b"weights")

        assert await client.download(version.name, WEIGHTS, 3) == b"ghts"
