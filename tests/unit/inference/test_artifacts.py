"""Files on disk: whole and verified, or not there."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferway.errors import DigestMismatch, InvalidPath, StoreUnavailable
from inferway_inference.artifacts import ArtifactStore, check_manifest
from inferway_inference.versions import Artifact, Manifest

VERSION = "models/m/versions/1"
FILES = {"saved_model.pb": b"graph" * 1000, "variables/variables.index": b"index"}


def manifest(files: dict[str, bytes]) -> Manifest:
    """As the registry makes it."""
    artifacts = tuple(
        Artifact(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())
    )
    lines = "".join(f"{artifact.sha256}  {artifact.path}\n" for artifact in artifacts)
    return Manifest(hashlib.sha256(lines.encode()).hexdigest(), artifacts)


class Source:
    """Files in memory; breaks off where it is told to."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.reads = files, list[tuple[str, int]]()
        self.break_after: int | None = None

    async def read(self, version: str, path: str, offset: int, size_bytes: int) -> AsyncIterator[bytes]:
        """Ten bytes at a time."""
        self.reads.append((path, offset))
        for position in range(offset, len(self.files[path]), 10):
            if self.break_after is not None and position >= self.break_after:
                raise StoreUnavailable("gone")
            yield self.files[path][position : position + 10]


async def test_files_arrive_and_are_fetched_once(tmp_path: Path):
    """A restart must not need the registry."""
    source = Source(FILES)
    store = ArtifactStore(tmp_path, source)
    folder = await store.fetch(VERSION, manifest(FILES))
    await store.fetch(VERSION, manifest(FILES))

    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert len(source.reads) == len(FILES)


async def test_a_broken_download_goes_on_where_it_was(tmp_path: Path):
    """A large model over a bad line would never arrive otherwise."""
    files = {"saved_model.pb": bytes(1000)}
    source = Source(files)
    source.break_after = 500
    store = ArtifactStore(tmp_path, source)
    with pytest.raises(StoreUnavailable):
        await store.fetch(VERSION, manifest(files))
    assert os.listdir(tmp_path) == [f"{manifest(files).digest}.partial"], "nothing half there is visible"  # noqa: PTH208

    source.break_after = None
    await store.fetch(VERSION, manifest(files))
    assert source.reads == [("saved_model.pb", 0), ("saved_model.pb", 500)]


async def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path):
    """A model that is not the published one must not run, and the next attempt must not build on it."""
    store = ArtifactStore(tmp_path, Source({**FILES, "saved_model.pb": b"other" * 1000}))
    with pytest.raises(DigestMismatch, match=r"saved_model\.pb"):
        await store.fetch(VERSION, manifest(FILES))
    store = ArtifactStore(tmp_path, Source(FILES))

    assert (await store.fetch(VERSION, manifest(FILES)) / "saved_model.pb").read_bytes() == FILES["saved_model.pb"]


async def test_a_file_that_rotted_on_disk_is_fetched_again(tmp_path: Path):
    """Disks forget; a version that was good last week is verified before each load."""
    store = ArtifactStore(tmp_path, Source(FILES))
    folder = await store.fetch(VERSION, manifest(FILES))
    (folder / "saved_model.pb").write_bytes(b"rotten")
    folder = await store.fetch(VERSION, manifest(FILES))

    assert (folder / "saved_model.pb").read_bytes() == FILES["saved_model.pb"]


async def test_versions_with_the_same_content_are_fetched_once_at_a_time(tmp_path: Path):
    """Two loads that write the same file would break each other."""
    source = Source(FILES)
    store = ArtifactStore(tmp_path, source)
    await asyncio.gather(*(store.fetch(f"models/m/versions/{n}", manifest(FILES)) for n in (1, 2)))

    assert len(source.reads) == len(FILES)


async def test_files_that_no_version_has_are_deleted(tmp_path: Path):
    """Disks fill up."""
    store = ArtifactStore(tmp_path, Source(FILES))
    folder = await store.fetch(VERSION, manifest(FILES))
    await store.sweep({manifest(FILES).digest})
    assert folder.is_dir()
    await store.sweep(set())
    assert not folder.exists()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", "a//b", "", ".", "a\\b", "a/\0"])
def test_paths_that_lead_elsewhere_are_refused(path: str):
    """The registry checked them; a manifest from the network is still not to be trusted with our disk."""
    with pytest.raises(InvalidPath):
        check_manifest(manifest({path: b""}))


@pytest.mark.parametrize("digest", ["", "0" * 64, "../../x"])
def test_a_manifest_with_another_digest_is_refused(digest: str):
    """The digest names the folder."""
    with pytest.raises(DigestMismatch):
        check_manifest(Manifest(digest, manifest(FILES).artifacts))
