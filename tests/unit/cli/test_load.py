"""The load generator's bookkeeping over streams that break."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from inferway.errors import Unreachable
from inferway_cli.load import Load, Plan
from inferway_client import Client
from inferway_client.results import Prediction, StreamResult

ANSWERS_BEFORE_THE_BREAK = 5


class BreakingClient:
    """Its streams answer a few items, take one more, and are lost; every other one cannot be opened at all."""

    def __init__(self) -> None:
        self.taken = 0
        self.refused = 0
        self._streams = 0

    def stream(self, _endpoint: str, **_options: Any) -> BreakingStream:
        """The next stream."""
        self._streams += 1
        return BreakingStream(self, refused=self._streams % 2 == 0)


class BreakingStream:
    """One of them."""

    max_in_flight = 4

    def __init__(self, client: BreakingClient, *, refused: bool) -> None:
        self._client = client
        self._refused = refused

    async def __aenter__(self) -> Self:
        """Opens, or does not."""
        if self._refused:
            self._client.refused += 1
            raise Unreachable("cannot reach it")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to end."""

    async def map(self, items: AsyncIterator[Any]) -> AsyncIterator[StreamResult]:
        """A few answers, then the loss."""
        number = 0
        async for _ in items:
            self._client.taken += 1
            if number == ANSWERS_BEFORE_THE_BREAK:
                raise Unreachable("the connection broke")
            yield StreamResult(number, Prediction({}, "models/affine/versions/1", "p"), None)
            number += 1


async def test_every_request_of_a_schedule_counts_once_over_streams_that_break():
    """A figure that does not add up hides what was lost."""
    client = BreakingClient()
    plan = Plan("affine", None, [{"x": np.zeros(1)}], 1, 200.0, 0.5, 4, streamed=True, timeout_seconds=1.0)
    load = Load(plan, time.perf_counter)
    await load.run(cast(Client, client))
    summary = load.summary()
    assert client.refused > 0
    assert summary["requests"] == client.taken + client.refused
    assert summary["requests"] == summary["answers"] + sum(summary["errors"].values())
    assert summary["requests"] <= plan.rate * plan.seconds
