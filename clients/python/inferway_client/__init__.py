"""inferway's client: numpy in, numpy out, over grpc.aio.

    async with Client("127.0.0.1:8001") as client:
        prediction = await client.predict("digits", {"image": images})
        prediction.outputs["probabilities"]

Everything that can go wrong arrives as a class of `inferway.errors`, whose docstring draws the whole tree.
"""

from __future__ import annotations

from inferway.errors import InferwayError
from inferway_client.client import Client, Criticality
from inferway_client.reconnecting import ReconnectPolicy
from inferway_client.results import Prediction, StreamResult, Timing
from inferway_client.retries import RetryPolicy
from inferway_client.stream import PredictionStream
from inferway_client.target import Version

__all__ = [
    "Client",
    "Criticality",
    "InferwayError",
    "Prediction",
    "PredictionStream",
    "ReconnectPolicy",
    "RetryPolicy",
    "StreamResult",
    "Timing",
    "Version",
]
