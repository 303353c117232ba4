"""Files of uploads while they arrive: `{directory}/{upload}/{sha256}`, appended to until they are whole.

The registry names them itself, so no path of a client is ever joined to a directory. What is on disk is the truth
about how far a file is; hashing starts over from it after any break.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferway.errors import StorageFull
from inferway_registry.threads import in_thread

_READ_BYTES = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StagedFile:
    """One file being appended to, and the hash of all it has. Not for concurrent use."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab+", buffering=0)
        self._hash = hashlib.sha256()
        self._file.seek(0)
        while block := self._file.read(_READ_BYTES):
            self._hash.update(block)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """Digest of the bytes on disk, unless an append has failed."""
        return self._hash.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Adds bytes; raises StorageFull, after which part of them may be there."""
        with room():
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        self._hash.update(chunk)

    def seal(self) -> None:
        """Makes what was appended survive a power cut; raises StorageFull."""
        with room():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the writing."""
        self._file.close()


class Staging:
    """The files of all uploads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, upload: str, sha256: str) -> Path:
        """Where content of an upload is staged; both names are the registry's own or checked."""
        return self._directory / upload / sha256

    def staged_bytes(self, upload: str, sha256: str) -> int:
        """How much of it is there."""
        try:
            return self.path(upload, sha256).stat().st_size
        except FileNotFoundError:
            return 0

    async def open(self, upload: str, sha256: str) -> StagedFile:
        """Opens content for appending, reading what is there; raises StorageFull."""
        return await in_thread(self._open, upload, sha256)

    async def discard(self, upload: str) -> None:
        """Deletes all files of an upload."""
        await in_thread(shutil.rmtree, self._directory / upload, ignore_errors=True)

    async def uploads(self) -> list[str]:
        """Uploads that have files here, live or not."""
        return await in_thread(self._uploads)

    def _open(self, upload: str, sha256: str) -> StagedFile:
        with room():
            return StagedFile(self.path(upload, sha256))

    def _uploads(self) -> list[str]:
        self._directory.mkdir(parents=True, exist_ok=True)
        return [entry.name for entry in self._directory.iterdir()]


@contextmanager
def room() -> Iterator[None]:
    """Turns the operating system's ways of saying that there is no room into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageFull("the registry's disk is full; free space on it, or push less") from error
