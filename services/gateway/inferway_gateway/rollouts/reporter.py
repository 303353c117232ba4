"""Tells the registry what was counted: every second, and at once when there is news. The registry may be away.

Reports are cumulative, so one that is lost is made up for by the next.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import grpc

from inferway.registry.v1.outcome_service_pb2_grpc import OutcomeServiceStub
from inferway_chassis.channel import open_channel
from inferway_gateway.rollouts.messages import to_report
from inferway_gateway.rollouts.rollouts import Rollouts

_LOG = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
DEADLINE_SECONDS = 2.0


class Reporter:
    """Sends nothing while there is neither a rollout nor a split."""

    def __init__(self, target: str, gateway: str, rollouts: Rollouts) -> None:
        """Reports to the registry at `target` (`host:port`); `gateway` names this process, new with every start."""
        self._target, self._gateway, self._rollouts = target, gateway, rollouts
        self._news = asyncio.Event()
        self.failed = 0
        """Reports that the registry did not take."""

    def wake(self) -> None:
        """Something shall be told at once."""
        self._news.set()

    async def run(self) -> None:
        """Reports until it is cancelled."""
        async with open_channel(self._target) as channel:
            stub = OutcomeServiceStub(channel)
            while True:
                await self._wait()
                if not await self._report(stub):
                    await asyncio.sleep(PERIOD_SECONDS)

    async def _wait(self) -> None:
        """Until there is news, or for a period; if nothing is counted only for news."""
        counts = self._rollouts.trials or self._rollouts.splits
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_SECONDS if counts else None):
                await self._news.wait()
        self._news.clear()

    async def _report(self, stub: OutcomeServiceStub) -> bool:
        trials, splits = self._rollouts.trials, self._rollouts.splits.grown()
        if not trials and not splits:
            return True
        try:
            await stub.ReportOutcomes(to_report(self._gateway, trials, splits), timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            self.failed += 1
            _LOG.info("the registry takes no report; counting goes on", extra={"cause": error.code().name})
            return False
        for split, size in splits.items():
            split.told(size)
        return True
