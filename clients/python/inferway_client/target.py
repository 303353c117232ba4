"""Which model answers: endpoint, version or alias, signature."""

from __future__ import annotations

from inferway.prediction.v1 import prediction_service_pb2

Version = int | str | None
"""A version's number, an alias, or None to let the endpoint choose."""


def target_message(endpoint: str, version: Version, signature: str) -> prediction_service_pb2.Target:
    """Builds the target; the server checks the names."""
    if version is None:
        return prediction_service_pb2.Target(endpoint=endpoint, signature=signature)
    if isinstance(version, int):
        return prediction_service_pb2.Target(endpoint=endpoint, version=version, signature=signature)
    return prediction_service_pb2.Target(endpoint=endpoint, alias=version, signature=signature)
