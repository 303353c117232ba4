"""Reads of single resources inside one transaction. What they mean together, the callers know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from inferway_registry.resources import (
    Action,
    Alias,
    Arm,
    Endpoint,
    Event,
    Model,
    ModelVersion,
    Runtime,
    StreamPolicy,
    Upload,
    VersionPolicy,
    VersionState,
)
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.split_check import Counts
from inferway_registry.store import codec, rollout_codec, schema

_IN_CHUNK = 500
"""Values in one IN list; databases limit the number of parameters."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Which database this is, and how far it has come."""

    epoch: str
    revision: int
    sequence: int


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """What a process of a gateway said of a rollout last: an encoded `RolloutOutcomes`."""

    gateway: str
    reported_at: datetime
    report: bytes


class Reader:
    """Reads within one transaction: all answers belong to the same moment."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def counters(self) -> Counters:
        """Epoch, revision and sequence."""
        row = (await self._rows(select(schema.counters)))[0]
        return Counters(row.epoch, row.revision, row.sequence)

    async def model(self, model: str) -> Model | None:
        """One model."""
        found = await self._models(select(schema.models).where(schema.models.c.model == model))
        return found[0] if found else None

    async def models(self, after: str, limit: int) -> list[Model]:
        """At most `limit` models whose names follow `after`, by name."""
        table = schema.models
        return await self._models(select(table).where(table.c.model > after).order_by(table.c.model).limit(limit))

    async def version(self, model: str, number: int) -> ModelVersion | None:
        """One version."""
        table = schema.versions
        rows = await self._rows(select(table).where(table.c.model == model, table.c.number == number))
        return _version(rows[0]) if rows else None

    async def versions(self, model: str, before: int, limit: int) -> list[ModelVersion]:
        """At most `limit` versions with numbers below `before`, newest first."""
        table = schema.versions
        query = select(table).where(table.c.model == model, table.c.number < before)
        return [_version(row) for row in await self._rows(query.order_by(table.c.number.desc()).limit(limit))]

    async def all_versions(self) -> list[ModelVersion]:
        """Every version, by model and number."""
        table = schema.versions
        return [_version(row) for row in await self._rows(select(table).order_by(table.c.model, table.c.number))]

    async def published_numbers(self, model: str) -> list[int]:
        """Numbers of the versions that may be served."""
        table = schema.versions
        query = select(table.c.number).where(table.c.model == model, table.c.state == VersionState.PUBLISHED)
        return [row.number for row in await self._rows(query)]

    async def all_aliases(self) -> dict[str, tuple[Alias, ...]]:
        """The aliases of every model that has any, ordered by model and alias."""
        return await self._aliases(None)

    async def all_policies(self) -> dict[str, VersionPolicy]:
        """The version policy of every model."""
        table = schema.models
        rows = await self._rows(select(table.c.model, table.c.version_policy))
        return {row.model: codec.policy_from_json(row.version_policy) for row in rows}

    async def endpoint(self, endpoint: str) -> Endpoint | None:
        """One endpoint."""
        table = schema.endpoints
        found = await self._endpoints(select(table).where(table.c.endpoint == endpoint))
        return found[0] if found else None

    async def endpoints(self, after: str = "", limit: int | None = None) -> list[Endpoint]:
        """Endpoints whose names follow `after`, by name."""
        table = schema.endpoints
        query = select(table).where(table.c.endpoint > after).order_by(table.c.endpoint)
        return await self._endpoints(query if limit is None else query.limit(limit))

    async def following_endpoints(self) -> list[Endpoint]:
        """Endpoints that wait for a version to be ready."""
        return await self._endpoints(select(schema.endpoints).where(schema.endpoints.c.next_number > 0))

    async def endpoints_naming(self, model: str, number: int | None = None) -> list[str]:
        """Endpoints with an arm on the version, or on any version of the model, by name."""
        table = schema.arms
        query = select(table.c.endpoint).where(table.c.model == model).distinct().order_by(table.c.endpoint)
        if number is not None:
            query = query.where(table.c.number == number)
        return [row.endpoint for row in await self._rows(query)]

    async def rollout(self, endpoint: str, number: int) -> Rollout | None:
        """One rollout."""
        table = schema.rollouts
        return await self._rollout(select(table).where(table.c.endpoint == endpoint, table.c.number == number))

    async def newest_rollout(self, endpoint: str) -> Rollout | None:
        """The one of an endpoint that began last."""
        table = schema.rollouts
        query = select(table).where(table.c.endpoint == endpoint).order_by(table.c.number.desc())
        return await self._rollout(query.limit(1))

    async def active_rollouts(self) -> list[Rollout]:
        """Every one that has not ended, by endpoint."""
        table = schema.rollouts
        rows = await self._rows(select(table).where(table.c.active).order_by(table.c.endpoint))
        return [rollout_codec.rollout_from_json(row.rollout) for row in rows]

    async def rollouts(self, endpoint: str, before: int, limit: int) -> list[tuple[int, Rollout]]:
        """At most `limit` of an endpoint, or of all if it is empty, newest first, each with its place in the list.

        Places are below `before`.
        """
        table = schema.rollouts
        query = select(table).where(table.c.create_revision < before).order_by(table.c.create_revision.desc())
        if endpoint:
            query = query.where(table.c.endpoint == endpoint)
        rows = await self._rows(query.limit(limit))
        return [(row.create_revision, rollout_codec.rollout_from_json(row.rollout)) for row in rows]

    async def rollout_numbers(self, endpoint: str) -> list[int]:
        """Numbers of an endpoint's rollouts, ascending."""
        table = schema.rollouts
        query = select(table.c.number).where(table.c.endpoint == endpoint).order_by(table.c.number)
        return [row.number for row in await self._rows(query)]

    async def next_rollout_number(self, endpoint: str) -> int:
        """The number that an endpoint's next rollout gets, whether or not the endpoint exists or ever did."""
        table = schema.rollout_numbers
        rows = await self._rows(select(table.c.last_number).where(table.c.endpoint == endpoint))
        return int(rows[0].last_number) + 1 if rows else 1

    async def reports(self, endpoint: str, number: int) -> list[GatewayReport]:
        """What gateways said of a rollout last, by gateway."""
        table = schema.rollout_reports
        query = select(table).where(table.c.endpoint == endpoint, table.c.number == number).order_by(table.c.gateway)
        return [GatewayReport(row.gateway, row.reported_at, row.report) for row in await self._rows(query)]

    async def reporting_gateways(self, endpoint: str, number: int) -> set[str]:
        """Those that have reported of a rollout."""
        table = schema.rollout_reports
        query = select(table.c.gateway).where(table.c.endpoint == endpoint, table.c.number == number)
        return {row.gateway for row in await self._rows(query)}

    async def split_reports(self, endpoint: str, generation: int) -> dict[str, Counts]:
        """What gateways have counted of an endpoint under its weights of that generation."""
        table = schema.split_reports
        query = select(table).where(table.c.endpoint == endpoint, table.c.generation == generation)
        return {row.gateway: codec.counts_from_json(row.arms) for row in await self._rows(query)}

    async def samples(self, endpoint: str, number: int) -> list[bytes]:
        """How a rollout's figures went, first to last."""
        table = schema.rollout_samples
        query = select(table.c.sample).where(table.c.endpoint == endpoint, table.c.number == number)
        return [row.sample for row in await self._rows(query.order_by(table.c.sampled_at))]

    async def last_sample_time(self, endpoint: str, number: int) -> datetime | None:
        """When a rollout's figures were last sampled."""
        table = schema.rollout_samples
        query = select(table.c.sampled_at).where(table.c.endpoint == endpoint, table.c.number == number)
        rows = await self._rows(query.order_by(table.c.sampled_at.desc()).limit(1))
        return rows[0].sampled_at if rows else None

    async def upload(self, upload: str) -> Upload | None:
        """One upload."""
        rows = await self._rows(select(schema.uploads).where(schema.uploads.c.upload == upload))
        return _upload(rows[0]) if rows else None

    async def upload_ids(self) -> list[str]:
        """Every upload."""
        return [row.upload for row in await self._rows(select(schema.uploads.c.upload))]

    async def expired_upload_ids(self, now: datetime) -> list[str]:
        """Uploads whose time is over."""
        query = select(schema.uploads.c.upload).where(schema.uploads.c.expire_time <= now)
        return [row.upload for row in await self._rows(query)]

    async def used_blobs(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that an upload or a version needs."""
        used: set[str] = set()
        for start in range(0, len(digests), _IN_CHUNK):
            wanted = digests[start : start + _IN_CHUNK]
            query = select(schema.blob_uses.c.sha256).where(schema.blob_uses.c.sha256.in_(wanted))
            used.update(row.sha256 for row in await self._rows(query))
        return used

    async def events(self, after: int, limit: int) -> list[Event]:
        """At most `limit` events that follow `after`, in order."""
        table = schema.events
        query = select(table).where(table.c.sequence > after).order_by(table.c.sequence).limit(limit)
        return [_event(row) for row in await self._rows(query)]

    async def answer(self, request_id: str) -> tuple[str, bytes] | None:
        """Digest of the request that had this id, and what it was answered."""
        table = schema.requests
        rows = await self._rows(select(table.c.digest, table.c.answer).where(table.c.request_id == request_id))
        return (rows[0].digest, rows[0].answer) if rows else None

    async def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        result = await self._connection.execute(query)
        rows: Sequence[Row[Any]] = result.all()
        return rows

    async def _models(self, query: Select[Any]) -> list[Model]:
        rows = await self._rows(query)
        names = [row.model for row in rows]
        aliases, numbers = await self._aliases(names), await self._numbers(names)
        return [
            Model(
                model=row.model,
                aliases=aliases.get(row.model, ()),
                numbers=tuple(numbers[row.model]),
                create_time=row.create_time,
                revision=row.revision,
                version_policy=codec.policy_from_json(row.version_policy),
            )
            for row in rows
        ]

    async def _aliases(self, models: Collection[str] | None) -> dict[str, tuple[Alias, ...]]:
        table = schema.aliases
        query = select(table).order_by(table.c.model, table.c.alias)
        found: dict[str, tuple[Alias, ...]] = {}
        for row in await self._rows(query if models is None else query.where(table.c.model.in_(models))):
            found[row.model] = (*found.get(row.model, ()), Alias(row.alias, row.number))
        return found

    async def _numbers(self, models: Collection[str]) -> dict[str, list[int]]:
        table = schema.versions
        query = select(table.c.model, table.c.number).where(table.c.model.in_(models)).order_by(table.c.number)
        found: dict[str, list[int]] = defaultdict(list)
        for row in await self._rows(query):
            found[row.model].append(row.number)
        return found

    async def _endpoints(self, query: Select[Any]) -> list[Endpoint]:
        rows = await self._rows(query)
        arms: dict[str, list[Arm]] = defaultdict(list)
        table = schema.arms
        chosen = query.with_only_columns(schema.endpoints.c.endpoint).subquery()
        of_chosen = table.c.endpoint.in_(select(chosen.c.endpoint))
        for row in await self._rows(select(table).where(of_chosen).order_by(table.c.endpoint, table.c.position)):
            arms[row.endpoint].append(Arm(row.arm, row.model, row.number, row.weight_basis_points))
        driven = {rollout.endpoint: rollout for rollout in await self.active_rollouts()}
        return [_endpoint(row, tuple(arms[row.endpoint]), driven.get(row.endpoint)) for row in rows]

    async def _rollout(self, query: Select[Any]) -> Rollout | None:
        rows = await self._rows(query)
        return rollout_codec.rollout_from_json(rows[0].rollout) if rows else None


def _version(row: Row[Any]) -> ModelVersion:
    return ModelVersion(
        model=row.model,
        number=row.number,
        state=VersionState(row.state),
        runtime=Runtime(row.runtime),
        manifest=codec.manifest_from_json(row.manifest),
        signatures=codec.signatures_from_json(row.signatures),
        config=codec.config_from_json(row.config),
        create_time=row.create_time,
        revision=row.revision,
        serving_options=codec.options_from_json(row.serving_options),
    )


def _endpoint(row: Row[Any], arms: tuple[Arm, ...], rollout: Rollout | None) -> Endpoint:
    return Endpoint(
        endpoint=row.endpoint,
        arms=arms,
        salt=row.salt,
        generation=row.generation,
        automatic=row.automatic,
        next_number=row.next_number,
        create_time=row.create_time,
        revision=row.revision,
        stream_policy=StreamPolicy(row.stream_policy),
        match_rules=codec.rules_from_json(row.match_rules),
        rollout=rollout,
    )


def _upload(row: Row[Any]) -> Upload:
    return Upload(
        upload=row.upload,
        model=row.model,
        runtime=Runtime(row.runtime),
        manifest=codec.manifest_from_json(row.manifest),
        config=codec.config_from_json(row.config),
        expire_time=row.expire_time,
    )


def _event(row: Row[Any]) -> Event:
    return Event(
        sequence=row.sequence,
        event_time=row.event_time,
        resource=row.resource,
        action=Action(row.action),
        revision=row.revision,
        principal=row.principal,
        details=row.details,
    )
