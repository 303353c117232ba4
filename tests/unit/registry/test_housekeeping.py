"""What the registry clears away by itself, and what it must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL

from inferway.errors import UploadNotFound
from inferway_registry import manifest
from inferway_registry.blobs import Blobs
from inferway_registry.housekeeping import Housekeeping
from inferway_registry.ledger import Call, Ledger, now
from inferway_registry.manifest import Limits
from inferway_registry.resources import Runtime, VersionConfig
from inferway_registry.staging import Staging
from inferway_registry.store.sql import Store
from inferway_registry.uploads import Draft, Options, Uploads
from tests.unit.registry.graphs import artifacts, model_files, sha256

WEIGHTS = "variables/variables.data-00000-of-00001"
CALL = Call("p", "m")


class Bed:
    """Uploads on a real disk, with a clock that the test turns."""

    def __init__(self, store: Store, directory: Path) -> None:
        """Time stands at now."""
        self.time = now()
        self.blobs = Blobs.in_directory(directory / "blobs")
        self.staged = directory / "uploads"
        ledger = Ledger(store, lambda: self.time, lambda: None)
        staging = Staging(self.staged)
        self.uploads = Uploads(store, ledger, staging, self.blobs, Options())
        self.housekeeping = Housekeeping(store, ledger, staging, self.blobs, timedelta(hours=24))

    async def begin(self, name: str) -> None:
        """Begins an upload and sends all but its weights' last byte."""
        checked = manifest.check(artifacts(model_files()), "", Runtime.TENSORFLOW, Limits())
        draft = Draft("m", Runtime.TENSORFLOW, checked, VersionConfig())
        await self.uploads.create(CALL, name, draft, lambda _: b"")
        for path, data in model_files().items():
            await self.send(name, path, data[:-1] if path == WEIGHTS else data)

    async def send(self, name: str, path: str, data: bytes, offset: int = 0) -> None:
        """Sends bytes of a file."""

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.uploads.receive(name, path, offset, chunks())


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    """A fresh one."""
    store = await Store.open(URL.create("sqlite+aiosqlite", database=str(tmp_path / "registry.db")))
    yield Bed(store, tmp_path)
    await store.close()


async def test_an_abandoned_upload_expires_and_a_living_one_does_not(bed: Bed):
    """Every sign of life gives it another day."""
    await bed.begin("abandoned")
    await bed.begin("living")
    bed.time += timedelta(hours=23)
    await bed.send("living", WEIGHTS, b"", offset=6)
    bed.time += timedelta(hours=2)

    await bed.housekeeping.expire_uploads(bed.time)

    assert (await bed.uploads.progress("living")).upload.expire_time == bed.time + timedelta(hours=22)
    with pytest.raises(UploadNotFound):
        await bed.uploads.progress("abandoned")
    assert [each.name for each in bed.staged.iterdir()] == ["living"]


async def test_files_of_uploads_that_are_gone_are_freed(bed: Bed):
    """A kill between the commit and the deletion leaves them behind."""
    (bed.staged / "orphan").mkdir(parents=True)
    (bed.staged / "orphan" / "x").write_bytes(b"x")
    await bed.begin("living")

    await bed.housekeeping.expire_uploads(bed.time)

    assert [each.name for each in bed.staged.iterdir()] == ["living"]


async def test_content_is_swept_only_when_it_is_old_and_unused(bed: Bed, tmp_path: Path):
    """Sweeping too much loses a model; too little fills the disk."""
    await bed.begin("u")
    await bed.send("u", WEIGHTS, b"s", offset=6)
    await bed.uploads.publish(CALL, "u", "", lambda _: b"")
    (tmp_path / "orphan").write_bytes(b"orphan")
    await bed.blobs.add(sha256(b"orphan"), tmp_path / "orphan")

    await bed.housekeeping.sweep_blobs(bed.time)
    assert await bed.blobs.size_bytes(sha256(b"orphan")) == 6

    await bed.housekeeping.sweep_blobs(datetime.now(UTC) + timedelta(hours=25))
    assert await bed.blobs.size_bytes(sha256(b"orphan")) is None
    for data in model_files().values():
        assert await bed.blobs.verified(sha256(data))
