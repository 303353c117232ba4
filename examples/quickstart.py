"""Asks the demo model of `inferway up` for one digit: `python examples/quickstart.py [HOST:PORT]`."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from inferway.errors import InferwayError
from inferway_client import Client


async def main(target: str) -> None:
    """Sends the image in digit.json, a handwritten 3."""
    request = json.loads((Path(__file__).parent / "digit.json").read_text())
    image = np.array(request["inputs"][0]["floats"]["values"], np.float32).reshape(1, 64)
    async with Client(target) as client:
        prediction = await client.predict("digits", {"image": image}, timing=True)
    print(f"{prediction.model_version} says {prediction.outputs['label'][0]}")
    print(f"probabilities {np.round(prediction.outputs['probabilities'][0], 3)}")
    print(f"compute took {prediction.timing.compute_seconds * 1e3:.2f} ms" if prediction.timing else "")


if __name__ == "__main__":
    try:
        asyncio.run(main(*(sys.argv[1:] or ["127.0.0.1:8001"])))
    except InferwayError as error:
        sys.exit(f"error: {error}")
