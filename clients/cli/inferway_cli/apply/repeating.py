"""Asks the registry until it answers: under one request id, so that what is asked for happens once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from inferway.errors import Unavailable

T = TypeVar("T")
RETRY_SECONDS = (0.2, 0.5, 1.0)
"""Pauses before it is asked again."""


async def answered(ask: Callable[[str], Awaitable[T]]) -> T:
    """What `ask` returns for a fresh request id; it is asked again, with the same one, if the registry is away.

    Raises what it raises, Unavailable when that is the answer for too long.
    """
    request_id = str(uuid.uuid4())
    for pause_seconds in RETRY_SECONDS:
        try:
            return await ask(request_id)
        except Unavailable:
            await asyncio.sleep(pause_seconds)
    return await ask(request_id)
