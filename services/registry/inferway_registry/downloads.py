"""Files of published versions, for those who serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from inferway.errors import ArtifactNotFound, StoreUnavailable, UploadOffsetMismatch
from inferway_registry import catalogue
from inferway_registry.blobs import Blobs
from inferway_registry.store.sql import Store
from inferway_registry.wording import shown


class Downloads:
    """Reads artifacts."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def read(self, model: str, number: int, path: str, offset_bytes: int) -> AsyncIterator[bytes]:
        """Yields a file from an offset, in chunks; the reader sets the pace.

        Raises VersionNotFound, ArtifactNotFound, UploadOffsetMismatch for an offset outside the file, or
        StoreUnavailable.
        """
        async with self._store.reading() as rows:
            version = await catalogue.require_version(rows, model, number)
        artifact = version.manifest.artifact(path)
        if artifact is None:
            raise ArtifactNotFound(
                f"{version.name} has no file {shown(path)!r}", version=version.name, path=shown(path)
            )
        if not 0 <= offset_bytes <= artifact.size_bytes:
            raise UploadOffsetMismatch(
                f"{path} has {artifact.size_bytes} bytes; {offset_bytes} is outside",
                path=path,
                expected=f"0 to {artifact.size_bytes}",
                actual=offset_bytes,
            )
        try:
            async for chunk in self._blobs.read(artifact.sha256, offset_bytes):
                yield chunk
        except FileNotFoundError as error:
            raise StoreUnavailable(f"the content of {path} is missing in the registry's artifact store") from error
