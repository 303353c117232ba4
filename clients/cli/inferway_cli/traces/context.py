"""Trace contexts of the command's own requests."""

from __future__ import annotations

import secrets


def sampled_traceparent() -> str:
    """A new W3C traceparent that asks every hop to record its spans."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
