"""Sends a thousand images on one stream: `python examples/stream.py [HOST:PORT]`.

A stream is the fastest way to ask much: no call is set up for each item, answers come as they are ready, a bad item
fails alone, and the server says how many items it wants at once.
"""

import asyncio
import sys
import time
from collections.abc import Iterator

import numpy as np

from inferway.errors import InferwayError
from inferway_client import Client
from inferway_client.tensors import Array

IMAGES = 1000


def images() -> Iterator[dict[str, Array]]:
    """Made-up images, one row each; one of them has the wrong size."""
    generator = np.random.default_rng(7)
    for number in range(IMAGES):
        pixels = 63 if number == IMAGES // 2 else 64
        yield {"image": generator.random((1, pixels), np.float32)}


async def main(target: str) -> None:
    """Counts answers and says which item failed."""
    answered = 0
    started = time.perf_counter()
    async with Client(target) as client, client.stream("digits") as stream:
        async for result in stream.map(images()):
            if result.error is None:
                answered += 1
            else:
                print(f"item {result.id}: {result.error}")
    print(f"{answered} answers, {IMAGES / (time.perf_counter() - started):,.0f} items a second")


if __name__ == "__main__":
    try:
        asyncio.run(main(*(sys.argv[1:] or ["127.0.0.1:8001"])))
    except InferwayError as error:
        sys.exit(f"error: {error}")
