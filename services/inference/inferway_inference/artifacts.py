"""Files of versions on this machine's disk, under the digest of their manifest.

    {root}/{digest}/…            whole and verified: made by one rename, so it is there entirely or not at all
    {root}/{digest}.partial/…    being downloaded; what is there is resumed

Versions with the same content share a folder. Every file is hashed again before each load: disks forget.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Protocol

from inferway.errors import DigestMismatch, InvalidPath
from inferway_inference.versions import Artifact, Manifest

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMPONENT = re.compile(r"[A-Za-z0-9._-]+")
_READ_BYTES = 1024 * 1024


class ArtifactSource(Protocol):
    """Where files come from."""

    def read(self, version: str, path: str, offset: int, size_bytes: int) -> AsyncIterator[bytes]:
        """Yields the rest of a file of `size_bytes` in order, from `offset`; raises InferwayError."""


class ArtifactStore:
    """The files below one folder. Only this process writes there."""

    def __init__(self, root: Path, source: ArtifactSource, max_parallel: int = 4) -> None:
        """Downloads at most `max_parallel` files at once."""
        self._root, self._source = root, source
        self._slots = asyncio.Semaphore(max_parallel)
        self._locks: dict[str, asyncio.Lock] = {}

    async def fetch(self, version: str, manifest: Manifest) -> Path:
        """The folder with the files of `manifest`, verified now.

        Raises DigestMismatch, InvalidPath, or the source's errors.
        """
        check_manifest(manifest)
        async with self._locks.setdefault(manifest.digest, asyncio.Lock()):
            final = self._root / manifest.digest
            if await asyncio.to_thread(_is_intact, final, manifest):
                return final
            await asyncio.to_thread(shutil.rmtree, final, ignore_errors=True)
            partial = final.with_suffix(".partial")
            await self._download_all(version, manifest, partial)
            await asyncio.to_thread(_complete, partial, final)
            return final

    async def sweep(self, keep: Collection[str]) -> None:
        """Deletes the files of every manifest whose digest is not in `keep`."""
        await asyncio.to_thread(_sweep, self._root, keep)

    async def _download_all(self, version: str, manifest: Manifest, partial: Path) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for artifact in manifest.artifacts:
                    group.create_task(self._download(version, artifact, partial / artifact.path))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _download(self, version: str, artifact: Artifact, path: Path) -> None:
        async with self._slots:
            digest, done = await asyncio.to_thread(_resume, path, artifact.size_bytes)
            if done < artifact.size_bytes:
                async for chunk in self._source.read(version, artifact.path, done, artifact.size_bytes):
                    await asyncio.to_thread(_append, path, chunk, digest)
                    done += len(chunk)
            if done != artifact.size_bytes or digest.hexdigest() != artifact.sha256:
                await asyncio.to_thread(path.unlink)
                raise _mismatch(artifact, digest.hexdigest())
            await asyncio.to_thread(_sync, path)


def check_manifest(manifest: Manifest) -> None:
    """Raises InvalidPath or DigestMismatch for a manifest that does not add up: it names files on our disk."""
    total = hashlib.sha256()
    for artifact in manifest.artifacts:
        parts = artifact.path.split("/")
        if not all(_COMPONENT.fullmatch(part) and part.strip(".") for part in parts):
            raise InvalidPath(f"the manifest has the path {artifact.path[:255]!r}", path=artifact.path[:255])
        total.update(f"{artifact.sha256}  {artifact.path}\n".encode())
    if not _DIGEST.fullmatch(manifest.digest) or manifest.digest != total.hexdigest():
        raise DigestMismatch(
            "the manifest's digest is not that of its files", expected=manifest.digest[:64], actual=total.hexdigest()
        )


def _is_intact(folder: Path, manifest: Manifest) -> bool:
    if not folder.is_dir():
        return False
    return all(_hash(folder / artifact.path) == artifact.sha256 for artifact in manifest.artifacts)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _resume(path: Path, size_bytes: int) -> tuple[hashlib._Hash, int]:
    """Hash and length of what is there; it begins anew if it is longer than it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, done = hashlib.sha256(), 0
    with path.open("a+b") as file:
        if file.tell() > size_bytes:
            file.truncate(0)
        file.seek(0)
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            done += len(chunk)
    return digest, done


def _append(path: Path, chunk: bytes, digest: hashlib._Hash) -> None:
    """Opens the file each time: a download that is cancelled then leaves none open."""
    with path.open("ab") as file:
        file.write(chunk)
    digest.update(chunk)


def _complete(partial: Path, final: Path) -> None:
    for folder in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
        _sync(folder)
    partial.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(root: Path, keep: Collection[str]) -> None:
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name.removesuffix(".partial") not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def _mismatch(artifact: Artifact, actual: str) -> DigestMismatch:
    return DigestMismatch(
        f"{artifact.path} is not what its manifest says: the download has another SHA-256 or length",
        path=artifact.path,
        expected=artifact.sha256,
        actual=actual,
    )
