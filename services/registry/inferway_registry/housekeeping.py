"""What the registry clears away by itself: abandoned uploads, their files, and content that nobody uses."""

from __future__ import annotations

from datetime import datetime, timedelta

from inferway_registry.blobs import Blobs
from inferway_registry.ledger import OF_REGISTRY, Call, Change, Ledger
from inferway_registry.resources import Action
from inferway_registry.staging import Staging
from inferway_registry.store.sql import Store


class Housekeeping:
    """Safe to run at any time, beside uploads in progress."""

    def __init__(self, store: Store, ledger: Ledger, staging: Staging, blobs: Blobs, orphan_age: timedelta) -> None:
        """`orphan_age` is how old unused content must be to be deleted."""
        self._store = store
        self._ledger = ledger
        self._staging = staging
        self._blobs = blobs
        self._orphan_age = orphan_age

    async def expire_uploads(self, now: datetime) -> None:
        """Gives up uploads whose time is over, and frees the files of uploads that are gone."""
        async with self._store.reading() as rows:
            expired = await rows.expired_upload_ids(now)
        for upload_id in expired:
            await self._expire(upload_id)
        # Staged files are listed first: an upload that begins meanwhile is then among the live ones.
        staged = await self._staging.uploads()
        async with self._store.reading() as rows:
            live = set(await rows.upload_ids())
        for upload_id in staged:
            if upload_id not in live:
                await self._staging.discard(upload_id)

    async def sweep_blobs(self, now: datetime) -> None:
        """Deletes old content that no version and no upload uses."""
        async for digests in self._blobs.older_than(now - self._orphan_age):
            async with self._store.reading() as rows:
                used = await rows.used_blobs(digests)
            for sha256 in digests:
                if sha256 not in used:
                    await self._sweep(sha256)

    async def _expire(self, upload_id: str) -> None:
        async def operation(change: Change) -> None:
            upload = await change.rows.upload(upload_id)
            if upload is not None and upload.expire_time <= change.now:
                await change.rows.delete_upload(upload)
                change.audited(upload.name, Action.DELETED)

        await self._ledger.apply(Call(OF_REGISTRY, "ExpireUpload"), operation)

    async def _sweep(self, sha256: str) -> None:
        # In a mutation's turn: no upload can begin to count on the content between the question and the deletion.
        async with self._store.writing() as rows:
            if not await rows.used_blobs([sha256]):
                await self._blobs.delete(sha256)
