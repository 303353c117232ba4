"""`RolloutService`: converts, calls, converts."""
# ruff: noqa: D102, N802 - the protos name and document the methods

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from inferway import names
from inferway.registry.v1 import rollout_service_pb2 as pb
from inferway_registry import paging, rollout_changes
from inferway_registry.convert_figures import full_message
from inferway_registry.convert_rollout_spec import spec, text
from inferway_registry.convert_rollouts import rollout_message
from inferway_registry.ledger import Ledger
from inferway_registry.lookout import Lookout
from inferway_registry.once import ANONYMOUS, once
from inferway_registry.rollout_changes import Beginning, Decision
from inferway_registry.rollouts import commands
from inferway_registry.store.sql import Store

_Command = pb.PauseRolloutRequest | pb.ResumeRolloutRequest | pb.PromoteRolloutRequest | pb.AbortRolloutRequest
R = TypeVar("R", pb.PauseRolloutResponse, pb.ResumeRolloutResponse, pb.PromoteRolloutResponse, pb.AbortRolloutResponse)

_NEWEST = (1 << 63) - 1
_ALL = "endpoints/-"
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class RolloutServicer:
    """Rollouts."""

    store: Store
    ledger: Ledger
    lookout: Lookout

    async def CreateRollout(self, request: pb.CreateRolloutRequest, _: object) -> pb.CreateRolloutResponse:
        endpoint, asked = names.parse(request.parent, "endpoints", "parent"), spec(request.rollout.spec)
        beginning = Beginning(endpoint, asked, _salt(), request.supersede)
        if request.validate_only:
            async with self.store.reading() as rows:
                planned = await rollout_changes.planned(rows, beginning, ANONYMOUS, self.lookout.now())
            return pb.CreateRolloutResponse(rollout=rollout_message(planned))
        return await once(
            self.ledger,
            request,
            lambda change: rollout_changes.create(change, beginning, self.lookout.now()),
            lambda rollout: pb.CreateRolloutResponse(rollout=rollout_message(rollout)),
            pb.CreateRolloutResponse,
        )

    async def GetRollout(self, request: pb.GetRolloutRequest, _: object) -> pb.GetRolloutResponse:
        endpoint, number = names.parse_rollout(request.name)
        async with self.store.reading() as rows:
            rollout = await rollout_changes.require_rollout(rows, endpoint, number)
            sight = await self.lookout.look(rows, rollout)
            samples = await rows.samples(endpoint, rollout.number) if request.samples_requested else ()
        return pb.GetRolloutResponse(rollout=full_message(rollout, sight, samples))

    async def ListRollouts(self, request: pb.ListRolloutsRequest, _: object) -> pb.ListRolloutsResponse:
        endpoint = "" if request.parent == _ALL else names.parse(request.parent, "endpoints", "parent")
        listing = f"rollouts of {endpoint}"
        size, before = paging.read_size(request.page_size), paging.read_number(listing, request.page_token, _NEWEST)
        async with self.store.reading() as rows:
            found = await rows.rollouts(endpoint, before, size + 1)
        page, token = paging.cut(listing, found, size, lambda placed: str(placed[0]))
        return pb.ListRolloutsResponse(
            rollouts=[rollout_message(rollout) for _, rollout in page], next_page_token=token
        )

    async def PauseRollout(self, request: pb.PauseRolloutRequest, _: object) -> pb.PauseRolloutResponse:
        return await self._command(request, request.etag, commands.pause, pb.PauseRolloutResponse)

    async def ResumeRollout(self, request: pb.ResumeRolloutRequest, _: object) -> pb.ResumeRolloutResponse:
        return await self._command(request, request.etag, commands.resume, pb.ResumeRolloutResponse)

    async def PromoteRollout(self, request: pb.PromoteRolloutRequest, _: object) -> pb.PromoteRolloutResponse:
        promote = partial(commands.promote, full=request.full)
        return await self._command(request, request.etag, promote, pb.PromoteRolloutResponse)

    async def AbortRollout(self, request: pb.AbortRolloutRequest, _: object) -> pb.AbortRolloutResponse:
        abort = partial(commands.abort, reason=text(request.reason, "reason"))
        return await self._command(request, "", abort, pb.AbortRolloutResponse)

    async def RetryRollout(self, request: pb.RetryRolloutRequest, _: object) -> pb.RetryRolloutResponse:
        endpoint, number = names.parse_rollout(request.name)
        salt = _salt()
        return await once(
            self.ledger,
            request,
            lambda change: rollout_changes.retry(change, endpoint, number, salt, self.lookout.now()),
            lambda rollout: pb.RetryRolloutResponse(rollout=rollout_message(rollout)),
            pb.RetryRolloutResponse,
        )

    async def _command(self, request: _Command, etag: str, decide: Decision, response: type[R]) -> R:
        endpoint, number = names.parse_rollout(request.name)
        return await once(
            self.ledger,
            request,
            lambda change: rollout_changes.command(change, endpoint, number, etag, decide, self.lookout.now()),
            lambda rollout: response(rollout=rollout_message(rollout)),
            response,
        )


def _salt() -> str:
    return secrets.token_hex(_SALT_BYTES)
