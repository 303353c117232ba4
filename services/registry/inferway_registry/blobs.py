"""Content by its SHA-256. What is here is whole and was verified; nothing is ever changed, only added and swept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from inferway.errors import StoreUnavailable
from inferway_registry.staging import room
from inferway_registry.threads import in_thread

CHUNK_BYTES = 1 << 20
_PREFIX = "sha256"


class Blobs:
    """A blob store: a directory, or a bucket by URL.

    Every method raises StoreUnavailable if the store cannot be reached, and FileNotFoundError for content it lacks.
    """

    def __init__(self, store: ObjectStore, directory: Path | None = None) -> None:
        """`directory` is where `store` keeps its files if it is local; new content is then moved, not copied."""
        self._store = store
        self._directory = directory

    @classmethod
    def in_directory(cls, directory: Path) -> Blobs:
        """Content in files; the staged files must be on the same file system."""
        return cls(LocalStore(directory, mkdir=True), directory)

    @classmethod
    def at(cls, url: str) -> Blobs:
        """Content in a bucket: `s3://`, `gs://` or `az://`, with credentials from the environment."""
        return cls(from_url(url))

    async def size_bytes(self, sha256: str) -> int | None:
        """The content's length; None if it is not here."""
        try:
            return (await obstore.head_async(self._store, _key(sha256)))["size"]
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unavailable() from error

    async def add(self, sha256: str, source: Path) -> None:
        """Moves a verified, durable file in, all at once; raises StorageFull."""
        if self._directory is not None:
            await in_thread(_move, source, self._directory / _key(sha256))
            return
        try:
            await obstore.put_async(self._store, _key(sha256), source)
        except BaseError as error:
            raise _unavailable() from error
        await in_thread(source.unlink)

    async def read(self, sha256: str, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        """Yields the content from an offset, in chunks of at most `CHUNK_BYTES`; the reader sets the pace."""
        end = await self.size_bytes(sha256)
        if end is None:
            raise FileNotFoundError(sha256)
        if offset_bytes == end:
            return
        try:
            opened = await obstore.get_async(self._store, _key(sha256), options={"range": (offset_bytes, end)})
            async for block in opened.stream(min_chunk_size=CHUNK_BYTES):
                view = memoryview(block)
                for start in range(0, len(view), CHUNK_BYTES):
                    yield bytes(view[start : start + CHUNK_BYTES])
        except BaseError as error:
            raise _unavailable() from error

    async def verified(self, sha256: str) -> bool:
        """Whether the content is here and still has its digest."""
        digest = hashlib.sha256()
        try:
            async for chunk in self.read(sha256):
                await in_thread(digest.update, chunk)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    async def older_than(self, time: datetime) -> AsyncIterator[list[str]]:
        """Yields the digests of content added before a time, in groups."""
        try:
            async for group in obstore.list(self._store, prefix=_PREFIX):
                yield [entry["path"].rpartition("/")[2] for entry in group if entry["last_modified"] < time]
        except BaseError as error:
            raise _unavailable() from error

    async def delete(self, sha256: str) -> None:
        """Removes content; nothing happens if it is not here."""
        try:
            await obstore.delete_async(self._store, _key(sha256))
        except FileNotFoundError:
            return
        except BaseError as error:
            raise _unavailable() from error


def _key(sha256: str) -> str:
    return f"{_PREFIX}/{sha256[:2]}/{sha256}"


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("the registry's artifact store cannot be reached")


def _move(source: Path, target: Path) -> None:
    with room():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        for directory in (target.parent, target.parent.parent):
            _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
