"""Writes of single resources inside one transaction.

Nothing here decides: a `Writer` does as told, and the database's own constraints hold the last line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, insert, select, update

from inferway_registry.resources import Action, Alias, Endpoint, Event, Model, ModelVersion, Upload
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.split_check import Counts
from inferway_registry.store import codec, rollout_codec, schema
from inferway_registry.store.reader import GatewayReport, Reader


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which resource, with its etag before and after; empty where there was or is none."""

    audit_time: datetime
    principal: str
    method: str
    request_id: str
    resource: str
    action: Action
    etag_before: str
    etag_after: str


class Writer(Reader):
    """Writes within one transaction, which no other overlaps."""

    async def set_counters(self, revision: int, sequence: int) -> None:
        """Moves the counters."""
        await self._connection.execute(update(schema.counters).values(revision=revision, sequence=sequence))

    async def take_number(self, model: str) -> int:
        """The next version number of a model, whether or not the model exists or ever did."""
        table = schema.version_numbers
        rows = await self._rows(select(table.c.last_number).where(table.c.model == model))
        number = rows[0].last_number + 1 if rows else 1
        await self._replace(table, table.c.model == model, [{"model": model, "last_number": number}])
        return int(number)

    async def take_rollout_number(self, endpoint: str) -> int:
        """The next rollout number of an endpoint, likewise."""
        number, table = await self.next_rollout_number(endpoint), schema.rollout_numbers
        await self._replace(table, table.c.endpoint == endpoint, [{"endpoint": endpoint, "last_number": number}])
        return number

    async def put_model(self, model: str, create_time: datetime, revision: int) -> None:
        """Makes a model, or moves the revision of the one that is there."""
        table = schema.models
        changed = await self._connection.execute(update(table).where(table.c.model == model).values(revision=revision))
        if changed.rowcount == 0:
            await self._insert(table, [{"model": model, "create_time": create_time, "revision": revision}])

    async def change_model(self, model: Model) -> None:
        """Writes what may change of a model itself: version policy and revision."""
        table = schema.models
        changes = {"version_policy": codec.policy_to_json(model.version_policy), "revision": model.revision}
        await self._connection.execute(update(table).where(table.c.model == model.model).values(changes))

    async def delete_model(self, model: str) -> None:
        """Deletes a model with its aliases, versions and what they use; no arm may name it any more."""
        await self._delete(schema.aliases, schema.aliases.c.model == model)
        for number in (await self._numbers([model]))[model]:
            await self.delete_version(model, number)
        await self._delete(schema.models, schema.models.c.model == model)

    async def add_version(self, version: ModelVersion) -> None:
        """Adds a version to a model that is there, and takes its content into use."""
        row = {
            "model": version.model,
            "number": version.number,
            "state": version.state,
            "runtime": version.runtime,
            "manifest": codec.manifest_to_json(version.manifest),
            "signatures": codec.signatures_to_json(version.signatures),
            "config": codec.config_to_json(version.config),
            "create_time": version.create_time,
            "revision": version.revision,
        }
        await self._insert(schema.versions, [row])
        await self._use_blobs(version.name, (artifact.sha256 for artifact in version.manifest.artifacts))

    async def change_version(self, version: ModelVersion) -> None:
        """Writes what may change of a version: state, serving options and revision."""
        table = schema.versions
        same = (table.c.model == version.model, table.c.number == version.number)
        changes = {
            "state": version.state,
            "serving_options": codec.options_to_json(version.serving_options),
            "revision": version.revision,
        }
        await self._connection.execute(update(table).where(*same).values(changes))

    async def delete_version(self, model: str, number: int) -> None:
        """Deletes a version that no arm or alias names."""
        version = await self.version(model, number)
        if version is not None:
            await self._delete(schema.versions, schema.versions.c.model == model, schema.versions.c.number == number)
            await self._delete(schema.blob_uses, schema.blob_uses.c.used_by == version.name)

    async def put_alias(self, model: str, alias: Alias) -> None:
        """Puts an alias on a version, wherever it stood."""
        row = {"model": model, "alias": alias.alias, "number": alias.number}
        same = (schema.aliases.c.model == model) & (schema.aliases.c.alias == alias.alias)
        await self._replace(schema.aliases, same, [row])

    async def delete_alias(self, model: str, alias: str) -> None:
        """Removes an alias."""
        await self._delete(schema.aliases, schema.aliases.c.model == model, schema.aliases.c.alias == alias)

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        """Writes an endpoint and its arms as they are, new or not; its rollout is written by itself."""
        await self.delete_endpoint(endpoint.endpoint)
        row = {
            "endpoint": endpoint.endpoint,
            "salt": endpoint.salt,
            "generation": endpoint.generation,
            "automatic": endpoint.automatic,
            "next_number": endpoint.next_number,
            "create_time": endpoint.create_time,
            "revision": endpoint.revision,
            "stream_policy": endpoint.stream_policy,
            "match_rules": codec.rules_to_json(endpoint.match_rules),
        }
        arms = [
            {
                "endpoint": endpoint.endpoint,
                "position": position,
                "arm": arm.arm,
                "model": arm.model,
                "number": arm.number,
                "weight_basis_points": arm.weight_basis_points,
            }
            for position, arm in enumerate(endpoint.arms)
        ]
        await self._insert(schema.endpoints, [row])
        await self._insert(schema.arms, arms)

    async def delete_endpoint(self, endpoint: str) -> None:
        """Deletes an endpoint and its arms."""
        await self._delete(schema.arms, schema.arms.c.endpoint == endpoint)
        await self._delete(schema.endpoints, schema.endpoints.c.endpoint == endpoint)

    async def add_rollout(self, rollout: Rollout) -> None:
        """Adds a rollout; an active one only where no other is."""
        row = {
            "endpoint": rollout.endpoint,
            "number": rollout.number,
            "active": rollout.active,
            "create_revision": rollout.revision,
            "rollout": rollout_codec.rollout_to_json(rollout),
        }
        await self._insert(schema.rollouts, [row])

    async def change_rollout(self, rollout: Rollout) -> None:
        """Writes where a rollout stands."""
        table = schema.rollouts
        same = (table.c.endpoint == rollout.endpoint, table.c.number == rollout.number)
        changes = {"active": rollout.active, "rollout": rollout_codec.rollout_to_json(rollout)}
        await self._connection.execute(update(table).where(*same).values(changes))

    async def delete_rollout(self, endpoint: str, number: int) -> None:
        """Deletes a rollout with its reports and samples."""
        for table in (schema.rollout_reports, schema.rollout_samples, schema.rollouts):
            await self._delete(table, table.c.endpoint == endpoint, table.c.number == number)

    async def put_report(self, endpoint: str, number: int, report: GatewayReport) -> None:
        """Puts what a gateway says of a rollout in the place of what it said before."""
        table = schema.rollout_reports
        row = {"endpoint": endpoint, "number": number, **asdict(report)}
        of_rollout = (table.c.endpoint == endpoint) & (table.c.number == number)
        await self._replace(table, of_rollout & (table.c.gateway == report.gateway), [row])

    async def put_split_report(self, endpoint: str, gateway: str, generation: int, counts: Counts) -> None:
        """Puts what a gateway has counted in the place of its last report; those of other generations go."""
        table = schema.split_reports
        row = {"endpoint": endpoint, "gateway": gateway, "generation": generation, "arms": codec.counts_to_json(counts)}
        outdated = (table.c.gateway == gateway) | (table.c.generation != generation)
        await self._replace(table, (table.c.endpoint == endpoint) & outdated, [row])

    async def delete_split_reports(self, endpoint: str) -> None:
        """Deletes what was counted of an endpoint."""
        await self._delete(schema.split_reports, schema.split_reports.c.endpoint == endpoint)

    async def add_sample(self, endpoint: str, number: int, sampled_at: datetime, sample: bytes) -> None:
        """Adds a sample of a rollout's figures."""
        row = {"endpoint": endpoint, "number": number, "sampled_at": sampled_at, "sample": sample}
        await self._insert(schema.rollout_samples, [row])

    async def add_upload(self, upload: Upload) -> None:
        """Adds an upload, and keeps the content that it will use from being swept."""
        row = {
            "upload": upload.upload,
            "model": upload.model,
            "runtime": upload.runtime,
            "manifest": codec.manifest_to_json(upload.manifest),
            "config": codec.config_to_json(upload.config),
            "expire_time": upload.expire_time,
        }
        await self._insert(schema.uploads, [row])
        await self._use_blobs(upload.name, (artifact.sha256 for artifact in upload.manifest.artifacts))

    async def extend_upload(self, upload: str, expire_time: datetime) -> None:
        """Gives an upload more time."""
        table = schema.uploads
        await self._connection.execute(update(table).where(table.c.upload == upload).values(expire_time=expire_time))

    async def delete_upload(self, upload: Upload) -> None:
        """Deletes an upload and lets its content go."""
        await self._delete(schema.uploads, schema.uploads.c.upload == upload.upload)
        await self._delete(schema.blob_uses, schema.blob_uses.c.used_by == upload.name)

    async def add_events(self, events: Iterable[Event]) -> None:
        """Appends to the catalogue's log."""
        rows = [
            {
                "sequence": event.sequence,
                "event_time": event.event_time,
                "resource": event.resource,
                "action": event.action,
                "revision": event.revision,
                "principal": event.principal,
                "details": dict(event.details),
            }
            for event in events
        ]
        await self._insert(schema.events, rows)

    async def add_audit(self, entries: Iterable[AuditEntry]) -> None:
        """Appends to the audit log."""
        await self._insert(
            schema.audit,
            [{field: getattr(entry, field) for field in AuditEntry.__slots__} for entry in entries],
        )

    async def save_answer(self, request_id: str, digest: str, answer: bytes, now: datetime) -> None:
        """Keeps what a request was answered."""
        row = {"request_id": request_id, "digest": digest, "answer": answer, "answered_at": now}
        await self._insert(schema.requests, [row])

    async def forget_answers(self, before: datetime) -> None:
        """Drops answers given before a time."""
        await self._delete(schema.requests, schema.requests.c.answered_at < before)

    async def _use_blobs(self, used_by: str, digests: Iterable[str]) -> None:
        await self._insert(
            schema.blob_uses, [{"sha256": sha256, "used_by": used_by} for sha256 in sorted(set(digests))]
        )

    async def _insert(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            await self._connection.execute(insert(table), rows)

    async def _delete(self, table: Table, *where: ColumnElement[bool]) -> None:
        await self._connection.execute(delete(table).where(*where))

    async def _replace(self, table: Table, same: ColumnElement[bool], rows: Sequence[dict[str, Any]]) -> None:
        await self._delete(table, same)
        await self._insert(table, rows)
