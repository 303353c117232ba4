"""Staged files and blobs on a real disk."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inferway.errors import StorageFull
from inferway_registry.blobs import Blobs
from inferway_registry.staging import Staging
from inferway_registry.threads import in_thread
from tests.unit.registry.graphs import sha256

MIB = 1 << 20


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The operating system refuses to let a file grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_hashing_goes_on_after_a_break(tmp_path: Path):
    """A resumed upload is verified as a whole, not in parts."""
    staging, digest = Staging(tmp_path), sha256(b"onetwo")
    first = await staging.open("u", digest)
    first.append(b"one")
    first.close()

    second = await staging.open("u", digest)
    second.append(b"two")
    second.close()

    assert (second.sha256, staging.staged_bytes("u", digest)) == (digest, 6)


async def test_no_room_is_said_and_what_fitted_counts(tmp_path: Path):
    """The client resumes from there when there is room again."""
    staging = Staging(tmp_path)
    file = await staging.open("u", "digest")

    with largest_file(MIB), pytest.raises(StorageFull):
        file.append(b"x" * (MIB + 1))
    file.close()

    assert staging.staged_bytes("u", "digest") == MIB


async def test_content_is_added_whole_and_found_by_digest(tmp_path: Path):
    """Added twice it is still once, and the staged file is gone."""
    blobs, digest = Blobs.in_directory(tmp_path / "blobs"), sha256(b"content")
    for _ in range(2):
        source = tmp_path / "source"
        source.write_bytes(b"content")
        await blobs.add(digest, source)

    assert not source.exists()
    assert await blobs.size_bytes(digest) == 7
    assert await blobs.verified(digest)


async def test_content_that_rotted_is_noticed(tmp_path: Path):
    """Disks lie."""
    blobs, digest = Blobs.in_directory(tmp_path / "blobs"), sha256(b"content")
    (tmp_path / "source").write_bytes(b"c0ntent")
    await blobs.add(digest, tmp_path / "source")

    assert not await blobs.verified(digest)
    assert not await blobs.verified(sha256(b"never was"))


async def test_a_bucket_behaves_like_a_directory(tmp_path: Path):
    """S3 is a URL; memory stands for it."""
    blobs, digest = Blobs.at("memory:///"), sha256(b"content")
    (tmp_path / "source").write_bytes(b"content")
    await blobs.add(digest, tmp_path / "source")

    assert b"".join([chunk async for chunk in blobs.read(digest, 3)]) == b"tent"
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [entry async for group in blobs.older_than(later) for entry in group] == [digest]
    await blobs.delete(digest)
    await blobs.delete(digest)
    assert await blobs.size_bytes(digest) is None


async def test_a_cancelled_caller_waits_for_its_thread():
    """Otherwise the next writer of the file would write at the same time."""
    entered, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    finished = False

    def work() -> None:
        nonlocal finished
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)
        finished = True

    task = asyncio.ensure_future(in_thread(work))
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    release.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished
