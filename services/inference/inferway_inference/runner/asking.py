"""One call as something to await, for whoever loads a version; traffic has no time for futures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from inferway_inference.runner.base import Outcome, Runner
from inferway_inference.tensors import Array


class Reply(NamedTuple):
    """Outputs, as copies, and how long the runtime took."""

    outputs: list[Array]
    seconds: float


async def ask(runner: Runner, signature: int, inputs: Sequence[Array], output_count: int) -> Reply:
    """Computes the first outputs of `signature` (position); raises the call's error."""
    done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def finish(outcome: Outcome) -> None:
        if done.cancelled():
            return
        if outcome.error is not None:
            done.set_exception(outcome.error)
        else:
            outputs = [Array(one.datatype, one.shape, (bytes(one.parts[0]),)) for one in outcome.outputs]
            done.set_result(Reply(outputs, (outcome.ended_ns - outcome.started_ns) / 1e9))

    runner.call(signature, inputs, tuple(range(output_count)), finish)
    return await done
