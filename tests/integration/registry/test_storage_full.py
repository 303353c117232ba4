"""A full disk, for real: the data directory on a file system of a few megabytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferway.errors import InferwayError, StorageFull
from inferway.registry.v1 import registry_service_pb2 as pb
from tests.integration.registry.client import CALL_SECONDS, Client, refusal
from tests.integration.registry.conftest import Start
from tests.unit.registry.graphs import model_files

MIB = 1 << 20
WEIGHTS = "variables/variables.data-00000-of-00001"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for four megabytes; needs the right to mount."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_a_full_disk_refuses_bytes_and_nothing_else(start: Start, small_disk: Path):
    """What is published is served, a smaller push still fits, and with room again the upload starts over."""
    async with start(data_dir=small_disk) as client:
        kept = await client.push(weights=b"small")
        weights = os.urandom(3 * MIB)
        upload = await client.begin(files=model_files(weights))
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (2 * MIB))

        refused = await _send_all(client, upload.name, weights)

        assert type(refused) is StorageFull
        assert refused.retryable
        assert "free space" in refused.message
        assert await client.download(kept.name, WEIGHTS) == b"small"
        models = await client.registry.ListModels(pb.ListModelsRequest(), timeout=CALL_SECONDS)
        assert [list(model.version_numbers) for model in models.models] == [[1]]
        assert (await client.progress(upload.name))[WEIGHTS] == 0
        assert (await client.push(weights=b"smaller")).version == 2
        filler.unlink()
        await client.send(upload.name, WEIGHTS, [weights[i : i + MIB] for i in range(0, len(weights), MIB)])
        await client.send(upload.name, "saved_model.pb", [model_files()["saved_model.pb"]])
        assert (await client.publish(upload.name)).version == 3


async def _send_all(client: Client, upload: str, weights: bytes) -> InferwayError:
    return await refusal(client.send(upload, WEIGHTS, [weights[i : i + MIB] for i in range(0, len(weights), MIB)]))
