"""`python -m inferway_chassis.healthcheck HOST:PORT [NAME]`: exits 0 if the server says SERVING, else 1."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2


def check(target: str, name: str = "", timeout_seconds: float = 2.0) -> bool:
    """Whether the server at `host:port` says that `name` ("" for the whole server) is SERVING."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = call(health_pb2.HealthCheckRequest(service=name), timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    raise SystemExit(0 if check(sys.argv[1], "".join(sys.argv[2:3])) else 1)
