"""Channels between inferway's own processes."""

from __future__ import annotations

from grpc import aio


def open_channel(target: str, max_message_bytes: int = 64 * 1024 * 1024) -> aio.Channel:
    """A plaintext channel of its own TCP connection to `host:port`, which notices a dead peer within 25 s."""
    return aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Without this, channels to one address share one connection, and spreading over several has no effect.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
    )
